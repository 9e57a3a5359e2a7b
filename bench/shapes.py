"""Shapes of real networks and of a seed against PyTorch: the geometric mean and the worst of each set.

python bench/shapes.py                            # matrix products, the named shapes
python bench/shapes.py conv --random 40 --seed 1  # convolutions from a seed
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from smelt.bench import suites  # noqa: E402
from smelt.bench.measure import Comparison, compare  # noqa: E402


def ratios(
    cases: Iterable[suites.Case],
    measure: Callable[[Callable[[], Any], Callable[[], Any]], Comparison] = compare,
    rival: str = "torch",
) -> dict[str, float]:
    """smelt against a peer, by case."""
    found = {}
    for case in cases:
        case.check()
        c = measure(case.contenders["smelt"].run, case.contenders[rival].run)
        found[case.name] = c.ratio
        print(f"{c.ratio:6.2f}x ({c.low:.2f} to {c.high:.2f})  {case.name}", file=sys.stderr)
    return found


FREAK = {"conv": 5.0}  # beyond it a kernel of the peer's is at fault: named apart, no part of the mean


def mean_and_worst(found: dict[str, float], freak: float = np.inf) -> tuple[float, float]:
    """The geometric mean of what is no freak, and the worst."""
    usual = [ratio for ratio in found.values() if ratio <= freak]
    return float(np.exp(np.log(usual).mean())), min(found.values())


def summary(found: dict[str, float], freak: float = np.inf) -> str:
    mean, worst = mean_and_worst(found, freak)
    freaks = [f"{name} {ratio:.0f}x" for name, ratio in found.items() if ratio > freak]
    apart = f"; apart: {', '.join(freaks)}" if freaks else ""
    return f"geometric mean {mean:.2f}x, worst {worst:.2f}x ({min(found, key=lambda name: found[name])}){apart}"


def cases(
    suite: str, random: int, seed: int, dtype: str, given: Sequence[str] = (), rival: str = "torch"
) -> Iterator[suites.Case]:
    chosen = suites.SUITES[suite]
    modules, rng = suites.peers([rival]), np.random.default_rng(seed)
    for shape in chosen.shapes(given, random, seed):  # one at a time: their data would fill the memory
        yield chosen.build(shape, dtype, [], modules, rng, "cpu")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", nargs="?", default="gemm", choices=["gemm", "conv", "attention"])
    parser.add_argument("--random", type=int, default=0, help="how many shapes to draw instead of the named ones")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--dtype", default="float32", help="float32 or bfloat16")
    args = parser.parse_args()
    found = ratios(cases(args.suite, args.random, args.seed, args.dtype))
    print(summary(found, FREAK.get(args.suite, np.inf)))
    print(json.dumps(found))
