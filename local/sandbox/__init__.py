"""The sandbox: the local cloud with accounts at the simulated platforms, and commands that act as their users."""
