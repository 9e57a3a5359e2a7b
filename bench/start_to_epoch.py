"""From the start of the interpreter to one trained MNIST epoch: an MLP of 784-512-256-10, AdamW, batches of 128.

    python bench/start_to_epoch.py smelt
    python bench/start_to_epoch.py torch --threads 1

Reads the idx files of MNIST below SMELT_DATA, in the same way for both, trains on their bytes, which each library scales
batch by batch, and prints the test accuracy as JSON. The time is that of the whole process: `measure` starts one and takes
it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path

BATCH = 128


def measure(library: str, threads: int) -> tuple[float, float]:
    """Seconds of a fresh process, and the test accuracy that it reached."""
    begin = time.perf_counter()
    command = [sys.executable, __file__, library, "--threads", str(threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - begin, float(json.loads(done.stdout)["accuracy"])


def run_smelt(x, y, tx, ty, threads: int) -> float:
    import smelt
    from smelt import losses, nn, optim

    smelt.set_num_threads(threads)
    smelt.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)

    @smelt.capture
    def step(inputs, labels):
        loss = losses.cross_entropy(model(inputs.astype("float32") / 255), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    order = smelt.randperm(len(x)).numpy()
    for i in range(0, len(x), BATCH):
        rows = order[i : i + BATCH]
        step(x[rows], y[rows])
    with smelt.no_grad():
        return float((model(smelt.from_numpy(tx).astype("float32") / 255).argmax(1).numpy() == ty).mean())


def run_torch(x, y, tx, ty, threads: int) -> float:
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    layers = torch.nn
    model = layers.Sequential(
        layers.Linear(784, 512), layers.ReLU(), layers.Linear(512, 256), layers.ReLU(), layers.Linear(256, 10)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
    order = torch.randperm(len(x))
    for i in range(0, len(x), BATCH):
        rows = order[i : i + BATCH]
        loss = layers.functional.cross_entropy(model(inputs[rows].float() / 255), labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        return float((model(torch.from_numpy(tx).float() / 255).argmax(1).numpy() == ty).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=("smelt", "torch"))
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    import numpy as np

    root = Path(os.environ.get("SMELT_DATA", Path.home() / ".cache" / "smelt")) / "mnist"

    def read(stem: str, header: int) -> np.ndarray:
        return np.frombuffer(
            bytearray(gzip.decompress((root / f"{stem}-ubyte.gz").read_bytes())), np.uint8, offset=header
        )

    def images(part: str) -> np.ndarray:
        return read(f"{part}-images-idx3", 16).reshape(-1, 784)

    def labels(part: str) -> np.ndarray:
        return read(f"{part}-labels-idx1", 8).astype(np.int64)

    run = run_smelt if args.library == "smelt" else run_torch
    accuracy = run(images("train"), labels("train"), images("t10k"), labels("t10k"), args.threads)
    print(json.dumps({"accuracy": accuracy}))


if __name__ == "__main__":
    main()
