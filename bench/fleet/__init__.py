"""A fleet of accounts on paper: a discrete-event simulation of one day. `python -m bench fleet` runs it."""

from bench.fleet.report import measure

__all__ = ["measure"]
