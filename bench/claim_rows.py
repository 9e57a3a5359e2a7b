"""Rows of `bench/claims.py`: their list, how one is measured against PyTorch on a quiet machine, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smelt import bench

LOAD_LIMIT = 0.1
Row = dict[str, Any]
CLAIMS: list[tuple[str, str, Callable[[], Row]]] = []


class NotRunError(Exception):
    """The row cannot be measured here; the text says why."""


def claim(name: str, target: str) -> Callable[[Callable[[], Row]], Callable[[], Row]]:
    def add(function: Callable[[], Row]) -> Callable[[], Row]:
        CLAIMS.append((name, target, function))
        return function

    return add


def result(passed: bool, measured: str, **more: Any) -> Row:
    return {"status": "PASS" if passed else "MISS", "measured": measured, **more}


def peer() -> Any:
    try:
        import torch
    except ImportError:
        raise NotRunError("PyTorch is not installed") from None
    return torch


def quiet() -> None:
    if not bench.wait_until_quiet(LOAD_LIMIT, timeout=120):
        raise NotRunError("other processes use more than 10 % of the CPU")


def measured_ratio(ours: Callable[[], Any], theirs: Callable[[], Any], pairs: int = 21) -> bench.Comparison:
    """A comparison that counts: repeated until the machine was quiet throughout."""
    for _ in range(5):
        quiet()
        c = bench.compare(ours, theirs, pairs=pairs, warmup=3 if pairs > 5 else 1)
        if c.load <= LOAD_LIMIT:
            return c
    raise NotRunError("other processes use more than 10 % of the CPU")


def ratio_row(c: bench.Comparison, target: float, configuration: str) -> Row:
    return result(
        c.ratio >= target,
        f"{c.ratio:.2f}x ({c.low:.2f} to {c.high:.2f}), {c.ours * 1e3:.3f} ms against {c.theirs * 1e3:.3f} ms",
        peer=f"PyTorch {peer().__version__}, {configuration}",
        n=c.pairs,
        ratio=c.ratio,
        low=c.low,
        high=c.high,
        ours_ms=c.ours * 1e3,
        theirs_ms=c.theirs * 1e3,
        load=c.load,
    )
