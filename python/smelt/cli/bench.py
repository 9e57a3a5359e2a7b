"""smelt bench"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .main import UsageError


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Times kernels and training steps against their peers and the machine's limits: ``smelt bench``.

    Args:
        args: the parsed command line.

    Returns:
        What ``--json`` prints, and the exit code: 1 after a regression against ``--compare``.
    """
    from .. import bench, kernels
    from ..bench import report, suites

    if args.suite not in (None, *suites.SUITES):
        raise UsageError(f"SUITE must be one of {', '.join(suites.SUITES)}, got '{args.suite}'")
    if args.compare and not Path(args.compare).is_file():
        raise UsageError(f"--compare must be a report of --json, there is no file {args.compare}")
    if args.list:
        listed: dict[str, Any] = {
            name: {
                "text": s.text,
                "shape": s.form,
                "dtypes": list(s.dtypes),
                "impls": {slot: kernels.impls(slot) for slot in s.slots},
                "cases": [str(case) for case in s.shapes([], 0, 0)],
            }
            for name, s in suites.SUITES.items()
            if args.suite in (None, name)
        }
        if not args.json:
            for name, s in listed.items():
                print(f"{name}: {s['text']} (--shape {s['shape']}; {', '.join(s['dtypes'])})")
                for slot, impls in s["impls"].items():
                    print(f"  --impl for {slot}: {', '.join(impls)}")
                print("".join(f"  {case}\n" for case in s["cases"]), end="")
        return listed, 0
    if args.suite is None:
        raise UsageError(f"a suite is needed: {', '.join(suites.SUITES)}; --list shows their cases")

    say = None if args.quiet else lambda text: print(text, file=sys.stderr)
    try:
        result = bench.run(
            args.suite, args.shape, random=args.random, seed=args.seed, dtype=args.dtype, impls=args.impl,
            against=args.against, rounds=args.rounds, progress=say,
        )  # fmt: skip
    except (ValueError, ImportError) as error:
        raise UsageError(str(error)) from None
    out = sys.stderr if args.json else sys.stdout
    print(report.table(result["rows"]), file=out)
    numbers = ", ".join(f"{key.replace('_', ' ')} {value:.0f}" for key, value in result["limits"].items())
    load = f"; other processes used {100 * result['load']:.0f} % of the CPU" if result["load"] > 0.1 else ""
    print(f"\nlimits of this minute, {result['machine']['threads']} threads: {numbers}{load}", file=out)
    if args.csv:
        report.write_csv(args.csv, result["rows"])
    if args.roofline:
        report.roofline(args.roofline, result)
    code = 0
    if args.compare:
        lines, slower = report.regressions(result, args.compare)
        print("\n" + "\n".join(lines), file=out)
        print(f"{len(slower)} of {len(lines)} slower than in {args.compare}", file=out)
        code = 1 if slower else 0
    return result, code
