"""The steps of docs/gemm.md on this machine: compiles bench/gemm_ladder.cpp, checks every step against NumPy, times them.

    python bench/gemm_ladder.py
    python bench/gemm_ladder.py --check     # small, and no time is taken

Needs a C++ compiler and a CPU with AVX2. Prints a table and writes gemm_ladder.json beside the claims.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

import smelt  # noqa: E402
from bench.claims import commit, results_path  # noqa: E402
from smelt import bench, kernels  # noqa: E402

SIZE = 1056  # a multiple of 96, and no power of two
STEPS = ("dots", "rows", "tiles", "packed", "blocked", "threads")


def compile_steps() -> dict[str, str | None]:
    """Candidates of the steps, and the library's."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if not compiler:
        sys.exit("gemm_ladder: needs a C++ compiler")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "ladder.so"
        source = ROOT / "bench" / "gemm_ladder.cpp"
        flags = ["-std=c++20", "-O3", "-mavx2", "-mfma", "-shared", "-fPIC", f"-I{kernels.include_dir()}"]
        subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True)
        for step in STEPS:
            kernels.register("gemm", f"ladder_{step}", library, step, workspace="room", supports="fits")
    return {**{step: f"ladder_{step}" for step in STEPS}, "smelt": None}  # the preferred one


def checked_runs(n: int) -> dict[str, Callable[[], Any]]:
    """Each step on one product of n x n matrices, after its result was found right."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(n, n)).astype(np.float32) for _ in range(2))
    exact, size = a.astype(float) @ b.astype(float), np.abs(a).astype(float) @ np.abs(b).astype(float)
    out = np.empty((n, n), np.float32)
    runs = {}
    for name, impl in compile_steps().items():
        runs[name] = lambda impl=impl: kernels.gemm(a, b, out=out, impl=impl)
        out[:] = np.nan
        runs[name]()
        assert np.all(np.abs(out - exact) <= n * 2.0**-24 * size), name
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="only compile the steps and check them, on a small product"
    )
    args = parser.parse_args()
    if "avx2_gemm" not in kernels.impls("gemm"):
        sys.exit("gemm_ladder: needs a CPU with AVX2")
    runs = checked_runs(288 if args.check else SIZE)
    if args.check:
        return
    if not bench.wait_until_quiet(0.1, 120):
        print("other processes use more than 10 % of the CPU: the figures are those of a busy machine")
    race = bench.race(runs, rounds=9)
    rates = {name: 2e-9 * SIZE**3 / race.median(name) for name in runs}
    limit = bench.limits(megabytes=1)["fma_gflops"]
    before = None
    for name, rate in rates.items():
        gain = "" if before is None else f"{rate / before:5.1f}x"
        print(f"{name:10}{rate:8.1f} GFLOP/s {gain:>8}{100 * rate / limit:6.0f} % of the limit")
        before = rate
    path = results_path().with_name("gemm_ladder.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = {"fma_gflops": limit, "isa": smelt._core.max_isa(), "threads": smelt.get_num_threads()}
    found = {"size": SIZE, "gflops": rates, **machine, "commit": commit()}
    path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
