"""One function as Lambda runs it, without Docker."""
