"""Two threads must not collapse when the cores are shared: steps of the MLP with 1 and 2 threads alternate while a busy
loop runs on each core. Prints the ratio of mean times as JSON.

    python bench/contention.py --library smelt --seconds 20
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def busy(cpu: int) -> None:
    os.sched_setaffinity(0, {cpu})
    while True:
        pass


def run(library: str, seconds: float) -> dict[str, float]:
    from smelt.bench import models

    ours, model = models.smelt_step("mlp")
    if library == "smelt":
        import smelt

        set_threads, step = smelt.set_num_threads, ours
    else:
        import torch

        step = next(s for label, s in models.torch_steps("mlp", model) if label == "2 threads, eager")
        set_threads = torch.set_num_threads
        inner = step.__defaults__[0]
        step = inner
    totals, counts = [0.0, 0.0], [0, 0]
    for threads in (1, 2):
        set_threads(threads)
        step()
    workers = [multiprocessing.get_context("spawn").Process(target=busy, args=(c,), daemon=True) for c in (0, 1)]
    for worker in workers:
        worker.start()
    time.sleep(1.0)
    try:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for i, threads in enumerate((1, 2)):
                set_threads(threads)
                begin = time.perf_counter()
                for _ in range(20):
                    step()
                totals[i] += time.perf_counter() - begin
                counts[i] += 20
    finally:
        for worker in workers:
            worker.kill()
    one, two = totals[0] / counts[0], totals[1] / counts[1]
    return {"one_thread_ms": one * 1e3, "two_threads_ms": two * 1e3, "ratio": two / one, "steps": sum(counts)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", choices=("smelt", "torch"), default="smelt")
    parser.add_argument("--seconds", type=float, default=20.0)
    args = parser.parse_args()
    print(json.dumps({"library": args.library, **run(args.library, args.seconds)}))
