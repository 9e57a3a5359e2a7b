"""Timing of two rivals in turn."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _core, functions, kernels

__all__ = ["Comparison", "Race", "compare", "foreign_load", "limits", "race", "stream_limits", "wait_until_quiet"]


@dataclass(frozen=True)
class Comparison:
    """Times of two functions that ran in turn.

    Attributes:
        ours: median seconds of the first.
        theirs: median seconds of the second.
        ratio: median of theirs / ours over the pairs: above 1 the first is faster.
        low, high: 95 % interval of that median.
        pairs: how many pairs there were.
        load: share of the CPU that other processes used meanwhile.

    Example:
        >>> smelt.bench.Comparison(ours=1.0, theirs=2.0, ratio=2.0, low=1.9, high=2.1, pairs=15, load=0.0).ratio
        2.0
    """

    ours: float
    theirs: float
    ratio: float
    low: float
    high: float
    pairs: int
    load: float

    @property
    def verdict(self) -> str:
        """``"faster"``, ``"slower"``, or ``"no difference"`` where the interval contains 1.

        Example:
            >>> c = smelt.bench.Comparison(ours=1.0, theirs=1.1, ratio=1.1, low=0.9, high=1.2, pairs=15, load=0.0)
            >>> c.verdict
            'no difference'
        """
        return "faster" if self.low > 1 else "slower" if self.high < 1 else "no difference"


def _cpu_times() -> tuple[float, float]:
    """Seconds of work of the whole machine, and of this process, since some moment."""
    with open("/proc/stat") as file:
        fields = [int(v) for v in file.readline().split()[1:9]]
    tick = os.sysconf("SC_CLK_TCK")
    busy = sum(fields) - fields[3] - fields[4]  # without idle and iowait
    own = os.times()
    return busy / tick, own.user + own.system


class _Watch:
    """The share of the CPU that other processes have used since the last look."""

    def __init__(self) -> None:
        self._at, self._times = time.perf_counter(), _cpu_times()

    def share(self) -> float:
        now, times = time.perf_counter(), _cpu_times()
        seconds = (now - self._at) * (os.cpu_count() or 1)
        foreign = (times[0] - self._times[0]) - (times[1] - self._times[1])
        self._at, self._times = now, times
        return max(0.0, foreign / seconds) if seconds > 0 else 0.0


def foreign_load(seconds: float = 0.2) -> float:
    """The share of the machine's CPU that other processes use.

    Args:
        seconds: how long to watch.

    Returns:
        From 0 to 1.

    Example:
        >>> 0 <= smelt.bench.foreign_load(0.05) <= 1
        True
    """
    watch = _Watch()
    time.sleep(seconds)
    return min(watch.share(), 1.0)


def wait_until_quiet(limit: float = 0.1, timeout: float = 60.0) -> bool:
    """Waits until other processes use little of the CPU: before that, a ratio means nothing.

    Args:
        limit: the share that counts as little.
        timeout: seconds after which to give up.

    Returns:
        Whether it became quiet.

    Example:
        >>> smelt.bench.wait_until_quiet(limit=1.0)
        True
    """
    end = time.perf_counter() + timeout
    while foreign_load(0.5) > limit:
        if time.perf_counter() > end:
            return False
    return True


def _nothing() -> None:
    pass


def _repeats(function: Callable[[], Any], seconds: float, finish: Callable[[], Any]) -> int:
    """How often to call a function so that one measurement lasts about so long."""
    begin = time.perf_counter()
    function()
    finish()
    once = max(time.perf_counter() - begin, 1e-7)
    return max(1, int(seconds / once))


_SETTLE = 0.01  # seconds of calls that are not counted
_SLICE, _LONGEST_REST = 0.002, 0.25  # seconds


def _rest() -> None:
    """Sleeps until this process does nothing: threads of a pool wait actively after their work, some for 10 ms and more,
    which is the next one's time where all CPUs are needed."""
    end = time.perf_counter() + _LONGEST_REST
    while time.perf_counter() < end:
        begin = time.process_time()
        time.sleep(_SLICE)
        if time.process_time() - begin < 0.2 * _SLICE:
            return


