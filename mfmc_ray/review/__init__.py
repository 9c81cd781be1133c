"""Reviewing a result: the riskiest faces first, and decisions that the next run honours."""
