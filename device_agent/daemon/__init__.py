"""The agent as a process of its own: one for each home, serving its API, training when nobody chats."""
