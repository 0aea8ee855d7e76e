"""The way to the cloud: HTTP, sessions, features, and what each exchange has cost."""
