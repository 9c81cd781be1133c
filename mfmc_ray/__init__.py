"""Ray-distributed anonymization of the faces of an image collection ("My Face My Choice", WACV 2023)."""

__version__ = "0.1.0"
