"""What this machine can do, and what training costs on it."""
