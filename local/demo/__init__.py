"""`make demo`: installs, records by every way, and a program with a token of its own."""
