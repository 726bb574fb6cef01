"""Invocation of one function as on Lambda, without Docker."""
