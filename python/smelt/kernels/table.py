"""Which kernels there are, which one runs, and kernels of one's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import _core

__all__ = ["impls", "include_dir", "isa", "register", "slots", "trace", "use"]


def slots() -> list[str]:
    """The slots of the kernel table.

    Returns:
        Their names, in the order of the table.

    Example:
        >>> "gemm" in kernels.slots()
        True
    """
    return _core.slots()


def impls(slot: str, device: str = "cpu") -> list[str]:
    """The candidates of a slot on this machine, in the order of preference: the first that takes a call's arguments runs.

    Args:
        slot: name of the slot.
        device: whose kernels.

    Returns:
        Names such as ``avx2_gemm``.

    Raises:
        ValueError: no slot has the name.
        RuntimeError: the device is not there.

    Example:
        >>> kernels.impls("gemm")[-1]
        'portable_gemm'
    """
    return _core.impls(slot, device)


@contextmanager
def use(impl: str) -> Iterator[None]:
    """Restricts this thread's choice meanwhile, in every slot that has a candidate of this name.

    Args:
        impl: a candidate's full name, or what names begin or end with: an instruction set (``"avx2"``), a technique
            (``"direct"``). Of several that fit, the table's order decides.

    Raises:
        ValueError: no candidate here has the name.
        RuntimeError: a slot has the candidate, but it does not take the arguments.

    Example:
        >>> with kernels.use("portable"), kernels.trace() as names:
        ...     x = smelt.ones(2) + 1
        >>> names
        ['portable_fill', 'portable_binary']
    """
    names = {name for slot in _core.slots() for name in _core.impls(slot)}
    if not impl or not any(_core.fits_impl(name, impl) for name in names):
        sets = ", ".join(sorted({name.split("_")[0] for name in names}))
        raise ValueError(f"kernels.use: impl must begin or end the name of a kernel here ({sets}, ...), got {impl!r}")
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
    try:
        _core.set_max_isa(name)
    except ValueError as error:
        raise ValueError(f"kernels.isa: {str(error).split(': ', 1)[-1]}") from None
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


def include_dir() -> str:
    """Where the headers lie that a kernel of one's own includes: ``#include "core/kernels.h"``, C++20.

    Returns:
        A folder for the compiler's ``-I``.

    Raises:
        RuntimeError: the package was installed without them.

    Example:
        >>> import os
        >>> os.path.exists(os.path.join(kernels.include_dir(), "core", "kernels.h"))
        True
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "include", package.parent.parent / "csrc"):
        if (folder / "core" / "kernels.h").exists():
            return str(folder)
    raise RuntimeError(
        f"include_dir: {package / 'include'} must hold core/kernels.h, and does not; install smelt again"
    )


def register(
    slot: str,
    name: str,
    library: str | os.PathLike[str],
    run: str,
    *,
    workspace: str | None = None,
    supports: str | None = None,
) -> None:
    """Adds a kernel from a shared library as the last candidate of a slot: `use` or ``impl=`` chooses it.

    The functions are ``extern "C"``, compiled with the headers of `include_dir`: ``Status run(const Args&, Context&)``,
    ``size_t workspace(const Args&, int threads)`` in bytes and ``bool supports(const Args&, Device)``. A kernel trusts its
    arguments and is trusted; the library stays loaded.

    Args:
        slot: name of the slot.
        name: the candidate's name, new in its slot.
        library: path of the shared library.
        run: name of the kernel in it.
        workspace: name of the function that says how much memory it needs, or None for none.
        supports: name of the function that says which arguments it takes, or None for all.

    Raises:
        ValueError: no such slot, an empty name, or the slot has a candidate of that name.
        OSError: the library cannot be loaded.
        AttributeError: it has no such function.

    Example:
        >>> kernels.register("gemm", "mine", "/no/such/library.so", "run")
        Traceback (most recent call last):
        OSError: register: cannot load /no/such/library.so: ...
    """
    import ctypes

    _core.impls(slot)  # ValueError when there is none
    if not name:
        raise ValueError("register: name must not be empty")
    path = os.fspath(library)
    if os.path.exists(path):  # else the loader looks for it
        path = os.path.abspath(path)
    try:
        loaded = ctypes.CDLL(path)
    except OSError as error:
        raise OSError(f"register: cannot load {path}: {error}") from None

    def address(function: str | None) -> int:
        if function is None:
            return 0
        if not hasattr(loaded, function):
            raise AttributeError(f'register: {path} must have an extern "C" function {function!r}, and has none')
        return ctypes.cast(getattr(loaded, function), ctypes.c_void_p).value or 0

    _core.add_candidate(slot, name, address(run), address(workspace), address(supports))
    _LIBRARIES.append(loaded)


_LIBRARIES: list[object] = []  # those that kernels came from, loaded for as long as the process
