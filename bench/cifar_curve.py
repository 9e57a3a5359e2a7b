"""Losses of a ResNet-18 in its first epochs on CIFAR-10, from a seed, in float32 or bfloat16.

    python bench/cifar_curve.py --precision bf16 --seed 0 --out build/curves

Reads the standard binary batches (cifar-10-batches-bin/data_batch_1.bin ...) below SMELT_DATA or --data. Writes
<out>/<precision>-<seed>.json unless it is there: the mean loss of every 50 steps, the accuracy on the test set, seconds.
`agreement` compares.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
BATCH, WINDOW, EPOCHS = 128, 50, 3


def read(folder: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and test images, normalised, (N, 32, 32, 3), and their labels."""
    found = sorted(Path(folder).glob("**/cifar-10-batches-bin"))
    if not found:
        raise FileNotFoundError(f"needs cifar-10-batches-bin below {folder}")

    def batches(names: list[str]) -> tuple[np.ndarray, np.ndarray]:
        raw = np.concatenate([np.fromfile(found[0] / name, np.uint8).reshape(-1, 3073) for name in names])
        images = raw[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).astype(np.float32)
        return (images - np.float32(120)) / np.float32(64), raw[:, 0].astype(np.int64)

    return (*batches([f"data_batch_{i}.bin" for i in range(1, 6)]), *batches(["test_batch.bin"]))


def train(folder: str, precision: str, seed: int, epochs: int = EPOCHS) -> dict[str, Any]:
    """One run's curve."""
    import smelt
    from smelt import losses, optim
    from smelt.bench import models

    x, y, test_x, test_y = read(folder)
    smelt.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = models.MODELS["resnet18"].build()
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)

    @smelt.capture
    def step(images: smelt.Tensor, labels: smelt.Tensor) -> smelt.Tensor:
        optimizer.zero_grad()
        with smelt.autocast(precision):
            loss = losses.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    begin, values = time.perf_counter(), []
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for i in range(0, len(x) - BATCH + 1, BATCH):
            rows = order[i : i + BATCH]
            values.append(float(step(smelt.from_numpy(x[rows]), smelt.from_numpy(y[rows])).item()))
    seconds = time.perf_counter() - begin
    model.eval()
    with smelt.no_grad(), smelt.autocast(precision):
        right = sum(
            int((model(smelt.from_numpy(test_x[i : i + 500])).numpy().argmax(1) == test_y[i : i + 500]).sum())
            for i in range(0, len(test_x), 500)
        )
    windows = len(values) // WINDOW
    curve = np.reshape(values[: windows * WINDOW], (windows, WINDOW)).mean(1)
    return {"curve": curve.tolist(), "accuracy": right / len(test_x), "seconds": seconds}


def sources() -> str:
    """What the bits of a curve depend on: hashes of the committed sources; without git a name of the process's own."""
    command = ["git", "rev-parse", "HEAD:csrc", "HEAD:python"]
    asked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = [name[:10] for name in asked.stdout.split()]
    return "-".join(found) if asked.returncode == 0 else f"process-{os.getpid()}"


def run(folder: str, precision: str, seed: int, out: Path, epochs: int = EPOCHS) -> dict[str, Any]:
    """`train`, or what it wrote into `out` before."""
    file = out / f"{precision}-{seed}.json"
    if not file.exists():
        result = train(folder, precision, seed, epochs)
        out.mkdir(parents=True, exist_ok=True)
        file.with_suffix(".part").write_text(json.dumps(result))
        file.with_suffix(".part").replace(file)
    return dict(json.loads(file.read_text()))


def agreement(wide: list[list[float]], narrow: list[list[float]]) -> tuple[float, float]:
    """Whether curves are of one kind: the distance of their means in units of the seeds' spread, mean and worst over windows.

    The spread of a window is the standard deviation of the float32 curves there, smoothed over five windows; the mean of
    `narrow`'s curves lies as far from the mean of `wide`'s as their numbers let expect where the first result is about 1.
    """
    a, b = np.array(wide), np.array(narrow)
    variance = np.convolve(np.pad(a.var(0, ddof=1), 2, mode="edge"), np.full(5, 0.2), mode="valid")
    distance = np.abs(a.mean(0) - b.mean(0)) / np.sqrt(variance * (1 / len(a) + 1 / len(b)))
    return float(distance.mean()), float(distance.max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("SMELT_DATA", ""))
    parser.add_argument("--precision", default="float32", choices=("float32", "bf16"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--out", type=Path, default=Path("build/curves"))
    args = parser.parse_args()
    result = run(args.data, args.precision, args.seed, args.out, args.epochs)
    print(args.precision, args.seed, f"accuracy {result['accuracy']:.4f}, {result['seconds']:.0f} s")


if __name__ == "__main__":
    main()
