"""Frozen models and how they are read. To add a family: a row in ``families``."""
