"""Learning together with other devices: what is shared, and what never leaves."""
