"""A case and its contenders: one piece of work, done by smelt and by its peers on the same random data."""

from __future__ import annotations

import ctypes
import importlib
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ... import _core
from ..._core import Tensor

PEERS = ("numpy", "torch", "jax")
UNIT = {"float32": 2.0**-24, "float64": 2.0**-53, "bfloat16": 2.0**-8, "float16": 2.0**-11}


@dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Attributes:
        run: does it once.
        result: what it computed, as float64 arrays, for the check before anything is timed.

    Example:
        >>> smelt.bench.suites.Contender(run=lambda: None, result=lambda: []).result()
        []
    """

    run: Callable[[], Any]
    result: Callable[[], list[Any]]


@dataclass
class Case:
    """One piece of work.

    Attributes:
        name: what and which shape.
        dtype: of the data.
        flops: floating-point operations.
        nbytes: least bytes that are moved.
        stream: the limit of `smelt.bench.limits` for moving them.
        read, written: how they divide, where `resident` is given.
        resident: bytes that are in use at once; not 0: the limit is that of copying and reading memory of this size, with
            whichever stores are faster there (`smelt.bench.stream_limits`).
        contenders: by name; smelt's come first.
        expected: what each must compute, float64, and the error that is allowed; empty: what the first computes.

    Example:
        >>> case = smelt.bench.suites.Case("gemm 2x2x2", "float32", flops=16, nbytes=48)
        >>> case.contenders
        {}
    """

    name: str
    dtype: str
    flops: float
    nbytes: float
    stream: str = "copy_gbs"
    read: float = 0.0
    written: float = 0.0
    resident: float = 0.0
    contenders: dict[str, Contender] = field(default_factory=dict)
    expected: list[tuple[Any, Any]] = field(default_factory=list)

    def check(self) -> None:
        """Raises unless every contender computes what is expected. Where that has a bound of its own, smelt must keep it;
        a peer, which may add up in another way, 16 times it.

        Raises:
            AssertionError: a contender's error is above the bound.

        Example:
            >>> smelt.bench.suites.Case("nothing", "float32", 0, 0).check()
        """
        derived = bool(self.expected)
        for name, contender in self.contenders.items():
            contender.run()
            got_all = contender.result()
            if not self.expected:  # nothing to compute it from: the first contender's result, to rounding
                share = 2.0**-8 if self.dtype == "bfloat16" else 1e-5
                self.expected = [(np.asarray(g, np.float64), share * np.abs(g)) for g in got_all]
            for got, (wanted, bound) in zip(got_all, self.expected, strict=True):
                if derived and name.split()[0] in PEERS:
                    bound = 16 * bound
                excess = np.max(np.abs(np.asarray(got, np.float64) - wanted) - bound, initial=-1.0)
                if not excess <= 0:
                    raise AssertionError(f"{self.name}: {name} exceeds the error bound by {excess:.3g}")


def peers(names: Sequence[str]) -> dict[str, Any]:
    """The peers' modules.

    Args:
        names: of ``"numpy"``, ``"torch"`` and ``"jax"``.

    Returns:
        Modules by name.

    Raises:
        ValueError: no such peer.
        ImportError: a peer that is not installed; the message says how to install it.

    Example:
        >>> list(smelt.bench.suites.peers(["numpy"]))
        ['numpy']
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # PyTorch's large tensors lie on huge pages, as ours do
    modules = {}
    for name in names:
        if name not in PEERS:
            raise ValueError(f"--against must be of {', '.join(PEERS)}, got {name!r}")
        try:
            modules[name] = importlib.import_module(name)
        except ImportError:
            raise ImportError(f"--against {name}: {name} is not installed; pip install {name}") from None
    return modules


def keep_memory() -> None:
    """glibc hands large blocks back to the system and takes fresh pages for the next, which costs PyTorch more than its work
    on them; it now keeps them."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    most, trim = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h
    mallopt(most, 0)
    mallopt(trim, -1)


def at_best(torch: Any, run: Callable[[], Any]) -> Callable[[], Any]:
    """PyTorch's work with the better of 1 and all threads."""
    best = (math.inf, 1)
    for threads in {1, _core.num_threads()}:
        torch.set_num_threads(threads)
        for look in range(3):
            begin = time.perf_counter()
            run()
            seconds = time.perf_counter() - begin
            best = min(best, (seconds, threads))
            if look and seconds > 1:  # the first may be slow because it is the first; such a time needs no third look
                break

    def timed() -> Any:
        torch.set_num_threads(best[1])
        return run()

    return timed


def forced(impl: str, run: Callable[[], Any]) -> Callable[[], Any]:
    """The work with one candidate."""

    def forced() -> Any:
        previous = _core.forced_impl()
        _core.force_impl(impl)
        try:
            return run()
        finally:
            _core.force_impl(previous)

    return forced


def labels(impls: Sequence[str]) -> Iterator[tuple[str, str]]:
    """smelt's contenders by name, and their candidates: the preferred one, or those that were asked for."""
    seen: list[str] = []
    for impl in impls or [""]:
        seen.append(impl)
        again = f"#{seen.count(impl)}" if seen.count(impl) > 1 else ""
        yield " ".join(filter(None, ("smelt", impl, again))), impl


def ours(impls: Sequence[str], run: Callable[[], Sequence[Tensor]]) -> Iterator[tuple[str, Contender]]:
    """smelt's contenders."""
    for name, impl in labels(impls):
        work = forced(impl, run) if impl else run

        def result(work: Callable[[], Sequence[Tensor]] = work) -> list[Any]:
            return [t.astype("float64").numpy() for t in work()]

        yield name, Contender(work, result)


def numbers(text: str, count: int, form: str) -> list[int]:
    try:
        values = [int(v) for v in text.lower().split("x")]
    except ValueError:
        values = []
    if len(values) != count or min(values, default=0) < 1:
        raise ValueError(f"--shape must be {form} with positive integers, got {text!r}")
    return values


def rounded(array: Any, dtype: str, device: str) -> tuple[Tensor, Any]:
    """A tensor of the dtype on the device, and its values in float64."""
    tensor = _core.from_numpy(array, True).astype(dtype)
    return _core.to_device(tensor, device), tensor.astype("float64").numpy()


@dataclass(frozen=True)
class Suite:
    """A kind of work.

    Attributes:
        text: what it is.
        form: how ``--shape`` is written.
        slots: of the kernels that ``--impl`` chooses from.
        dtypes: that it takes.
        shapes: from the options to shapes.
        build: from a shape, dtype, candidates, peers, random numbers and device to a case.
        random: whether shapes can be drawn from a seed.

    Example:
        >>> smelt.bench.suites.SUITES["gemm"].form
        'MxNxK'
    """

    text: str
    form: str
    slots: tuple[str, ...]
    dtypes: tuple[str, ...]
    shapes: Callable[[Sequence[str], int, int], Sequence[Any]]
    build: Callable[[Any, str, Sequence[str], dict[str, Any], Any, str], Case]
    random: bool = False
