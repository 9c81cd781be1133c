"""Synthetic collections: people who do not exist, each in several photos, and groups of them, with everything about them in tables."""
