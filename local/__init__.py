"""The local cloud: the real template on MiniStack, with simulators of the platforms behind a TLS egress proxy."""
