"""Why the doctor cannot look at something. What it finds is `portaria.overview.findings`."""

from __future__ import annotations


class NotLooked(Exception):
    """Something cannot be looked at, for a reason that says nothing of the stack's health: its text tells which."""


class NotThere(Exception):
    """What was asked for does not exist."""
