"""Synthetic people with hidden facts, preferences, labels and style rules, and known answers."""
