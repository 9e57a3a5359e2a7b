"""NVIDIA GPUs: what is there, waiting for it, its memory, and times measured on it.

Kernels and copies of a device run in order, behind the Python program, which waits only where it reads values; batches of a
:class:`smelt.Trainer` or :class:`smelt.data.Loader` come on a second stream meanwhile. All functions take the name of a
device, ``"cuda"`` for the first one, ``"cuda:1"`` for the second.
"""

from __future__ import annotations

from typing import Any

from . import _core, runtime
from .functions._types import names_device

__all__ = [
    "Event",
    "Stream",
    "device_count",
    "device_info",
    "empty_cache",
    "is_available",
    "memory_stats",
    "synchronize",
    "use_graphs",
]


def is_available() -> bool:
    """Whether this build has CUDA kernels and this machine a GPU that can run them; ``smelt info`` says why not.

    Returns:
        Whether tensors can be made with ``device="cuda"``.

    Example:
        >>> smelt.cuda.is_available() == (smelt.cuda.device_count() > 0)
        True
    """
    return device_count() > 0


def device_count() -> int:
    """How many GPUs there are.

    Returns:
        The number; 0 without a driver, a GPU, or CUDA kernels in this build.

    Example:
        >>> smelt.cuda.device_count() >= 0
        True
    """
    return _core.device_count("cuda")


def device_info(device: str = "cuda") -> dict[str, Any]:
    """What a GPU is.

    Args:
        device: its name.

    Returns:
        ``name``, ``compute_capability`` as (major, minor), ``multiprocessors``, and bytes of ``memory`` and ``free_memory``.

    Raises:
        ValueError: the name is no GPU's.
        RuntimeError: it is not there, or the driver reports an error.

    Example:
        >>> if smelt.cuda.is_available():
        ...     print(smelt.cuda.device_info()["name"])
    """
    return _core.device_info(_gpu("device_info", device))


def synchronize(device: str = "cuda") -> None:
    """Waits until everything that was given to a device is done.

    Args:
        device: its name.

    Raises:
        ValueError: the name is no GPU's.
        RuntimeError: it is not there, or a kernel has failed.
        IndexError: an index that an earlier op was given lies outside; the error names the op.

    Example:
        >>> if smelt.cuda.is_available():
        ...     smelt.cuda.synchronize()
    """
    _core.synchronize(_gpu("synchronize", device))


def memory_stats(device: str = "cuda") -> dict[str, int]:
    """:func:`smelt.memory_stats` of a GPU.

    Args:
        device: its name.

    Returns:
        Bytes ``in_use``, ``peak_in_use``, ``cached`` and ``limit``, numbers of ``allocations`` and ``system_allocations``.

    Raises:
        ValueError: the name is no GPU's.
        RuntimeError: it is not there.

    Example:
        >>> if smelt.cuda.is_available():
        ...     print(smelt.cuda.memory_stats()["in_use"])
    """
    return runtime.memory_stats(_gpu("memory_stats", device))


def empty_cache(device: str = "cuda") -> None:
    """:func:`smelt.empty_cache` of a GPU: other processes can have that memory.

    Args:
        device: its name.

    Raises:
        ValueError: the name is no GPU's.
        RuntimeError: it is not there.

    Example:
        >>> if smelt.cuda.is_available():
        ...     smelt.cuda.empty_cache()
    """
    runtime.empty_cache(_gpu("empty_cache", device))


def use_graphs(on: bool) -> None:
    """Whether a recorded step is launched as one graph, as it is by default, or kernel by kernel.

    Values are the same to the bit. Kernel by kernel the program works more for each step, and a debugger or profiler sees
    which kernel it is at.

    Args:
        on: as graphs.

    Raises:
        TypeError: not a bool.

    Example:
        >>> smelt.cuda.use_graphs(False)
        >>> smelt.cuda.use_graphs(True)
    """
    if not isinstance(on, bool):
        raise TypeError(f"use_graphs: on must be True or False, got {on!r}")
    _core.set_use_graphs(on)


