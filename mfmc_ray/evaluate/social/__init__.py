"""A simulated social network, in which the access models are compared."""
