"""The local cloud: the template deployed to MiniStack, and simulators of the platforms behind a TLS egress proxy."""
