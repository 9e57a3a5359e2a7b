"""Threads, memory, and what this machine and build can do."""

from __future__ import annotations

from typing import Any

from . import _core
from .functions._types import as_whole

__all__ = [
    "empty_cache",
    "get_float32_matmul",
    "get_num_threads",
    "info",
    "memory_stats",
    "reset_peak_memory",
    "set_float32_matmul",
    "set_memory_limit",
    "set_num_threads",
]


def set_num_threads(count: int) -> None:
    """Sets how many threads kernels use. Results do not depend on it, not by a bit.

    Args:
        count: from 1 to 256. At the start it is SMELT_NUM_THREADS, else what affinity mask and cgroup quota allow.

    Raises:
        TypeError: it is not a whole number.
        ValueError: the number is outside.

    Example:
        >>> before = smelt.get_num_threads()
        >>> smelt.set_num_threads(1)
        >>> smelt.get_num_threads()
        1
        >>> smelt.set_num_threads(before)
    """
    count = as_whole("set_num_threads: the number", count)
    if not 1 <= count <= 256:
        raise ValueError(f"set_num_threads: the number must be from 1 to 256, got {count}")
    _core.set_num_threads(count)


def get_num_threads() -> int:
    """How many threads kernels use.

    Returns:
        The number.

    Example:
        >>> smelt.get_num_threads() >= 1
        True
    """
    return _core.num_threads()


def set_float32_matmul(mode: str) -> None:
    """How matrix products and convolutions of float32 compute on a GPU. On the CPU they are always exact.

    Args:
        mode: ``"exact"``, as at the start, multiplies float32 as it is. ``"tf32"`` rounds operands to TF32 (8 bits of
            exponent, 10 of mantissa) and adds in float32, which tensor cores do: an element is off by up to 2^-10 of the sum
            of its products' magnitudes, and operands within 2^-11 of the largest number become infinite.

    Raises:
        ValueError: the mode is none of these.

    Example:
        >>> smelt.set_float32_matmul("tf32")
        >>> smelt.get_float32_matmul()
        'tf32'
        >>> smelt.set_float32_matmul("exact")
    """
    if mode not in ("exact", "tf32"):
        raise ValueError(f"set_float32_matmul: the mode must be 'exact' or 'tf32', got {mode!r}")
    _core.set_tf32(mode == "tf32")


def get_float32_matmul() -> str:
    """What :func:`set_float32_matmul` has set.

    Returns:
        ``"exact"`` or ``"tf32"``.

    Example:
        >>> smelt.get_float32_matmul()
        'exact'
    """
    return "tf32" if _core.tf32() else "exact"


def memory_stats(device: str = "cpu") -> dict[str, int]:
    """What the allocator of a device has done.

    Args:
        device: the device.

    Returns:
        Bytes ``in_use``, ``peak_in_use`` and ``cached``, numbers of ``allocations`` and ``system_allocations``, and the
        ``limit`` of :func:`set_memory_limit` in bytes, 0 without one.

    Example:
        >>> x = smelt.zeros(1000)
        >>> smelt.memory_stats()["in_use"] >= x.nbytes
        True
    """
    return _core.memory_stats(device)


def reset_peak_memory(device: str = "cpu") -> None:
    """Starts ``peak_in_use`` of :func:`memory_stats` anew from what is in use now.

    Args:
        device: the device.

    Example:
        >>> smelt.reset_peak_memory()
    """
    _core.reset_peak_memory(device)


def set_memory_limit(limit: int | None, device: str = "cpu") -> None:
    """Caps what the allocator of a device takes from the system, memory kept for later requests included.

    A request beyond it first empties the cache and then fails with a MemoryError that says what was asked for and what
    tensors hold; everything stays usable. What tensors hold already stays, and goes to the system when they end. Blocks are
    up to a quarter larger than what they are for.

    Args:
        limit: bytes; None for none.
        device: the device.

    Raises:
        TypeError: the limit is not a whole number.
        ValueError: it is not positive.
        RuntimeError: the device is not there.

    Example:
        >>> smelt.set_memory_limit(1 << 40)
        >>> smelt.memory_stats()["limit"]
        1099511627776
        >>> smelt.set_memory_limit(None)
    """
    if limit is not None:
        limit = as_whole("set_memory_limit: the limit", limit)
        if not 0 < limit < 1 << 63:
            raise ValueError(f"set_memory_limit: the limit must be a positive number of bytes, got {limit}")
    _core.set_memory_limit(limit or 0, device)


def empty_cache(device: str = "cpu") -> None:
    """Gives memory that is kept for later requests back to the system.

    Args:
        device: the device.

    Example:
        >>> smelt.empty_cache()
        >>> smelt.memory_stats()["cached"]
        0
    """
    _core.empty_cache(device)


def info() -> dict[str, Any]:
    """Version, CPU, instruction sets, threads, and why other devices are absent.

    Returns:
        JSON values, as ``smelt info --json`` prints them.

    Example:
        >>> smelt.runtime.info()["devices"]["cpu"]["available"]
        True
    """
    import os

    from .datasets.locate import data_root
    from .serialization import environment

    reason, note = _core.why_unavailable("cuda"), _core.isa_note()
    return {
        **environment(),
        "cpu_features": _core.cpu_features(),
        "detected_isa": _core.detected_isa(),
        **({"isa_note": note} if note else {}),
        "devices": {
            "cpu": {"available": True},
            "cuda": {"available": not reason, **({"reason": reason} if reason else {})},
        },
        "data": str(data_root()),
        "variables": {name: value for name, value in os.environ.items() if name.startswith("SMELT_")},
        "slots": {slot: _core.impls(slot) for slot in _core.slots()},
    }
