"""Tables, files and pictures of what was measured."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["regressions", "roofline", "table", "write_csv"]

_COLUMNS = ("case", "dtype", "contender", "median_s", "low_s", "high_s", "gflops", "gbs", "share", "ratio", "verdict")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as text, a line each, grouped by case.

    Args:
        rows: as ``smelt bench --json`` gives them.

    Returns:
        The table.

    Example:
        >>> row = {"case": "gemm", "dtype": "float32", "contender": "smelt", "median_s": 1e-3, "low_s": 9e-4,
        ...        "high_s": 2e-3, "gflops": 2.0, "gbs": 1.0, "share": 0.5, "ratio": 1.0, "verdict": ""}
        >>> print(smelt.bench.report.table([row]).splitlines()[-1].split()[:2])
        ['smelt', '1.000']
    """
    width = max((len(str(r["contender"])) for r in rows), default=0) + 2
    lines, last = [], None
    header = f"{'':{width}}{'ms':>10}{'spread':>19}{'GFLOP/s':>9}{'GB/s':>8}{'limit':>7}   smelt against it"
    for r in rows:
        case = f"{r['case']} {r['dtype']}"
        if case != last:
            lines += ["", case, header]
            last = case
        spread = f"{1e3 * r['low_s']:.3f} to {1e3 * r['high_s']:.3f}"
        rate = f"{r['gflops']:.1f}" if r["gflops"] else ""
        moved = f"{r['gbs']:.1f}" if r["gbs"] else ""
        share = f"{100 * r['share']:.0f} %" if r["share"] else ""
        against = f"{r['ratio']:.2f}x {r['verdict']}" if r["verdict"] else ""
        time = f"{1e3 * r['median_s']:.3f}"
        lines.append(f"  {r['contender']!s:{width - 2}}{time:>10}{spread:>19}{rate:>9}{moved:>8}{share:>7}   {against}")
    return "\n".join(line.rstrip() for line in lines)


def write_csv(path: str | os.PathLike[str], rows: Sequence[dict[str, Any]]) -> None:
    """Rows as a CSV file.

    Args:
        path: of the file.
        rows: as ``smelt bench --json`` gives them.

    Raises:
        OSError: the file cannot be written.

    Example:
        >>> import os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     smelt.bench.report.write_csv(os.path.join(folder, "rows.csv"), [])
    """
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def regressions(new: dict[str, Any], old_path: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    """What became slower since an earlier result, beyond the spread of both.

    Times are taken relative to the limit of their own run, so that a slower minute is no regression.

    Args:
        new: a result of ``smelt bench --json``.
        old_path: a file with an earlier one.

    Returns:
        A line for each of smelt's rows that are in both, and those of them that are regressions.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such result, or no row is in both.

    Example:
        >>> import json, pathlib, tempfile
        >>> row = {"case": "gemm", "dtype": "float32", "contender": "smelt", "median_s": 1.0, "low_s": 0.9, "high_s": 1.1}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "old.json")
        ...     _ = path.write_text(json.dumps({"rows": [row], "limits": {"fma_gflops": 1}}))
        ...     slow = {**row, "median_s": 2.0, "low_s": 1.9, "high_s": 2.1}
        ...     lines, slower = smelt.bench.report.regressions({"rows": [slow], "limits": {"fma_gflops": 1}}, path)
        >>> len(slower)
        1
    """
    text = Path(old_path).read_text()
    try:
        old = json.loads(text)
        before = {_key(r): r for r in old["rows"]}
        limit_before, limit_now = float(old["limits"]["fma_gflops"]), float(new["limits"]["fma_gflops"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"--compare needs a result of smelt bench --json, got {os.fspath(old_path)}") from None
    lines, slower = [], []
    for row in new["rows"]:
        was = before.get(_key(row))
        if was is None or not row["contender"].startswith("smelt"):
            continue
        scale = limit_now / limit_before
        ratio = was["median_s"] / (row["median_s"] * scale)
        line = f"{ratio:6.2f}x  {row['case']} {row['dtype']} {row['contender']}"
        if row["low_s"] * scale > was["high_s"]:
            line += "  slower"
            slower.append(line)
        elif row["high_s"] * scale < was["low_s"]:
            line += "  faster"
        lines.append(line)
    if not lines:
        raise ValueError(f"--compare: {os.fspath(old_path)} must have rows of this measurement, and has none")
    return lines, slower


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["case"], row["dtype"], row["contender"]


def roofline(path: str | os.PathLike[str], result: dict[str, Any]) -> None:
    """A picture: operations per byte against operations per second, under the limits of the machine.

    Args:
        path: of the PNG file.
        result: of ``smelt bench --json``.

    Raises:
        ImportError: Matplotlib is not installed.
        ValueError: no row has both operations and bytes.

    Example:
        >>> smelt.bench.report.roofline("roofline.png", {"rows": [], "limits": {}})
        Traceback (most recent call last):
        ValueError: --roofline needs rows with operations and bytes, got none
    """
    points = [r for r in result["rows"] if r["gflops"] and r["gbs"]]
    if not points:
        raise ValueError("--roofline needs rows with operations and bytes, got none")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError('--roofline: needs Matplotlib: pip install "smelt[plot]"') from None
    halves = all(row["dtype"] == "bfloat16" for row in points)
    peak, stream = result["limits"]["bf16_gflops" if halves else "fma_gflops"], result["limits"]["copy_gbs"]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    xs = [r["gflops"] / r["gbs"] for r in points]
    left, right = min([*xs, peak / stream]) / 2, max([*xs, peak / stream]) * 2
    axes.plot([left, peak / stream, right], [left * stream, peak, peak], color="black", label="limits of this minute")
    for name in dict.fromkeys(r["contender"] for r in points):
        own = [r for r in points if r["contender"] == name]
        axes.plot([r["gflops"] / r["gbs"] for r in own], [r["gflops"] for r in own], "o", label=name, alpha=0.7)
    axes.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="GFLOP/s", title=result["machine"]["cpu"])
    axes.grid(True, which="both", alpha=0.2)
    axes.legend()
    figure.savefig(path, dpi=120)
