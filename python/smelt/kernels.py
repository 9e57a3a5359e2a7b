"""For kernel engineers: which kernels there are, and which one runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from . import _core

__all__ = ["impls", "isa", "slots", "trace", "use"]


def slots() -> list[str]:
    """The slots of the kernel table.

    Returns:
        Their names, in the order of the table.

    Example:
        >>> "gemm" in kernels.slots()
        True
    """
    return _core.slots()


def impls(slot: str) -> list[str]:
    """The candidates of a slot on this machine, the preferred one first.

    Args:
        slot: name of the slot.

    Returns:
        Names such as ``avx2_gemm``.

    Raises:
        ValueError: no slot has the name.

    Example:
        >>> kernels.impls("gemm")[-1]
        'portable_gemm'
    """
    return _core.impls(slot)


@contextmanager
def use(impl: str) -> Iterator[None]:
    """Restricts this thread to one candidate in every slot meanwhile.

    Args:
        impl: a candidate's full name, or a prefix that fits exactly one in each slot that is used.

    Raises:
        ValueError: the prefix fits several.
        RuntimeError: a slot has no such candidate.

    Example:
        >>> with kernels.use("portable"), kernels.trace() as names:
        ...     x = smelt.ones(2) + 1
        >>> names
        ['portable_fill', 'portable_binary']
    """
    previous = _core.forced_impl()
    _core.force_impl(impl)
    try:
        yield
    finally:
        _core.force_impl(previous)


@contextmanager
def isa(name: str) -> Iterator[None]:
    """Lowers the instruction sets in use meanwhile, for all threads, as SMELT_MAX_ISA does from the start.

    Args:
        name: ``"portable"``, ``"avx2"`` or ``"avx512"``.

    Raises:
        ValueError: the CPU does not have it, or there is no such set.

    Example:
        >>> with kernels.isa("portable"):
        ...     kernels.impls("gemm")
        ['portable_gemm']
    """
    previous = _core.max_isa()
    _core.set_max_isa(name)
    try:
        yield
    finally:
        _core.set_max_isa(previous)


@contextmanager
def trace() -> Iterator[list[str]]:
    """Collects the names of the kernels that this thread runs.

    Returns:
        A list that is filled when the block ends.

    Example:
        >>> with kernels.trace() as names:
        ...     y = smelt.exp(smelt.ones(2))
        >>> [name.split("_", 1)[1] for name in names]
        ['fill', 'unary']
    """
    names: list[str] = []
    _core.start_trace()
    try:
        yield names
    finally:
        names.extend(_core.stop_trace())
