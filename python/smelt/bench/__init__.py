"""Timing that can be trusted: alternating runs, medians, the machine's limits, and how busy it is with other work."""

from . import models, report, shapes, suites
from .measure import Comparison, Race, compare, foreign_load, limits, race, stream_limits, wait_until_quiet
from .runner import run, unproven

__all__ = [
    "Comparison",
    "Race",
    "compare",
    "foreign_load",
    "limits",
    "models",
    "race",
    "report",
    "run",
    "shapes",
    "stream_limits",
    "suites",
    "unproven",
    "wait_until_quiet",
]
