"""Deterministic simulation: the real code on AWS and a platform in memory, in virtual time, interleaved by a seed."""
