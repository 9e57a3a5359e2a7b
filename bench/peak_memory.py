"""The most memory that a process ever had resident while it took training steps, in smelt or in PyTorch.

    python bench/peak_memory.py smelt --network resnet18
    python bench/peak_memory.py torch --network resnet18 --precision bf16

Prints JSON: megabytes after the imports and at the peak, both of the whole process. PyTorch runs eagerly, with its images and
weights channels_last where there are images.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
STEPS = 5


def measure(library: str, network: str, precision: str = "float32") -> dict[str, float]:
    """Megabytes of a fresh process."""
    command = [sys.executable, __file__, library, "--network", network, "--precision", precision]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def resident() -> float:
    """Of this program alone: what `getrusage` tells begins with the process that started it."""
    status = Path("/proc/self/status").read_text()
    return 1.024e-3 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=("smelt", "torch"))
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--precision", default="float32", choices=("float32", "bf16"))
    args = parser.parse_args()

    from smelt.bench import models

    if args.library == "smelt":
        imported = resident()
        step, _ = models.smelt_step(args.network, args.precision)
    else:
        import torch  # noqa: F401

        imported = resident()
        model = models.MODELS[args.network].build()
        last = len(models.MODELS[args.network].shape) == 3
        wanted = f"2 threads, eager{', channels_last' if last else ''}"
        step = next(s for label, s in models.torch_steps(args.network, model, args.precision) if label == wanted)
        del model
    for _ in range(STEPS):
        step()
    print(json.dumps({"imported": imported, "peak": resident()}))


if __name__ == "__main__":
    main()
