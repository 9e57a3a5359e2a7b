"""Runs the cases of a suite: check first, then limits and times of the same minute."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from .. import _core, kernels, runtime
from .measure import limits, race, stream_limits, wait_until_quiet
from .suites import SUITES, Case, peers

__all__ = ["run", "unproven"]


def _moving(case: Case, ceiling: dict[str, float], streams: dict[str, float]) -> float:
    """The least time of a case's bytes: what is read for each byte that is written is copied."""
    if not streams:
        return case.nbytes / (1e9 * ceiling[case.stream])
    copied, only_read = 2 * case.written, case.read - case.written
    return 1e-9 * (copied / streams["copy_gbs"] + only_read / streams["read_gbs"])


def _row(
    case: Case, name: str, times: Any, ours: str, ceiling: dict[str, float], streams: dict[str, float]
) -> dict[str, Any]:
    median = times.median(name)
    low, high = times.interval(name)
    # The least time by the limits, for what is bound by arithmetic and for what is bound by memory. A vector holds half as
    # many numbers of float64.
    unit = "bf16_gflops" if case.dtype == "bfloat16" else "fma_gflops"
    peak = ceiling[unit] / (2 if case.dtype == "float64" else 1)
    computing, moving = case.flops / (1e9 * peak), _moving(case, ceiling, streams)
    least = max(computing, moving)
    row = {
        "case": case.name, "dtype": case.dtype, "contender": name, "median_s": median, "low_s": low, "high_s": high,
        "gflops": 1e-9 * case.flops / median, "gbs": 1e-9 * case.nbytes / median, "share": least / median,
        "limited_by": case.stream if moving > computing else unit,
        "ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0, "verdict": "",
    }  # fmt: skip
    if name != ours:
        c = times.compare(ours, name)
        row.update(ratio=c.ratio, ratio_low=c.low, ratio_high=c.high, verdict=c.verdict)
    return row


def run(
    suite: str,
    shapes: Sequence[str] = (),
    *,
    random: int = 0,
    seed: int = 0,
    dtype: str = "float32",
    impls: Sequence[str] = (),
    against: Sequence[str] = (),
    rounds: int = 31,
    device: str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measures a suite.

    Args:
        suite: of `SUITES`.
        shapes: as ``--shape`` has them; none for the suite's own.
        random: how many shapes to draw from `seed` instead.
        seed: of shapes and data.
        dtype: of the data.
        impls: candidates to race, none for the preferred one.
        against: peers.
        rounds: measurements of each contender.
        device: where smelt and PyTorch work.
        progress: gets a line when a case begins.

    Returns:
        ``machine``, ``limits``, ``load`` (largest share of the CPU that other processes used) and ``rows``; on a GPU also
        ``unproven``, those of smelt's kernels that ran and that no test has ever run on a GPU of this name.

    Raises:
        RuntimeError: the device is not there.
        ValueError: an unknown suite, dtype, peer or candidate, or a malformed shape.
        ImportError: a peer that is not installed.
        AssertionError: a contender computed something else.

    Example:
        >>> result = smelt.bench.run("gemm", ["32x32x32"], rounds=5)
        >>> result["rows"][0]["contender"]
        'smelt'
    """
    import numpy as np

    if suite not in SUITES:
        raise ValueError(f"bench: suite must be one of {', '.join(SUITES)}, got {suite!r}")
    chosen = SUITES[suite]
    if dtype not in chosen.dtypes:
        raise ValueError(f"--dtype must be {' or '.join(chosen.dtypes)} for {suite}, got {dtype!r}")
    for impl in impls:
        if not chosen.slots:
            raise ValueError(f"--impl is for single kernels; {suite} runs many, got {impl!r}")
        for slot in chosen.slots:
            if not any(_core.fits_impl(name, impl) for name in _core.impls(slot, device)):
                names = ", ".join(_core.impls(slot, device))
                raise ValueError(
                    f"--impl must begin or end the name of a kernel of slot {slot} ({names}), got {impl!r}"
                )
    if random and (not chosen.random or shapes):
        able = " and ".join(name for name, s in SUITES.items() if s.random)
        raise ValueError(
            f"--random draws shapes of {able} instead of --shape, got it with {', '.join(shapes) or suite}"
        )
    device = _core.parse_device(device)
    modules = peers(against)
    if "torch" in modules and device.startswith("emu"):
        raise ValueError(f"--against torch: PyTorch has no device {device!r}")
    if "jax" in modules and device != "cpu":
        raise ValueError(f"--against jax: works on the CPU alone here, got --device {device}")
    finish = _waiter(device, modules)
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    used: set[str] = set()
    load = 0.0
    planned = chosen.shapes(shapes, random, seed)
    if progress:
        progress("waiting until the machine is quiet, 10 s at most")
    wait_until_quiet(timeout=10)
    on_cpu = device == "cpu"
    ceiling = limits() if on_cpu else limits(1 if device.startswith("emu") else 1024, device)
    for shape in planned:
        case = chosen.build(shape, dtype, impls, modules, rng, device)
        if progress:
            progress(case.name)
        for peer in modules:
            if not any(name.split()[0] == peer for name in case.contenders):
                raise ValueError(f"--against {peer}: {case.name} in {dtype} has no counterpart there")
        with kernels.trace() as traced:
            case.check()
        used.update(traced)
        # In the same minute, and not measured where tensors have no bytes to speak of.
        streams = stream_limits(case.resident) if on_cpu and case.resident >= 4096 else {}
        times = race({name: c.run for name, c in case.contenders.items()}, rounds, finish=finish)
        load = max(load, times.load)
        ours = next(iter(case.contenders))
        rows += [_row(case, name, times, ours, ceiling, streams) for name in case.contenders]
    info = runtime.info()
    machine = {key: info[key] for key in ("smelt", "python", "numpy", "cpu", "isa", "threads")}
    machine["peers"] = {name: module.__version__ for name, module in modules.items()}
    result = {"suite": suite, "machine": machine, "limits": ceiling, "load": load, "rounds": rounds, "rows": rows}
    if not on_cpu:
        machine["device"] = _core.device_info(device)["name"]
        there = {name for slot in kernels.slots() for name in _core.impls(slot, device)}
        result["unproven"] = unproven(machine["device"], used & there)
    return result


def _waiter(device: str, modules: dict[str, Any]) -> Callable[[], None]:
    """Waits for what smelt and PyTorch have given to a GPU."""
    if device == "cpu":
        return lambda: None
    torch = modules.get("torch")

    def finish() -> None:
        _core.synchronize(device)
        if torch is not None:
            torch.cuda.synchronize(device)

    return finish


def unproven(gpu: str, names: Iterable[str]) -> list[str]:
    """Those of the kernels that the tests have not run on a GPU of this name.

    Args:
        gpu: as the driver names it.
        names: of kernels.

    Returns:
        Names in order. Nothing is unproven on the emulator, which stands for no GPU.

    Example:
        >>> smelt.bench.unproven("some GPU", ["sm80_gemm"])
        ['sm80_gemm']
    """
    proven = json.loads((Path(__file__).parent / "proven.json").read_text())
    return [] if gpu == "emulator" else sorted(set(names) - set(proven.get(gpu, ())))
