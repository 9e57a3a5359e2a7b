"""Kernels and training steps on a GPU against PyTorch on the same GPU, alternating, and as shares of its copy bandwidth.

    python bench/gpu.py                        # all
    python bench/gpu.py --only gemm adamw      # rows whose name contains one of the words
    python bench/gpu.py --check --device emu   # tiny sizes, no PyTorch: only that everything runs

Each row is written as soon as it is measured, to bench/results/<date>-<gpu>/gpu.json. Before a row is timed, values of both
sides are compared. Times are those of the device between two events, medians of 15 rounds in turn, except those of whole
steps: wall-clock of 20 in a row, the last loss read, and the CPU's time for each.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

import smelt  # noqa: E402
from bench.claims import commit  # noqa: E402
from smelt import losses, optim  # noqa: E402
from smelt.bench import models  # noqa: E402

Run = Callable[[], Any]
ROUNDS = 15


class Bench:
    """What rows need: the device, the peer (None with --check), sizes, and the fastest copy seen."""

    def __init__(self, device: str, check: bool) -> None:
        self.device, self.check = device, check
        self.torch: Any = None
        self.copy = 0.0  # bytes a second
        if not check:
            import torch

            self.torch = torch
            torch.backends.cudnn.benchmark = True

    def size(self, n: int) -> int:
        return max(4, n // 256) if self.check else n

    def random(self, *shape: int, dtype: str = "bfloat16") -> tuple[smelt.Tensor, Any]:
        """The same numbers on both sides."""
        ours = smelt.tensor(np.random.default_rng(0).normal(size=shape).astype(np.float32)).to(dtype).to(self.device)
        theirs = (
            self.torch.from_numpy(ours.to("float32").numpy()).to(self.device, getattr(self.torch, dtype))
            if self.torch
            else None
        )
        return ours, theirs

    def ours_seconds(self, run: Run, launches: int) -> float:
        begin, end = smelt.cuda.Event(self.device), smelt.cuda.Event(self.device)
        begin.record()
        for _ in range(launches):
            run()
        end.record()
        return begin.seconds_until(end) / launches

    def theirs_seconds(self, run: Run, launches: int) -> float:
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(launches):
            run()
        end.record()
        end.synchronize()
        return 1e-3 * begin.elapsed_time(end) / launches

    def agree(self, ours: smelt.Tensor, theirs: Any, tolerance: float) -> None:
        a, b = ours.to("float32").numpy().astype(np.float64), theirs.detach().float().cpu().numpy().astype(np.float64)
        assert a.shape == b.shape, f"shapes must be equal, {a.shape} and {b.shape}"
        error = float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-30))
        assert error <= tolerance, f"values must agree within {tolerance:g}, the difference is {error:g} of the norm"

    def measure(self, ours: Run, theirs: Run | None, bytes_moved: float = 0, flops: float = 0) -> dict[str, Any]:
        """Medians of both in turn; shares and rates where the work is known."""
        if self.check:
            ours()
            smelt.cuda.synchronize(self.device)
            return {}
        once = self.ours_seconds(ours, 3)
        launches = max(5, min(200, int(0.02 / max(once, 1e-6))))
        for run in (ours, theirs):
            if run:
                for _ in range(launches):
                    run()
        smelt.cuda.synchronize(self.device)
        self.torch.cuda.synchronize()
        pairs = [
            (self.ours_seconds(ours, launches), self.theirs_seconds(theirs, launches) if theirs else 0.0)
            for _ in range(ROUNDS)
        ]
        mine = statistics.median(a for a, _ in pairs)
        row: dict[str, Any] = {"ours_us": 1e6 * mine, "launches": launches}
        if theirs:
            ratios = sorted(b / a for a, b in pairs)
            row |= {
                "theirs_us": 1e6 * statistics.median(b for _, b in pairs),
                "ratio": statistics.median(ratios),
                "low": ratios[3],
                "high": ratios[-4],
            }
        if bytes_moved:
            row |= {"gbs": 1e-9 * bytes_moved / mine}
            if self.copy:
                row |= {"share_of_copy": bytes_moved / mine / self.copy}
        if flops:
            row |= {"tflops": 1e-12 * flops / mine}
        return row


# ------------------------------------------------------------------------------------------------------------- the rows


def copy_rows(b: Bench) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    def copy() -> dict[str, Any]:
        n = b.size(1 << 29)
        x, out = smelt.randn(1, n, device=b.device), smelt.zeros(1, n, device=b.device)
        v = b.torch.randn(1, n, device=b.device) if b.torch else None
        u = b.torch.empty_like(v) if b.torch else None
        row = b.measure(
            lambda: smelt.kernels.copy(x, out=out), (lambda: u.copy_(v)) if b.torch else None, bytes_moved=8 * n
        )
        if row:
            b.copy = max(8 * n / (1e-6 * row["ours_us"]), 8 * n / (1e-6 * row["theirs_us"]))
            row["limit_gbs"] = 1e-9 * b.copy
        return row

    yield "copy 2 GiB", copy


def adamw_rows(b: Bench) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    def step(n: int) -> dict[str, Any]:
        p, u = b.random(n, dtype="float32")
        g, h = b.random(n, dtype="float32")
        p.requires_grad = True
        p.grad = g
        optimizer = optim.AdamW([p], lr=1e-3)
        twin = None
        if b.torch:
            u.requires_grad_()
            u.grad = h
            twin = b.torch.optim.AdamW([u], lr=1e-3, weight_decay=optimizer.param_groups[0]["weight_decay"], fused=True)
            optimizer.step()
            twin.step()
            b.agree(p.detach(), u, 1e-5)
        return b.measure(optimizer.step, twin.step if twin else None, bytes_moved=28 * n)

    for millions in (16, 64, 256):
        yield f"adamw {millions} M", functools.partial(step, b.size(millions << 20))


def row_rows(b: Bench) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Layer norm, softmax and cross entropy over rows, forward, and forward with backward."""

    def forward(kind: str, rows: int, columns: int, dtype: str, backward: bool) -> dict[str, Any]:
        x, u = b.random(rows, columns, dtype=dtype)
        weight, w = b.random(columns, dtype="float32")
        w = w.to(u.dtype) if b.torch else None
        labels = np.random.default_rng(1).integers(0, columns, rows)
        target = smelt.tensor(labels).to(b.device)
        there = b.torch.from_numpy(labels).to(b.device) if b.torch else None
        gradient, d = b.random(rows, columns, dtype=dtype)
        x.requires_grad = backward
        if b.torch:
            u.requires_grad_(backward)

        def ours() -> Any:
            if kind == "layer norm":
                y = smelt.layer_norm(x, weight, weight)
            elif kind == "softmax":
                y = smelt.softmax(x, -1)
            else:
                y = losses.cross_entropy(x, target)
            if backward:
                x.grad = None
                y.backward() if kind == "cross entropy" else y.backward(gradient)
            return y

        def theirs() -> Any:
            f = b.torch.nn.functional
            if kind == "layer norm":
                y = f.layer_norm(u, (columns,), w, w)
            elif kind == "softmax":
                y = f.softmax(u, -1)
            else:
                y = f.cross_entropy(u, there)
            if backward:
                u.grad = None
                y.backward() if kind == "cross entropy" else y.backward(d)
            return y

        if b.torch:
            b.agree(ours().detach(), theirs(), 2e-2 if dtype == "bfloat16" else 1e-5)
            if backward:
                b.agree(x.grad, u.grad, 2e-2 if dtype == "bfloat16" else 1e-5)
        size = 2 if dtype == "bfloat16" else 4
        passes = 1 if kind == "cross entropy" else 2
        if backward:
            passes += 2 if kind == "cross entropy" else 3
        return b.measure(ours, theirs if b.torch else None, bytes_moved=passes * size * rows * columns)

    for kind in ("layer norm", "softmax", "cross entropy"):
        for dtype in ("float32", "bfloat16"):
            for rows, columns in ((65536, 1024), (16384, 4096), (4096, 32768)):
                for backward in (False, True):
                    name = f"{kind} {rows}x{columns} {dtype}{' with backward' if backward else ''}"
                    yield name, functools.partial(forward, kind, b.size(rows), b.size(columns), dtype, backward)


