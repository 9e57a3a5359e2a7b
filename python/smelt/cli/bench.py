"""smelt bench"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .main import UsageError

_LIMITS = {
    "fma_gflops": "float32 GFLOP/s",
    "bf16_gflops": "bfloat16 GFLOP/s",
    "read_gbs": "GB/s read",
    "write_gbs": "written",
    "copy_gbs": "copied",
    "update_gbs": "updated in place",
}


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Times kernels and training steps against their peers and the machine's limits: ``smelt bench``.

    Args:
        args: the parsed command line.

    Returns:
        What ``--json`` prints, and the exit code: 1 after a regression against ``--compare``, 2 where there is nothing to
        compare.
    """
    from .. import bench, kernels
    from ..bench import report, suites
    from ..train.inference import resolve_device

    if args.suite not in (None, *suites.SUITES):
        raise UsageError(f"SUITE must be one of {', '.join(suites.SUITES)}, got '{args.suite}'")
    if args.compare:
        try:
            earlier = report.read(args.compare)
        except OSError:
            raise UsageError(f"--compare must be a report of --json, there is no file {args.compare}") from None
        except ValueError as error:
            raise UsageError(str(error)) from None
    for option, path in (("--csv", args.csv), ("--roofline", args.roofline)):
        if path and not Path(path).absolute().parent.is_dir():
            raise UsageError(f"{option} must name a file in a folder that exists, got {path}")
    if args.roofline and args.suite == "step":
        raise UsageError("--roofline is for single kernels; step runs many")
    device = resolve_device(args.device)
    if args.list:
        listed: dict[str, Any] = {
            name: {
                "text": s.text,
                "shape": s.form,
                "dtypes": list(s.dtypes),
                "impls": {slot: kernels.impls(slot, device) for slot in s.slots},
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
            against=args.against, rounds=args.rounds, device=device, progress=say,
        )  # fmt: skip
    except (ValueError, ImportError) as error:
        raise UsageError(str(error)) from None
    out = sys.stderr if args.json else sys.stdout
    print(report.table(result["rows"]), file=out)
    numbers = ", ".join(f"{text} {result['limits'][key]:.0f}" for key, text in _LIMITS.items())
    if result.get("unproven"):
        print(f"\nunproven on this GPU ({result['machine']['device']}): {', '.join(result['unproven'])}", file=out)
    print(f"\nlimits of this minute, threads {result['machine']['threads']}: {numbers}", file=out)
    if "numpy" in args.against:
        print("numpy used threads of its own", file=out)
    if result["load"] > 0.1:
        print(f"other processes used up to {100 * result['load']:.0f} % of the CPU: trust no ratio", file=out)
    if args.csv:
        report.write_csv(args.csv, result["rows"])
    if args.roofline:
        report.roofline(args.roofline, result)
    code = 0
    if args.compare:
        try:
            lines, slower = report.regressions(result, earlier)
        except ValueError as error:
            print(error, file=sys.stderr)
            return result, 2
        print("\nspeed against then, relative to the limits of then and now; above 1x is faster", file=out)
        print("\n".join(lines), file=out)
        print(f"{len(slower)} of {len(lines)} slower than in {args.compare}", file=out)
        code = 1 if slower else 0
    return result, code
