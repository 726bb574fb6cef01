"""Simulators of the platforms: they answer as the vendors' pages say, count every call, and fail when told to."""
