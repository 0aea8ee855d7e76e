"""The agent's local API: what OpenAI's clients ask for, and what is ours beside it. No training, no sockets."""