class Stream:
    """One of the two streams of a device: kernels run on ``"compute"``, batches of data come on ``"copy"``.

    Work of another library is brought in order with smelt's by giving it the stream's handle, such as
    ``torch.cuda.ExternalStream(stream.handle)``, or by events.

    Args:
        device: the name of a GPU.
        kind: which of the two.

    Attributes:
        device: the device.
        kind: which of the two.
        handle: CUDA's ``cudaStream_t`` as a number.

    Raises:
        ValueError: the name is no GPU's, or there is no such stream.
        RuntimeError: the device is not there.

    Example:
        >>> if smelt.cuda.is_available():
        ...     smelt.cuda.Stream("cuda", "copy").synchronize()
    """

    def __init__(self, device: str = "cuda", kind: str = "compute") -> None:
        if kind not in ("compute", "copy"):
            raise ValueError(f"Stream: kind must be 'compute' or 'copy', got {kind!r}")
        self.device, self.kind = _gpu("Stream", device), kind
        self.handle = _core.stream_handle(self.device, kind)

    def wait(self, event: Event) -> None:
        """Holds back what is given to the stream from now on, until the device has come to an event. The program goes on.

        Args:
            event: of this device; one that was never recorded holds nothing back.

        Raises:
            TypeError: it is no event.
            ValueError: it belongs to another device.

        Example:
            >>> if smelt.cuda.is_available():
            ...     smelt.cuda.Stream("cuda", "copy").wait(smelt.cuda.Event())
        """
        _check_event("Stream: event", event)
        if event.device != self.device:
            raise ValueError(f"Stream: event must be of {self.device}, got one of {event.device}")
        event._event.hold_back(self.kind)

    def synchronize(self) -> None:
        """Waits until everything that was given to the stream is done.

        Raises:
            RuntimeError: a kernel has failed.
            IndexError: an index that an earlier op was given lies outside; the error names the op.

        Example:
            >>> if smelt.cuda.is_available():
            ...     smelt.cuda.Stream().synchronize()
        """
        _core.synchronize_stream(self.device, self.kind)

    def __repr__(self) -> str:
        return f"Stream({self.device!r}, {self.kind!r})"


class Event:
    """A moment in what a device does, to wait for or to measure between.

    Args:
        device: the name of a GPU.

    Raises:
        ValueError: the name is no GPU's.
        RuntimeError: it is not there.

    Example:
        >>> if smelt.cuda.is_available():
        ...     x = smelt.ones(4096, 4096, device="cuda")
        ...     begin, end = smelt.cuda.Event(), smelt.cuda.Event()
        ...     begin.record()
        ...     y = x @ x
        ...     end.record()
        ...     print(f"{begin.seconds_until(end):.6f} s")
    """

    def __init__(self, device: str = "cuda") -> None:
        self.device = _gpu("Event", device)
        self._event = _core.Event(self.device)

    def record(self, stream: Stream | None = None) -> None:
        """Marks the moment after all that was given to a stream so far.

        Args:
            stream: of this device; None is the one of kernels.

        Raises:
            TypeError: it is no stream.
            ValueError: it belongs to another device.

        Example:
            >>> if smelt.cuda.is_available():
            ...     smelt.cuda.Event().record()
        """
        if stream is not None and not isinstance(stream, Stream):
            raise TypeError(f"Event: stream must be a Stream, got {type(stream).__name__}")
        if stream is not None and stream.device != self.device:
            raise ValueError(f"Event: stream must be of {self.device}, got one of {stream.device}")
        self._event.record("compute" if stream is None else stream.kind)

    def is_done(self) -> bool:
        """Whether the device has come to the moment that was recorded. Does not wait.

        Returns:
            True for an event that was never recorded.

        Example:
            >>> if smelt.cuda.is_available():
            ...     print(smelt.cuda.Event().is_done())
        """
        return self._event.is_done()

    def synchronize(self) -> None:
        """Waits until the device has come to the moment that was recorded.

        Example:
            >>> if smelt.cuda.is_available():
            ...     smelt.cuda.Event().synchronize()
        """
        self._event.synchronize()

    def seconds_until(self, later: Event) -> float:
        """Time on the device from this moment to a later one; waits for that one.

        Args:
            later: an event of the same device, recorded after this one.

        Returns:
            Seconds, in steps of about half a microsecond.

        Raises:
            TypeError: it is no event.
            ValueError: it belongs to another device, or one of the two was never recorded.

        Example:
            >>> if smelt.cuda.is_available():
            ...     begin, end = smelt.cuda.Event(), smelt.cuda.Event()
            ...     begin.record()
            ...     end.record()
            ...     print(begin.seconds_until(end) >= 0)
        """
        _check_event("Event: later", later)
        return self._event.seconds_until(later._event)


def _gpu(function: str, device: str) -> str:
    if not names_device(device) or device.partition(":")[0] == "cpu":
        raise ValueError(f"{function}: must be a GPU ('cuda' or 'cuda:<index>'), got {device!r}")
    return _core.parse_device(device)


def _check_event(what: str, event: Any) -> None:
    if not isinstance(event, Event):
        raise TypeError(f"{what} must be an Event, got {type(event).__name__}")
