"""MiniStack as the local cloud starts it."""