def gemm_rows(b: Bench) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    def product(m: int, n: int, k: int, ta: bool, tb: bool, dtype: str, mode: str) -> dict[str, Any]:
        x, u = b.random(*((k, m) if ta else (m, k)), dtype=dtype)
        y, v = b.random(*((n, k) if tb else (k, n)), dtype=dtype)
        smelt.set_float32_matmul(mode)
        try:
            left, right = (x.T if ta else x), (y.T if tb else y)
            if b.torch:
                b.torch.backends.cuda.matmul.allow_tf32 = mode == "tf32"
                u, v = (u.T if ta else u), (v.T if tb else v)
                b.agree(left @ right, u @ v, {"bfloat16": 1e-2}.get(dtype, 1e-3 if mode == "tf32" else 1e-5))
            return b.measure(lambda: left @ right, (lambda: u @ v) if b.torch else None, flops=2.0 * m * n * k)
        finally:
            smelt.set_float32_matmul("exact")

    squares = [(n, n, n) for n in (1024, 2048, 4096, 8192)]
    networks = [(4096, 4096, 1024), (16384, 1024, 4096), (512, 50304, 768), (50176, 64, 576), (128, 1024, 784)]
    for dtype, mode in (("bfloat16", "exact"), ("float32", "tf32"), ("float32", "exact")):
        for m, n, k in squares + (networks if dtype == "bfloat16" else []):
            for kind in ("nn", "nt", "tn") if dtype == "bfloat16" else ("nt",):
                name = f"gemm {m}x{n}x{k} {kind} {'tf32' if mode == 'tf32' else dtype}"
                sizes = (b.size(m), b.size(n), b.size(k))
                yield name, functools.partial(product, *sizes, kind[0] == "t", kind[1] == "t", dtype, mode)


