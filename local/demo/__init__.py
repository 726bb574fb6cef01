"""`make demo`: installs, records from every source, and a program with its own token."""
