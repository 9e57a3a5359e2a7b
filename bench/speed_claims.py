"""The rows of `bench/claims.py` that are measured against PyTorch, and shares of what the machine can do."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import smelt
from bench import shapes
from bench.claim_rows import NotRunError, Row, claim, measured_ratio, peer, quiet, ratio_row, result
from smelt import bench, nn
from smelt.bench import models

ROOT = Path(__file__).resolve().parent.parent
PEERS = {"torch": "PyTorch", "jax": "JAX"}


def gemm_row(m: int, n: int, k: int, ta: bool, tb: bool, target: float) -> Row:
    torch = peer()
    rng = np.random.default_rng(0)
    a = rng.normal(size=(k, m) if ta else (m, k)).astype(np.float32)
    b = rng.normal(size=(n, k) if tb else (k, n)).astype(np.float32)
    x, y = smelt.from_numpy(a), smelt.from_numpy(b)
    u, v = torch.from_numpy(a), torch.from_numpy(b)
    u, v = (u.T if ta else u), (v.T if tb else v)
    exact = (a.T if ta else a).astype(np.float64) @ (b.T if tb else b).astype(np.float64)
    error = np.abs(smelt.matmul(x, y, ta, tb).numpy() - exact).max()
    rival = np.abs((u @ v).numpy() - exact).max()
    assert error <= 2 * rival + 1e-12, f"error {error} against {rival} of the peer"

    best: tuple[float, int] = (float("inf"), 1)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for _ in range(3):
            begin = time.perf_counter()
            torch.matmul(u, v)
            best = min(best, (time.perf_counter() - begin, threads))
    torch.set_num_threads(best[1])
    c = measured_ratio(lambda: smelt.matmul(x, y, ta, tb), lambda: torch.matmul(u, v))
    row = ratio_row(c, target, f"{best[1]} threads")
    return {**row, "gflops": 2e-9 * m * n * k / c.ours}


@claim("gemm fp32 1024", ">= 0.95x of PyTorch")
def gemm_1024() -> Row:
    return gemm_row(1024, 1024, 1024, False, False, 0.95)


@claim("gemm fp32 2048", ">= 0.95x of PyTorch")
def gemm_2048() -> Row:
    return gemm_row(2048, 2048, 2048, False, False, 0.95)


def shape_set(
    suite: str, random: int, dtype: str, mean: float, worst: float, given: tuple[str, ...] = (), pairs: int = 15,
    rival: str = "torch",
) -> Row:  # fmt: skip
    try:
        version = importlib.metadata.version(rival)
    except importlib.metadata.PackageNotFoundError:
        raise NotRunError(f"{PEERS[rival]} is not installed") from None
    if dtype != "float32" and smelt._core.max_isa() not in ("avx512bf16", "amx"):
        pairs = 5  # the peer takes seconds
    cases = shapes.cases(suite, random, 1, dtype, given, rival)
    found = shapes.ratios(cases, lambda a, b: measured_ratio(a, b, pairs=pairs), rival)
    freak = shapes.FREAK.get(suite, np.inf)
    got = shapes.mean_and_worst(found, freak)
    passed = got[0] >= mean and got[1] >= worst
    return result(passed, shapes.summary(found, freak), shapes=found, peer=f"{PEERS[rival]} {version}")


def stream_shares(given: tuple[str, ...], rounds: int, least: float) -> Row:
    quiet()
    done = bench.run("norm", given, rounds=rounds)
    shares = {row["case"]: float(row["share"]) for row in done["rows"]}
    text = ", ".join(f"{case} {100 * share:.0f} %" for case, share in sorted(shares.items(), key=lambda item: item[1]))
    return result(min(shares.values()) >= least, text, shapes=shares, load=done["load"])


def on_avx2(call: str) -> Any:
    """A call of this module in a process that both libraries start with AVX2 alone."""
    peer()
    code = f"import json; from bench import speed_claims; print(json.dumps(speed_claims.{call}))"
    level = {"SMELT_MAX_ISA": "avx2", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    environment = {**os.environ, **level, "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1]
        raise NotRunError(why) if "NotRunError" in why else RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def shape_set_avx2(suite: str, mean: float) -> Row:
    return dict(on_avx2(f"shape_set({suite!r}, 0, 'float32', {mean}, 0.0)"))


def steps_avx2(networks: tuple[str, ...], mean: float) -> Row:
    rows = {name: dict(on_avx2(f"step_row({name!r}, {mean})")) for name in networks}
    ratios = {name: float(row["ratio"]) for name, row in rows.items()}
    found = float(np.exp(np.mean(np.log(list(ratios.values())))))
    text = f"geometric mean {found:.2f}x: " + ", ".join(f"{name} {ratio:.2f}x" for name, ratio in ratios.items())
    return result(found >= mean, text, rows=rows, peer=f"PyTorch {peer().__version__}")


NORMS = ("layer_norm", "softmax", "cross_entropy", "batch_norm", "gelu")
for suite, dtype, mean, worst in (
    ("gemm", "float32", 1.1, 0.8),
    ("gemm", "bfloat16", 1.5, 0.9),
    ("conv", "float32", 1.2, 0.8),
    ("conv", "bfloat16", 1.8, 0.9),
    ("attention", "float32", 1.4, 0.0),
    ("attention", "bfloat16", 1.4, 0.0),
):
    short = {"float32": "fp32", "bfloat16": "bf16"}[dtype]
    least = f"geometric mean >= {mean}x of PyTorch" + (f", worst >= {worst}x" if worst else "")
    for count, which in ((0, "named shapes"), (40, "40 random shapes, seed 1")):
        claim(f"{suite} {short} {which}", least)(functools.partial(shape_set, suite, count, dtype, mean, worst))
claim("norms, softmax, cross entropy and GELU, fp32", "each >= 1.3x of PyTorch")(
    functools.partial(shape_set, "norm", 0, "float32", 1.3, 1.3, NORMS)
)
claim("norms, softmax, cross entropy and GELU, fp32, 1 GB", "each >= 1.3x of PyTorch")(
    functools.partial(shape_set, "norm", 0, "float32", 1.3, 1.3, tuple(f"{op}:large" for op in NORMS), 5)
)
for suite, given, least in (("conv", (), 1.2), ("norm", NORMS, 1.3)):
    claim(f"{suite} fp32 named shapes, against JAX", f"geometric mean >= {least}x of JAX")(
        functools.partial(shape_set, suite, 0, "float32", least, 0.0, given, 7, "jax")
    )
for size in ("", ":large"):
    claim(
        f"norms, softmax, cross entropy and GELU, fp32{', 1 GB' if size else ''}, share of the stream",
        ">= 75 % of a probe with the same working set, each",
    )(functools.partial(stream_shares, tuple(op + size for op in NORMS), 5 if size else 15, 0.75))
for suite, mean in (("gemm", 0.95), ("conv", 1.0)):
    claim(f"{suite} fp32 named shapes, both on AVX2 alone", f"geometric mean >= {mean}x of PyTorch")(
        functools.partial(shape_set_avx2, suite, mean)
    )


def share_of(limit: str, dtype: str, least: float) -> Row:
    quiet()
    a, b = (smelt.randn(2048, 2048).to(dtype) for _ in range(2))
    shares = []
    for _ in range(9):  # the limit anew each time
        begin = time.perf_counter()
        smelt.matmul(a, b)
        rate = 2e-9 * 2048**3 / (time.perf_counter() - begin)
        shares.append(rate / bench.limits(megabytes=1)[limit])
    share = float(np.median(shares))
    return result(share >= least, f"{100 * share:.0f} % ({100 * min(shares):.0f} to {100 * max(shares):.0f})", n=9)


@claim("gemm fp32 2048, share of the FMA limit", ">= 88 %")
def gemm_share() -> Row:
    return share_of("fma_gflops", "float32", 0.88)


@claim("gemm bf16 2048, share of the limit of AMX on random data", ">= 65 %")
def gemm_share_amx() -> Row:
    if smelt._core.max_isa() != "amx":
        raise NotRunError("this CPU has no AMX")
    return share_of("bf16_gflops", "bfloat16", 0.65)


def must_agree(ours: float, theirs: float, rounding: float, label: str) -> None:
    assert abs(ours - theirs) <= rounding * abs(ours), f"first losses must be equal, {ours} and {theirs} ({label})"


def step_row(name: str, target: float, precision: str = "float32") -> Row:
    peer()
    if precision != "float32":
        exact, model = models.smelt_step(name)
        label, step = next(iter(models.torch_steps(name, model)))
        must_agree(exact(), step(), 1e-5, f"float32, {label}")  # what halves are too coarse to tell
    ours, model = models.smelt_step(name, precision)
    candidates = list(models.torch_steps(name, model, precision))  # copies the weights before our first step
    if "ATEN_CPU_CAPABILITY" in os.environ:
        # What PyTorch 2.13 compiles under it is at odds with its own eager code: other losses, indices out of bounds.
        candidates = [(label, step) for label, step in candidates if "compiled" not in label]
    # Each layer rounds its result once, independently: errors of halves grow with the root of the depth, in both libraries.
    depth = sum(p.ndim > 1 for p in model.parameters())
    rounding = 1e-5 if precision == "float32" else 2.0**-8 * np.sqrt(depth)
    first = ours()
    times: list[tuple[float, str, models.Step]] = []
    for label, step in candidates:
        must_agree(first, step(), rounding, label)
        begin = time.perf_counter()
        step()
        if (seconds := time.perf_counter() - begin) < 1:  # without bfloat16 instructions the peer's can take a minute
            for _ in range(2):
                step()
            begin = time.perf_counter()
            for _ in range(5):
                step()
            seconds = (time.perf_counter() - begin) / 5
        times.append((seconds, label, step))
    seconds, label, best = min(times, key=lambda t: t[0])
    return ratio_row(measured_ratio(ours, best, pairs=21 if seconds < 1 else 5), target, label)


for network, what, fp32, bf16 in (
    ("mlp", "mlp", 1.5, 2.3),
    ("block", "transformer block without attention,", 1.2, 1.8),
    ("cnn", "cnn", 2.2, 4.5),
    ("resnet18", "resnet-18", 1.4, 2.4),
    ("resnet50", "resnet-50", 1.3, 2.0),
    ("gpt", "gpt", 1.35, 2.2),
):
    claim(f"{what} step fp32", f">= {fp32}x of PyTorch")(functools.partial(step_row, network, fp32))
    claim(f"{what} step bf16", f">= {bf16}x of PyTorch")(functools.partial(step_row, network, bf16, "bf16"))


claim("steps fp32, both on AVX2 alone", "geometric mean >= 1.0x of PyTorch")(
    functools.partial(steps_avx2, ("cnn", "resnet18", "gpt"), 1.0)
)


@claim("linear(8, 8) forward and backward, 1 thread", ">= 2.0x of PyTorch eager; aim 15 us")
def small_linear() -> Row:
    torch = peer()
    threads = smelt.get_num_threads()
    smelt.set_num_threads(1)
    torch.set_num_threads(1)
    layer, x = nn.Linear(8, 8), smelt.randn(4, 8)
    twin, u = torch.nn.Linear(8, 8), torch.from_numpy(x.numpy().copy())
    try:
        c = measured_ratio(lambda: layer(x).sum().backward(), lambda: twin(u).sum().backward())
    finally:
        smelt.set_num_threads(threads)
    return {**ratio_row(c, 2.0, "1 thread, eager"), "ours_us": c.ours * 1e6}
