"""Rows of `make claims` about GPUs: how wheels are built, what the emulator takes, and what bench/gpu.py measured last."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import smelt

ROOT = Path(__file__).resolve().parent.parent
Rows = dict[str, dict[str, Any]]
Judge = Callable[[Rows], tuple[bool, str]]


def wheel() -> tuple[bool, str] | str:
    """Megabytes and minutes of a wheel with all targets, from nothing; a sentence where it cannot be built."""
    if not shutil.which("nvcc"):
        return "needs nvcc"
    with tempfile.TemporaryDirectory() as folder:
        define = "--config-settings=cmake.define.SMELT_CUDA=ON"
        build = f"--config-settings=build-dir={folder}/build"
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", define, build, "-w", folder, str(ROOT)]
        begin = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "CCACHE_DISABLE": "1"})
        minutes = (time.perf_counter() - begin) / 60
        if done.returncode:
            return f"the wheel could not be built: {done.stderr.strip().splitlines()[-1]}"
        size = next(Path(folder).glob("*.whl")).stat().st_size / 1e6
    return size <= 30 and minutes < 8, f"{size:.1f} MB in {minutes:.1f} min on {os.cpu_count()} cores"


def emulator() -> tuple[bool, str] | str:
    """Minutes that values and gradients of all cases take on the emulator."""
    if why := smelt._core.why_unavailable("emu"):
        return f"needs a build with -DSMELT_EMU=ON: {why}"
    begin = time.perf_counter()
    for words in ("test_values and emu", "test_gradient"):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_cases.py", "-k", words]
        environment = {**os.environ, "SMELT_MAX_ISA": "portable"}
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
        if done.returncode:
            return False, f"tests fail: {done.stdout.strip().splitlines()[-1]}"
    minutes = (time.perf_counter() - begin) / 60
    return minutes < 10, f"{minutes:.1f} min"


def measured() -> tuple[str, Rows] | None:
    """The GPU's name and the rows of the newest result of bench/gpu.py."""
    files = sorted((ROOT / "bench" / "results").glob("*/gpu.json"))
    if not files:
        return None
    found = json.loads(files[-1].read_text())
    return found["gpu"], found["rows"]


def _least(rows: Rows, words: tuple[str, ...], key: str) -> float:
    values = [row.get(key, 0.0) for name, row in rows.items() if all(word in name for word in words)]
    return min(values) if values else 0.0


def _shares(kind: str, least: float) -> Judge:
    def judge(rows: Rows) -> tuple[bool, str]:
        share = _least(rows, (kind,), "share_of_copy")
        return share >= least, f"at least {100 * share:.0f} %"

    return judge


def _adamw(rows: Rows) -> tuple[bool, str]:
    share, ratio = _least(rows, ("adamw",), "share_of_copy"), _least(rows, ("adamw",), "ratio")
    return share >= 0.9 and ratio >= 1, f"at least {100 * share:.0f} %, {ratio:.2f}x"


def _gemm(rows: Rows) -> tuple[bool, str]:
    ratio = _least(rows, ("gemm 8192x8192x8192", "bfloat16"), "ratio")
    return ratio >= 0.55, f"{100 * ratio:.0f} %"


def _steps(key: str, least: float, networks: tuple[str, ...]) -> Judge:
    def judge(rows: Rows) -> tuple[bool, str]:
        ratios = {name: _least(rows, (f"step {name} ",), key) for name in networks}
        return min(ratios.values()) >= least, ", ".join(f"{name} {ratio:.2f}x" for name, ratio in ratios.items())

    return judge


def _cpu_time(rows: Rows) -> tuple[bool, str]:
    times = [row.get("ours_cpu_us", 1e9) for name, row in rows.items() if name.startswith("step ")]
    longest = max(times, default=1e9)
    return longest <= 30, f"at most {longest:.0f} us"


ON_GPU: tuple[tuple[str, str, Judge], ...] = (
    ("GPU: AdamW", ">= 90 % of the copy bandwidth, >= 1.0x PyTorch's fused", _adamw),
    ("GPU: layer norm", ">= 85 % of the copy bandwidth", _shares("layer norm", 0.85)),
    ("GPU: softmax", ">= 85 % of the copy bandwidth", _shares("softmax", 0.85)),
    ("GPU: cross entropy", ">= 85 % of the copy bandwidth", _shares("cross entropy", 0.85)),
    ("GPU: gemm bf16 8192^3", ">= 55 % of cuBLAS", _gemm),
    ("GPU: steps", ">= 1.5x PyTorch eager", _steps("ratio", 1.5, ("mlp", "cnn", "resnet18", "gpt"))),
    ("GPU: steps of MLP and CNN", ">= 1.0x torch.compile", _steps("ratio_to_compiled", 1.0, ("mlp", "cnn"))),
    ("GPU: CPU time of a step", "<= 30 us", _cpu_time),
)
HERE = (
    ("wheel with all GPU targets", "<= 30 MB, < 8 min from nothing on 2 cores", wheel),
    ("all cases on the emulator", "< 10 min on 2 cores", emulator),
)
