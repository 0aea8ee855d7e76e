"""The server of a federation: Flower's engine and strategies, and what keeps them safe and whole."""