def step_rows(b: Bench) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    def step(name: str, rows: int, precision: str) -> dict[str, Any]:
        ours, model = models.smelt_step(name, precision, b.device, rows, read=False)
        if b.check:
            return {"loss": ours().item()}
        candidates = list(models.torch_steps(name, model, precision, b.device, rows, read=False))
        first = ours().item()
        row: dict[str, Any] = {}
        for label, theirs in candidates:
            loss = theirs().item()
            assert abs(first - loss) <= 2.0**-7 * abs(first), (
                f"first losses must be equal, {first} and {loss} ({label})"
            )
        for label, run in [("ours", ours), *candidates]:
            for _ in range(10):
                last = run()
            last.item()
            times, cpu_times = [], []
            for _ in range(7):
                begin, cpu = time.perf_counter(), time.thread_time()
                for _ in range(20):
                    last = run()
                cpu_times.append((time.thread_time() - cpu) / 20)
                last.item()
                times.append((time.perf_counter() - begin) / 20)
            row[f"{label}_us"] = 1e6 * statistics.median(times)
            row[f"{label}_cpu_us"] = 1e6 * statistics.median(cpu_times)
        eager = min(v for k, v in row.items() if k.startswith("eager") and "cpu" not in k)
        compiled = min(v for k, v in row.items() if k.startswith("compiled") and "cpu" not in k)
        return row | {"ratio": eager / row["ours_us"], "ratio_to_compiled": compiled / row["ours_us"]}

    for name in ("mlp", "cnn", "resnet18", "gpt"):
        for rows in (128, 512) if not b.check else (2,):
            yield f"step {name} {rows} bf16", functools.partial(step, name, rows, "bf16")


FAMILIES = (copy_rows, adamw_rows, row_rows, gemm_rows, step_rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="WORD", help="rows whose name contains one of the words")
    parser.add_argument("--device", default="cuda", help="the device (default: cuda)")
    parser.add_argument("--check", action="store_true", help="tiny sizes and no peer: only that everything runs")
    parser.add_argument("--seconds", type=float, default=420, help="begin no row after so long (default: 420)")
    args = parser.parse_args()
    if why := smelt._core.why_unavailable(args.device.partition(":")[0]):
        parser.error(f"--device must be one that is here: {why}")
    gpu = smelt.cuda.device_info(args.device)["name"]
    folder = f"{datetime.date.today()}-{re.sub(r'[^a-z0-9]+', '-', gpu.lower()).strip('-')}"
    path = ROOT / "bench" / "results" / folder / "gpu.json"
    b, begin, failed = Bench(args.device, args.check), time.perf_counter(), 0
    results = {
        "gpu": gpu,
        "commit": commit(),
        "peer": f"PyTorch {b.torch.__version__}" if b.torch else None,
        "rows": {},
    }
    for family in FAMILIES:
        for name, row in family(b):
            if args.only and not any(word in name for word in args.only) and family is not copy_rows:
                continue
            if time.perf_counter() - begin > args.seconds:
                found: dict[str, Any] = {"not_run": f"{args.seconds:.0f} s were over"}
            else:
                try:
                    found = row()
                except Exception as error:  # one row must not end the others
                    found = {"error": f"{type(error).__name__}: {error}"}
                    failed += 1
            results["rows"][name] = found
            print(name, {k: round(v, 3) if isinstance(v, float) else v for k, v in found.items()}, flush=True)
            if not args.check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(results, indent=1) + "\n")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
