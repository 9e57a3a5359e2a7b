"""Learning rates over time: a schedule is a function from a step's number to a factor of the base rate.

Being pure functions, schedules have no state to save: a resumed run continues with the same rates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

__all__ = ["Schedule", "constant", "cosine", "get", "one_cycle", "step", "warmup"]

Schedule = Callable[[int], float]


def constant() -> Schedule:
    """The base rate throughout.

    Returns:
        A schedule.

    Example:
        >>> schedule.constant()(100)
        1.0
    """
    return lambda index: 1.0


def step(size: int | Sequence[int], factor: float = 0.1) -> Schedule:
    """The rate multiplied by ``factor`` every ``size`` steps, or at given steps.

    Args:
        size: steps between two drops, or the steps at which to drop.
        factor: the multiplier of a drop.

    Returns:
        A schedule.

    Raises:
        ValueError: ``size`` is below 1.

    Example:
        >>> s = schedule.step(10, 0.5)
        >>> s(9), s(10), s(25)
        (1.0, 0.5, 0.25)
    """
    if isinstance(size, int):
        if size < 1:
            raise ValueError(f"step: size must be at least 1, got {size}")
        width = size
        return lambda index: float(factor ** (index // width))
    drops = sorted(size)
    return lambda index: float(factor ** sum(index >= at for at in drops))


def cosine(steps: int, end: float = 0.0) -> Schedule:
    """Half a cosine from 1 to ``end`` (Loshchilov and Hutter, 2017).

    Args:
        steps: how many steps it takes, at least 1; the rate stays at ``end`` after them.
        end: the last factor.

    Returns:
        A schedule.

    Raises:
        ValueError: ``steps`` is below 1.

    Example:
        >>> s = schedule.cosine(100)
        >>> s(0), round(s(50), 6), s(100)
        (1.0, 0.5, 0.0)
    """
    if steps < 1:
        raise ValueError(f"cosine: steps must be at least 1, got {steps}")
    return lambda index: end + (1 - end) * (1 + math.cos(math.pi * min(index / steps, 1.0))) / 2


def one_cycle(steps: int, rise: float = 0.3, start: float = 0.04, end: float = 0.0004) -> Schedule:
    """Up from ``start`` to 1 and down to ``end``, each half a cosine (Smith and Topin, 2018).

    Args:
        steps: how many steps the cycle takes, at least 1.
        rise: the share of them that goes up, in [0, 1].
        start: the first factor.
        end: the last factor.

    Returns:
        A schedule.

    Raises:
        ValueError: ``steps`` is below 1 or ``rise`` outside [0, 1].

    Example:
        >>> s = schedule.one_cycle(100, rise=0.3)
        >>> round(s(0), 6), round(s(30), 6), round(s(100), 6)
        (0.04, 1.0, 0.0004)
    """
    if steps < 1:
        raise ValueError(f"one_cycle: steps must be at least 1, got {steps}")
    if not 0 <= rise <= 1:
        raise ValueError(f"one_cycle: rise must be in [0, 1], got {rise}")
    top = rise * steps

    def between(a: float, b: float, t: float) -> float:
        return b + (a - b) * (1 + math.cos(math.pi * min(t, 1.0))) / 2

    def factor(index: int) -> float:
        if index < top:
            return between(start, 1.0, index / top)
        return between(1.0, end, (index - top) / max(steps - top, 1e-9))

    return factor


def warmup(steps: int, then: Schedule | None = None, start: float = 0.0) -> Schedule:
    """A straight line from ``start`` to 1, then another schedule.

    Args:
        steps: how many steps the line takes.
        then: what follows, counted from the end of the line; constant by default.
        start: the first factor.

    Returns:
        A schedule.

    Raises:
        ValueError: ``steps`` is negative.

    Example:
        >>> s = schedule.warmup(10, then=schedule.cosine(90))
        >>> s(0), s(5), s(10), s(100)
        (0.0, 0.5, 1.0, 0.0)
    """
    if steps < 0:
        raise ValueError(f"warmup: steps must not be negative, got {steps}")
    after = then if then is not None else constant()
    return lambda index: start + (1 - start) * index / steps if index < steps else after(index - steps)


def get(schedule: str | Schedule | None, steps: int) -> Schedule:
    """A schedule by name for a run of known length; a function is returned as it is.

    Args:
        schedule: ``"constant"`` or None, ``"cosine"``, ``"one_cycle"``, ``"warmup_cosine"`` (5 % warm-up), or a function.
        steps: the length of the run.

    Returns:
        A schedule.

    Raises:
        ValueError: the name is unknown.

    Example:
        >>> schedule.get("cosine", 10)(10)
        0.0
    """
    if callable(schedule):
        return schedule
    total = max(steps, 1)
    if schedule is None or schedule == "constant":
        return constant()
    if schedule == "cosine":
        return cosine(total)
    if schedule == "one_cycle":
        return one_cycle(total)
    if schedule == "warmup_cosine":
        rising = max(1, total // 20)
        return warmup(rising, cosine(max(total - rising, 1)))
    raise ValueError(f"schedule: must be constant, cosine, one_cycle, warmup_cosine or a function, got {schedule!r}")
