"""What is counted for recorded steps: those that are being recorded, and changes of what they may depend on."""

from __future__ import annotations

import sys
import threading

from . import _core

recordings = 0  # steps that are being recorded now, in all threads
recorded = 0  # steps that were begun to be recorded
last = ""  # what was changed last
_lock = threading.Lock()


def count_recordings(change: int) -> None:
    """A step begins (1) or ends (-1) to be recorded."""
    global recordings, recorded
    with _lock:
        recordings += change
        recorded += max(change, 0)


def note(what: str) -> None:
    """Says that something was changed that a recorded step may depend on: the next run is compared."""
    global last
    last = what
    _core.note_change()


def is_generator(value: object) -> bool:
    """Whether a value is a random generator of Python or NumPy."""
    kinds = [(sys.modules.get("random"), "Random"), (sys.modules.get("numpy.random"), "Generator")]
    kinds.append((sys.modules.get("numpy.random"), "RandomState"))
    return any(module is not None and isinstance(value, getattr(module, name)) for module, name in kinds)
