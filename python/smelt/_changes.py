"""For recorded steps: how many are being recorded, and random numbers that are not smelt's."""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
import threading
import types
from collections.abc import Iterable
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


_MOST_REACHED = 20_000  # objects that are looked at
_FOREIGN = {"smelt", "numpy", *sys.stdlib_module_names}  # whose classes and functions are not looked into


def reaches_generator(roots: Iterable[Any]) -> bool:
    """Whether functions and objects lead to a random generator of Python or NumPy: through closures, the globals that a
    function names, attributes, methods and containers."""
    waiting = list(roots)
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_REACHED:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if is_generator(value):
            return True
        waiting.extend(itertools.islice(_parts(value), _MOST_REACHED))
    return False


def attributes_of(value: object) -> dict[str, Any]:
    """What an object holds, in its dict and in slots."""
    found = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            found.setdefault(name, getattr(value, name, None))
    return found


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, types.FunctionType):
        return () if _is_foreign(value.__module__) else [*_captured(value), *_named(value, value.__code__)]
    if isinstance(value, types.MethodType):
        return value.__self__, value.__func__
    if isinstance(value, functools.partial):
        return value.func, *value.args, *value.keywords.values()
    if isinstance(value, (staticmethod, classmethod)):
        return (value.__func__,)
    if isinstance(value, property):
        return (value.fget,)
    if isinstance(value, (list, tuple, set, frozenset)):
        return value
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, types.ModuleType):
        return ()
    if isinstance(value, type):
        return () if _is_foreign(value.__module__) else [*vars(value).values(), *value.__bases__]
    return [*attributes_of(value).values(), type(value)]


def _is_foreign(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _FOREIGN


def _captured(function: types.FunctionType) -> list[Any]:
    found = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # a cell that is not filled yet
            found.append(cell.cell_contents)
    return found


def _named(function: types.FunctionType, code: types.CodeType) -> list[Any]:
    """The globals that code names, and what it may take from modules among them."""
    found = [function.__globals__[name] for name in code.co_names if name in function.__globals__]
    modules = [m for m in found if isinstance(m, types.ModuleType) and not _is_foreign(m.__name__)]
    found += [vars(m)[name] for m in modules for name in code.co_names if name in vars(m)]
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            found += _named(function, inner)
    return found


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
