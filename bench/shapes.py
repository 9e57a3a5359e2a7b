"""Matrix products of real networks and of a seed against PyTorch: the geometric mean and the worst of each set.

python bench/shapes.py                       # the named shapes
python bench/shapes.py --random 40 --seed 1  # shapes from a seed
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from smelt.bench import suites  # noqa: E402
from smelt.bench.measure import Comparison, compare  # noqa: E402


def ratios(
    cases: list[suites.Case], measure: Callable[[Callable[[], Any], Callable[[], Any]], Comparison] = compare
) -> dict[str, float]:
    """smelt against PyTorch, by case."""
    found = {}
    for case in cases:
        case.check()
        c = measure(case.contenders["smelt"].run, case.contenders["torch"].run)
        found[case.name] = c.ratio
        print(f"{c.ratio:6.2f}x ({c.low:.2f} to {c.high:.2f})  {case.name}", file=sys.stderr)
    return found


def summary(found: dict[str, float]) -> str:
    values = np.array(list(found.values()))
    worst = min(found, key=lambda name: found[name])
    return f"geometric mean {np.exp(np.log(values).mean()):.2f}x, worst {values.min():.2f}x ({worst})"


def cases(random: int, seed: int, dtype: str) -> list[suites.Case]:
    suite = suites.SUITES["gemm"]
    modules, rng = suites.peers(["torch"]), np.random.default_rng(seed)
    return [suite.build(shape, dtype, [], modules, rng, "cpu") for shape in suite.shapes([], random, seed)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=0, help="how many shapes to draw instead of the named ones")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--dtype", default="float32", help="float32 or bfloat16")
    args = parser.parse_args()
    found = ratios(cases(args.random, args.seed, args.dtype))
    print(summary(found))
    print(json.dumps(found))
