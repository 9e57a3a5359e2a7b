"""For recorded steps: how many are being recorded, and random numbers that are not smelt's."""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np

recordings = 0  # steps that are being recorded now, in all threads
recorded = 0  # steps that were begun to be recorded
_lock = threading.Lock()


def count_recordings(change: int) -> None:
    """A step begins (1) or ends (-1) to be recorded."""
    global recordings, recorded
    with _lock:
        recordings += change
        recorded += max(change, 0)


def is_generator(value: object) -> bool:
    """Whether a value is a random generator of Python or NumPy."""
    kinds = [(sys.modules.get("random"), "Random"), (sys.modules.get("numpy.random"), "Generator")]
    kinds.append((sys.modules.get("numpy.random"), "RandomState"))
    return any(module is not None and isinstance(value, getattr(module, name)) for module, name in kinds)


def random_state() -> Any:
    """The states of Python's and NumPy's global generators, None for one that is not loaded."""
    python, numpy = sys.modules.get("random"), sys.modules.get("numpy.random")
    return python.getstate() if python else None, numpy.get_state() if numpy else None


def same_random_state(before: Any, after: Any) -> bool:
    """Whether nobody drew in between; a generator that was not loaded before does not count."""
    (python, numpy), (python_after, numpy_after) = before, after
    if python is not None and python != python_after:
        return False
    return numpy is None or all(np.array_equal(a, b) for a, b in zip(numpy, numpy_after))


def put_back_random_state(state: Any) -> None:
    """Goes back to a state of before."""
    python, numpy = state
    if python is not None:
        sys.modules["random"].setstate(python)
    if numpy is not None:
        sys.modules["numpy.random"].set_state(numpy)
