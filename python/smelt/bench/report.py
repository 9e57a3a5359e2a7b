"""Tables, files and pictures of what was measured."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["read", "regressions", "roofline", "table", "write_csv"]

_COLUMNS = ("case", "dtype", "contender", "median_s", "low_s", "high_s", "gflops", "gbs", "share", "limited_by", "ratio",
            "ratio_low", "ratio_high", "verdict")  # fmt: skip


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
    header = f"{'':{width}}{'ms':>10}{'95 % interval':>19}{'GFLOP/s':>9}{'GB/s':>8}{'limit':>7}"
    for r in rows:
        case = f"{r['case']} {r['dtype']}"
        if case != last:
            lines += ["", case, f"{header}   {r['contender']} against it"]
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


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """An earlier result.

    Args:
        path: of a file that ``smelt bench --json`` has written.

    Returns:
        The result.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such result.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "old.json")
        ...     _ = path.write_text("{}")
        ...     smelt.bench.report.read(path)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: --compare needs a result of smelt bench --json, got ...old.json
    """
    text = Path(path).read_text()
    try:
        old: dict[str, Any] = json.loads(text)
        limits = {name: float(value) for name, value in old["limits"].items()}
        times = [float(r[name]) for r in old["rows"] for name in ("median_s", "low_s", "high_s")]
        keys = [_key(r) for r in old["rows"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        keys, limits, times = [], {}, []
    if not keys or not all(value > 0 for value in (*limits.values(), *times)):
        raise ValueError(f"--compare needs a result of smelt bench --json, got {os.fspath(path)}")
    return old


def regressions(new: dict[str, Any], old: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What became slower since an earlier result, beyond the spread of both.

    Times are taken relative to the limit that binds them, of their own run, so that a slower minute is no regression.

    Args:
        new: a result of ``smelt bench --json``.
        old: an earlier one.

    Returns:
        A line for each of smelt's rows that are in both, and those of them that are regressions.

    Raises:
        ValueError: it is of another machine or other threads, or no row is in both.

    Example:
        >>> row = {"case": "gemm", "dtype": "float32", "contender": "smelt", "median_s": 1.0, "low_s": 0.9, "high_s": 1.1}
        >>> slow = {**row, "median_s": 2.0, "low_s": 1.9, "high_s": 2.1}
        >>> old, new = ({"rows": [r], "limits": {"fma_gflops": 1}} for r in (row, slow))
        >>> lines, slower = smelt.bench.report.regressions(new, old)
        >>> len(slower)
        1
    """
    before = {_key(r): r for r in old["rows"]}
    for what in ("cpu", "isa", "threads", "device"):
        was, now = (result.get("machine", {}).get(what) for result in (old, new))
        if was != now:
            raise ValueError(
                f"--compare: the earlier result must be of this machine and setting, its {what} is {was}, now {now}"
            )
    lines, slower = [], []
    for row in new["rows"]:
        was = before.get(_key(row))
        if was is None or not row["contender"].startswith("smelt"):
            continue
        limit = row.get("limited_by", "fma_gflops")
        scale = new["limits"][limit] / old["limits"].get(limit, new["limits"][limit])
        ratio = was["median_s"] / (row["median_s"] * scale)
        times = f"{1e3 * was['median_s']:.3f} to {1e3 * row['median_s']:.3f} ms"
        line = f"{ratio:6.2f}x  {row['case']} {row['dtype']} {row['contender']}, {times}, limit {scale:.2f}x"
        if row["low_s"] * scale > was["high_s"]:
            line += "  slower"
            slower.append(line)
        elif row["high_s"] * scale < was["low_s"]:
            line += "  faster"
        lines.append(line)
    if not lines:
        raise ValueError("--compare: the earlier result must have rows of this measurement, and has none")
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
    dtypes = ", ".join(dict.fromkeys(r["dtype"] for r in points))
    halves = dtypes == "bfloat16"
    peak, stream = result["limits"]["bf16_gflops" if halves else "fma_gflops"], result["limits"]["copy_gbs"]
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.add_subplot()
    xs = [r["gflops"] / r["gbs"] for r in points]
    left, right = min([*xs, peak / stream]) / 2, max([*xs, peak / stream]) * 2
    axes.plot([left, peak / stream, right], [left * stream, peak, peak], color="black", label="limits of this minute")
    axes.annotate(f"{peak:.0f} GFLOP/s", (right, peak), ha="right", va="bottom")
    axes.annotate(f"{stream:.0f} GB/s", (left, left * stream), ha="left", va="top")
    numbers = {case: i for i, case in enumerate(dict.fromkeys(r["case"] for r in points), 1)}
    for r in points:
        place = (r["gflops"] / r["gbs"], r["gflops"])
        axes.annotate(str(numbers[r["case"]]), place, xytext=(4, 4), textcoords="offset points", fontsize=8)
    for name in dict.fromkeys(r["contender"] for r in points):
        own = [r for r in points if r["contender"] == name]
        axes.plot([r["gflops"] / r["gbs"] for r in own], [r["gflops"] for r in own], "o", label=name, alpha=0.7)
    machine = result["machine"]
    title = f"{machine.get('device') or machine['cpu']}, threads: {machine.get('threads', '')}, {dtypes}"
    axes.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="GFLOP/s", title=title)
    axes.xaxis.set_minor_formatter("")
    axes.grid(True, which="both", alpha=0.2)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    cases = "\n".join(f"{i}  {case}" for case, i in numbers.items())
    figure.legend([], [], title=cases, loc="outside right lower", title_fontsize=7, alignment="left")
    figure.savefig(path, dpi=120)