def _time(function: Callable[[], Any], repeats: int, finish: Callable[[], Any]) -> float:
    """Seconds of one call, after the rival's threads have fallen asleep and its data have left the caches."""
    _rest()
    begin = time.perf_counter()
    while time.perf_counter() - begin < _SETTLE:
        function()
        finish()
    begin = time.perf_counter()
    for _ in range(repeats):
        function()
    finish()
    return (time.perf_counter() - begin) / repeats


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the median from order statistics: r values lie outside at either end, as many as leave 95 %
    between them by the binomial distribution (none of 5 values: 94 %)."""
    ordered, n = sorted(values), len(values)
    r, outside = 0, 2.0 * 0.5**n
    while outside + 2 * math.comb(n, r + 1) * 0.5**n <= 0.05:
        r += 1
        outside += 2 * math.comb(n, r) * 0.5**n
    return ordered[r], ordered[n - 1 - r]


@dataclass(frozen=True)
class Race:
    """Times of several functions that ran in turn.

    Attributes:
        times: seconds of each round, by name.
        load: share of the CPU that other processes used meanwhile.

    Example:
        >>> smelt.bench.Race({"a": [1.0, 1.1, 1.2], "b": [2.0, 2.1, 2.2]}, load=0.0).median("b")
        2.1
    """

    times: Mapping[str, Sequence[float]]
    load: float

    def median(self, name: str) -> float:
        """The median time.

        Args:
            name: of the function.

        Returns:
            Seconds.

        Example:
            >>> smelt.bench.Race({"a": [1.0, 3.0, 2.0]}, load=0.0).median("a")
            2.0
        """
        return statistics.median(self.times[name])

    def interval(self, name: str) -> tuple[float, float]:
        """The 95 % interval of the median time.

        Args:
            name: of the function.

        Returns:
            Seconds, low and high.

        Example:
            >>> smelt.bench.Race({"a": [1.0, 3.0, 2.0]}, load=0.0).interval("a")
            (1.0, 3.0)
        """
        return _interval(self.times[name])

    def compare(self, ours: str, theirs: str) -> Comparison:
        """Two of the functions against each other, round by round.

        Args:
            ours: name of the one.
            theirs: name of the other.

        Returns:
            Medians, and the median of the paired ratios with its interval.

        Example:
            >>> smelt.bench.Race({"a": [1.0, 1.1], "b": [2.0, 2.2]}, load=0.0).compare("a", "b").ratio
            2.0
        """
        ratios = [b / a for a, b in zip(self.times[ours], self.times[theirs])]
        low, high = _interval(ratios)
        return Comparison(
            ours=self.median(ours),
            theirs=self.median(theirs),
            ratio=statistics.median(ratios),
            low=low,
            high=high,
            pairs=len(ratios),
            load=self.load,
        )


def race(
    functions: Mapping[str, Callable[[], Any]],
    rounds: int = 15,
    seconds: float = 0.02,
    warmup: int = 3,
    finish: Callable[[], Any] | None = None,
) -> Race:
    """Times functions in turn; each round begins with another. Before each measurement the process sleeps until
    it uses next to no CPU, for 0.25 s at most, then the function runs uncounted for 10 ms.

    Args:
        functions: by name.
        rounds: measurements of each, at least 5.
        seconds: how long one measurement lasts at least; short functions are called often enough.
        warmup: calls of each before the first measurement.
        finish: waits for what the calls of a measurement have begun, as part of it.

    Returns:
        The times, and how busy the machine was with other work.

    Raises:
        ValueError: fewer than 5 rounds.

    Example:
        >>> r = smelt.bench.race({"a": lambda: sum(range(100)), "b": lambda: sum(range(900))}, rounds=5, seconds=0.001)
        >>> r.median("a") < r.median("b")
        True
    """
    finish = finish or _nothing
    if rounds < 5:
        raise ValueError(f"race: rounds must be at least 5, got {rounds}")
    names = list(functions)
    for _ in range(warmup):
        for name in names:
            functions[name]()
    finish()
    repeats = {name: _repeats(functions[name], seconds, finish) for name in names}
    watch = _Watch()
    times: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(_time(functions[name], repeats[name], finish))
    load = watch.share()  # over all rounds: the system counts in steps of 10 ms, too coarse for one
    return Race(times, min(load, 1.0))


def compare(
    ours: Callable[[], Any], theirs: Callable[[], Any], pairs: int = 15, seconds: float = 0.02, warmup: int = 3
) -> Comparison:
    """Times two functions in turn, as `race` does.

    Args:
        ours: the one.
        theirs: the other.
        pairs: how many pairs of measurements, at least 5.
        seconds: how long one measurement lasts at least.
        warmup: calls of each before the first measurement.

    Returns:
        Medians, and the median of the paired ratios with its interval (from the order statistics of the pairs).

    Raises:
        ValueError: fewer than 5 pairs.

    Example:
        >>> c = smelt.bench.compare(lambda: sum(range(100)), lambda: sum(range(900)), pairs=5, seconds=0.001)
        >>> c.low <= c.ratio <= c.high
        True
    """
    if pairs < 5:
        raise ValueError(f"compare: pairs must be at least 5, got {pairs}")
    return race({"ours": ours, "theirs": theirs}, pairs, seconds, warmup).compare("ours", "theirs")


def limits(megabytes: int = 256, device: str = "cpu") -> dict[str, float]:
    """What this machine can do at best, with the instruction set and threads in use, or a GPU.

    Args:
        megabytes: memory to move, more than the caches hold.
        device: the CPU, or the name of a GPU.

    Returns:
        ``fma_gflops`` from registers, in float32; ``bf16_gflops`` of random bfloat16, from the first cache where the unit
        works on tiles of memory; ``read_gbs``, ``write_gbs``, ``copy_gbs`` (both with non-temporal stores) and ``update_gbs``
        (in place) of memory; each the best of 5.

    Example:
        >>> smelt.bench.limits(megabytes=1)["fma_gflops"] > 0
        True
    """
    memory = _core.full([megabytes * 262144], 1, "float32", device)
    if device != "cpu":
        _core.synchronize(device)

    halves = np.random.default_rng(0).standard_normal(32768, "float32").view("uint32") >> 16
    # Random: on zeros units run faster than they ever will.
    pairs = _core.to_device(_core.from_numpy((halves[::2] | halves[1::2] << 16).view("float32"), None), device)
    if device != "cpu":  # enough of them for every multiprocessor
        pairs = functions.concat([pairs] * 64)

    def best(kind: str, rounds: int, memory: Any = memory) -> float:
        rates = []
        for _ in range(5):
            begin = time.perf_counter()
            done = kernels.probe(memory, kind, rounds)
            rates.append(done / (time.perf_counter() - begin) / 1e9)
        return max(rates)

    arithmetic = 2_000_000 if device == "cpu" else 2_000 if megabytes > 1 else 2
    return {
        "fma_gflops": best("fma", arithmetic),
        "bf16_gflops": best("fma_bf16", arithmetic, pairs),
        "read_gbs": best("read", 1),
        "write_gbs": best("write", 1),
        "copy_gbs": best("copy", 1),
        "update_gbs": best("update", 1),
    }


def stream_limits(nbytes: float) -> dict[str, float]:
    """How fast the CPU reads and copies again and again in memory of one size, caches included.

    Args:
        nbytes: size of the memory, at least 4096.

    Returns:
        ``read_gbs``, and ``copy_gbs`` of one half to the other, with non-temporal or with ordinary stores, whichever is
        faster; each the best of 5.

    Raises:
        ValueError: less memory.

    Example:
        >>> sorted(smelt.bench.stream_limits(1 << 16))
        ['copy_gbs', 'read_gbs']
    """
    if nbytes < 4096:
        raise ValueError(f"stream_limits: nbytes must be at least 4096, got {nbytes}")
    memory = _core.full([int(nbytes) // 4], 1, "float32", "cpu")
    rounds = max(1, int(2e8 / nbytes))
    rates: dict[str, list[float]] = {"read": [], "copy": [], "copy_cached": []}
    for _ in range(5):
        for kind, seen in rates.items():
            begin = time.perf_counter()
            done = kernels.probe(memory, kind, rounds)
            seen.append(done / (time.perf_counter() - begin) / 1e9)
    return {"read_gbs": max(rates["read"]), "copy_gbs": max(rates["copy"] + rates["copy_cached"])}
