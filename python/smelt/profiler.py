"""Where the time of a piece of work goes: kernels by layer, with rates and their share of the machine's limits."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from . import _core
from .nn import module as _module

__all__ = ["Kernel", "Profile", "profile"]


@dataclass(frozen=True)
class Kernel:
    """One call of a kernel.

    Attributes:
        name: of the candidate that ran.
        op: that called it.
        layer: path of the layer within the outermost module, ``""`` for that itself, or ``(op)`` outside of modules.
        backward: whether it computed gradients.
        begin: nanoseconds of a steady clock.
        seconds: how long it ran.
        flops: operations that it had to do.
        nbytes: bytes that it had to move, reading and writing each argument once.

    Example:
        >>> with smelt.profile() as p:
        ...     y = smelt.ones(8, 8) @ smelt.ones(8, 8)
        >>> p.kernels[-1].op, p.kernels[-1].flops
        ('matmul', 1024.0)
    """

    name: str
    op: str
    layer: str
    backward: bool
    begin: int
    seconds: float
    flops: float
    nbytes: float


class Profile:
    """What ran in a ``with`` block, on its thread: see `profile`.

    Attributes:
        kernels: every call, in order.
        seconds: the whole block.

    Example:
        >>> with smelt.Profile() as p:
        ...     y = smelt.exp(smelt.ones(2))
        >>> [k.op for k in p.kernels]
        ['full', 'exp']
    """

    def __init__(self) -> None:
        self.kernels: list[Kernel] = []
        self.seconds = 0.0
        self._begin = 0
        self._thread = 0
        self._layers: dict[str, int] = {}
        self._open: list[tuple[_module.Module, str]] = []
        self._names: dict[int, dict[int, str]] = {}  # of the modules within one that was called, by id
        self._spans: list[tuple[str, int, int]] = []
        self._ended = False

    def __enter__(self) -> Profile:
        if _module.listener is not None:
            raise RuntimeError("profile: another profile must end first, only one may run at a time")
        _core.start_profile()
        self._thread = threading.get_ident()
        _module.listener = self._enter
        self._begin = time.perf_counter_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.seconds += (time.perf_counter_ns() - self._begin) * 1e-9
        _module.listener = None
        paths = {number: path for path, number in self._layers.items()}
        for name, op, layer, backward, begin, end, flops, nbytes in _core.stop_profile():
            where = paths.get(layer, f"({op})")
            self.kernels.append(Kernel(name, op, where, backward, begin, (end - begin) * 1e-9, flops, nbytes))
        self._names.clear()
        self._ended = True

    # --------------------------------------------------------------------------------------------------------- layers

    def _enter(self, module: _module.Module) -> Callable[[], None] | None:
        """Notes that a module is called; what comes back is called when it returns."""
        if threading.get_ident() != self._thread:
            return None
        path = self._path(module)
        number = self._layers.setdefault(path, len(self._layers) + 1)
        before = _core.set_call_layer(number)
        self._open.append((module, path))
        begin = time.perf_counter_ns()

        def leave() -> None:
            self._spans.append((path, begin, time.perf_counter_ns()))
            self._open.pop()
            _core.set_call_layer(before)

        return leave

    def _path(self, module: _module.Module) -> str:
        if not self._open:
            return ""
        parent, path = self._open[-1]
        names = self._names.get(id(parent))
        if names is None:
            names = {id(child): name for name, child in parent.named_modules()}
            self._names[id(parent)] = names
        name = names.get(id(module), type(module).__name__)
        return f"{path}.{name}" if path and name else path or name

    # -------------------------------------------------------------------------------------------------------- results

    def rows(self, limits: Mapping[str, float] | None = None) -> list[dict[str, Any]]:
        """The kernels by layer, phase and name, the longest first.

        Args:
            limits: of the machine, as `smelt.bench.limits` measures them; by default it does so now.

        Returns:
            ``layer``, ``phase``, ``kernel``, ``calls``, ``seconds``, ``gflops``, ``gbs``, ``time`` (share of
            all kernels' time) and ``limit`` (share of the limit).

        Example:
            >>> with smelt.profile() as p:
            ...     y = smelt.ones(8, 8) @ smelt.ones(8, 8)
            >>> sorted({row["phase"] for row in p.rows(limits={"fma_gflops": 1.0, "copy_gbs": 1.0})})
            ['forward']
        """
        if not self._ended:
            raise RuntimeError("profile: the block must have ended, nothing is known before")
        if limits is None:
            from .bench import limits as measure

            limits = measure(64)
        groups: dict[tuple[str, str, str], list[Kernel]] = {}
        for k in self.kernels:
            groups.setdefault((k.layer, "backward" if k.backward else "forward", k.name), []).append(k)
        rows = []
        all_seconds = max(sum(k.seconds for k in self.kernels), 1e-9)
        for (layer, phase, name), calls in groups.items():
            seconds = max(sum(k.seconds for k in calls), 1e-9)
            flops, nbytes = sum(k.flops for k in calls), sum(k.nbytes for k in calls)
            peak = limits["fma_gflops"]
            if name.startswith(("avx512bf16_", "amx_")):
                peak = limits.get("bf16_gflops", peak)
            least = max(1e-9 * flops / peak, 1e-9 * nbytes / limits["copy_gbs"])
            rows.append({
                "layer": layer, "phase": phase, "kernel": name, "calls": len(calls), "seconds": seconds,
                "gflops": 1e-9 * flops / seconds, "gbs": 1e-9 * nbytes / seconds,
                "time": seconds / all_seconds, "limit": least / seconds,
            })  # fmt: skip
        return sorted(rows, key=lambda row: -row["seconds"])

    def table(self, limits: Mapping[str, float] | None = None, rows: int = 30) -> str:
        """The rows as text: calls, time, rates, share of the limit.

        Args:
            limits: as for `rows`.
            rows: how many of the longest.

        Returns:
            The table; its last line says how much of the block was spent outside of kernels.

        Example:
            >>> with smelt.profile() as p:
            ...     y = smelt.ones(8, 8) @ smelt.ones(8, 8)
            >>> print(p.table({"fma_gflops": 1.0, "copy_gbs": 1.0}).splitlines()[0].split()[:4])
            ['layer', 'phase', 'kernel', 'calls']
        """
        found = self.rows(limits)
        within = sum(row["seconds"] for row in found)
        shown = found[:rows]
        layer = max([len("layer"), *(len(row["layer"]) for row in shown)]) + 2
        kernel = max([len("kernel"), *(len(row["kernel"]) for row in shown)]) + 2
        lines = [
            f"{'layer':{layer}}{'phase':10}{'kernel':{kernel}}{'calls':>7}{'ms':>10}{'time':>7}{'GFLOP/s':>9}{'GB/s':>7}{'limit':>7}"
        ]
        for row in shown:
            rates = f"{row['gflops']:>9.1f}{row['gbs']:>7.1f}" if row["gbs"] else f"{'':16}"
            share = f"{100 * row['limit']:>5.0f} %" if row["gbs"] else ""
            lines.append(
                f"{row['layer'] or '.':{layer}}{row['phase']:10}{row['kernel']:{kernel}}{row['calls']:>7}"
                f"{1e3 * row['seconds']:>10.3f}{100 * row['seconds'] / max(within, 1e-9):>5.1f} %{rates}{share}".rstrip()
            )
        if len(found) > len(shown):
            rest = sum(row["seconds"] for row in found[rows:])
            lines.append(f"{len(found) - len(shown)} more: {1e3 * rest:.3f} ms")
        outside = max(self.seconds - within, 0.0)
        lines.append(
            f"kernels {1e3 * within:.3f} ms of {1e3 * self.seconds:.3f} ms; "
            f"{100 * outside / max(self.seconds, 1e-9):.0f} % outside of kernels"
        )
        return "\n".join(lines)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a Chrome trace: open it at chrome://tracing or ui.perfetto.dev.

        Args:
            path: of the JSON file.

        Raises:
            OSError: the file cannot be written.

        Example:
            >>> import os, tempfile
            >>> with smelt.profile() as p:
            ...     y = smelt.ones(2) + 1
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     p.save(os.path.join(folder, "trace.json"))
        """
        origin = min([k.begin for k in self.kernels] + [begin for _, begin, _ in self._spans], default=0)
        events: list[dict[str, Any]] = [
            {"ph": "M", "pid": 1, "tid": tid, "name": "thread_name", "args": {"name": name}}
            for tid, name in ((1, "layers"), (2, "kernels"))
        ]
        for path_of, begin, end in self._spans:
            name = path_of or "model"
            events.append(_event(name, "layer", 1, begin - origin, end - begin, {}))
        for k in self.kernels:
            detail = {"layer": k.layer, "op": k.op, "flops": k.flops, "bytes": k.nbytes}
            kind = "backward" if k.backward else "forward"
            events.append(_event(k.name, kind, 2, k.begin - origin, int(k.seconds * 1e9), detail))
        with open(path, "w") as file:
            json.dump({"traceEvents": events, "displayTimeUnit": "ms"}, file)


def _event(name: str, kind: str, tid: int, begin: int, length: int, detail: dict[str, Any]) -> dict[str, Any]:
    """A complete event of the trace event format: microseconds."""
    return {
        "ph": "X", "pid": 1, "tid": tid, "name": name, "cat": kind, "ts": begin / 1e3, "dur": length / 1e3, "args": detail,
    }  # fmt: skip


def profile() -> Profile:
    """Profiles a ``with`` block: every kernel of this thread with its time, its work and its layer, forward and backward.

    Returns:
        A context manager that has `Profile.table`, `Profile.rows` and `Profile.save`.

    Raises:
        RuntimeError: when the block begins, if another profile or trace runs.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> with smelt.profile() as p:
        ...     model(smelt.ones(3, 4)).sum().backward()
        >>> sorted({k.layer for k in p.kernels if k.backward and k.name.endswith("gemm")})
        ['0', '2']
    """
    return Profile()
