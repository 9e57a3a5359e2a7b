"""Timing that can be trusted: alternating runs, medians, the machine's limits, and how busy it is with other work."""

from .measure import Comparison, compare, foreign_load, limits, wait_until_quiet

__all__ = ["Comparison", "compare", "foreign_load", "limits", "wait_until_quiet"]
