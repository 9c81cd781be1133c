"""Enrolled people: who they are, how their photos are checked, and who of them is in an image."""
