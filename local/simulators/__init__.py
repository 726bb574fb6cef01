"""Simulators of the platforms. They follow the vendors' documentation, count every call, and inject faults on demand."""
