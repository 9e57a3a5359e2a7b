"""Registers, stack, local memory and instructions of every CUDA kernel, held to csrc/cuda/budgets.json.

    python tools/sass_budget.py build/cuda/_cuda.so            # compare
    python tools/sass_budget.py build/cuda/_cuda.so --update   # write the file anew, for the targets that are in the library

A kernel is a function of csrc/cuda/kernels, as `gemm.multiply_tensor`; of its instances the largest counts are meant. It
fails on a count above its budget (instructions: by more than 5 %), on a kernel without a budget, on a budget without a
kernel, and where matrix instructions are gone. No GPU is needed. cuobjdump and nvdisasm are installed when missing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

BUDGETS = Path(__file__).resolve().parent.parent / "csrc" / "cuda" / "budgets.json"
SLACK = {"instructions": 1.05}  # of what may be exceeded a little
Counts = dict[str, int]


def cuobjdump() -> tuple[str, dict[str, str]]:
    """The program, and the environment in which it finds nvdisasm."""
    folder = Path(sysconfig.get_paths()["purelib"]) / "nvidia" / "cu13" / "bin"
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}{os.pathsep}{folder}"}
    found = shutil.which("cuobjdump", path=environment["PATH"])
    if not found or not shutil.which("nvdisasm", path=environment["PATH"]):
        packages = ["nvidia-cuda-cuobjdump", "nvidia-cuda-nvdisasm"]
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *packages], check=True)
        found = shutil.which("cuobjdump", path=environment["PATH"])
    if not found:
        sys.exit("sass_budget: cuobjdump is not to be had")
    return found, environment


def kernel_name(symbol: str) -> str:
    """`gemm.multiply_tensor` of a mangled name, whose namespace without a name has the file's name between hashes."""
    space = re.match(r"_ZN5smelt(\d+)", symbol)
    if not space:
        return symbol
    end = space.end() + int(space[1])
    file = re.match(r"_GLOBAL__N__[0-9a-f]+_\d+_(\w+)_cu_[0-9a-f]+$", symbol[space.end() : end])
    length = re.match(r"\d+", symbol[end:])
    if not file or not length:
        return symbol
    begin = end + length.end()
    return f"{file[1]}.{symbol[begin : begin + int(length[0])]}"


def blocks(text: str, start: str) -> Iterator[tuple[str, str, list[str]]]:
    """Target, symbol and lines of each function of a listing."""
    target, symbol, lines = "", "", list[str]()
    for line in text.splitlines():
        if arch := re.match(r"arch = (\w+)", line):
            if symbol:
                yield target, symbol, lines
            target, symbol, lines = arch[1], "", []
        elif name := re.match(start, line):
            if symbol:
                yield target, symbol, lines
            symbol, lines = name[1], []
        elif symbol:
            lines.append(line)
    if symbol:
        yield target, symbol, lines


def measure(library: Path) -> dict[str, dict[str, Counts]]:
    """The counts, by target and kernel."""
    program, environment = cuobjdump()

    def listing(option: str) -> str:
        done = subprocess.run([program, option, str(library)], env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"sass_budget: cuobjdump {option}: {done.stderr.strip()}")
        return done.stdout

    found: dict[str, dict[str, Counts]] = {}
    for target, symbol, lines in blocks(listing("--dump-resource-usage"), r"\s*Function (\w+):"):
        use = dict(re.findall(r"(\w+):(\d+)", " ".join(lines)))
        counts = found.setdefault(target, {}).setdefault(kernel_name(symbol), {"instances": 0})
        counts["instances"] += 1
        for name, key in (("registers", "REG"), ("stack", "STACK"), ("local", "LOCAL"), ("shared", "SHARED")):
            counts[name] = max(counts.get(name, 0), int(use.get(key, 0)))
    for target, symbol, lines in blocks(listing("-sass"), r"\s*Function : (\w+)"):
        counts = found[target][kernel_name(symbol)]
        text = [
            m[1] for line in lines if (m := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_.]+)", line))
        ]
        counts["instructions"] = max(counts.get("instructions", 0), len(text))
        matrix = sum(op.startswith(("HMMA", "HGMMA", "DMMA")) for op in text)
        counts["matrix_instructions"] = min(counts.get("matrix_instructions", matrix), matrix)
    if not found:
        sys.exit(f"sass_budget: {library} has no kernels")
    return found


def compare(found: dict[str, dict[str, Counts]], budgets: dict[str, dict[str, Counts]]) -> list[str]:
    """What is wrong, a line each."""
    wrong = []
    for target, kernels in sorted(found.items()):
        allowed = budgets.get(target)
        if allowed is None:
            wrong.append(f"{target}: the target has no budgets")
            continue
        for name in sorted(kernels.keys() | allowed.keys()):
            if name not in allowed:
                wrong.append(f"{target} {name}: has no budget")
            elif name not in kernels:
                wrong.append(f"{target} {name}: has a budget and is not in the library")
            else:
                got, most = kernels[name], allowed[name]
                wrong += [
                    f"{target} {name}: {key} must be at most {most[key]}, got {got[key]}"
                    for key in ("registers", "stack", "local", "shared", "instructions")
                    if got[key] > most[key] * SLACK.get(key, 1)
                ]
                if most["matrix_instructions"] and not got["matrix_instructions"]:
                    wrong.append(f"{target} {name}: must have matrix instructions, got none")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path, help="_cuda.so, or an object file of it")
    parser.add_argument("--update", action="store_true", help="write the budgets of the library's targets anew")
    args = parser.parse_args()
    if not args.library.exists():
        parser.error(f"the library must be there, got {args.library}")
    found = measure(args.library)
    budgets = json.loads(BUDGETS.read_text()) if BUDGETS.exists() else {}
    if args.update:
        if args.library.suffix != ".so":  # a part of the kernels: the budgets of the others stay
            found = {target: {**budgets.get(target, {}), **kernels} for target, kernels in found.items()}
        BUDGETS.write_text(json.dumps({**budgets, **found}, indent=1, sort_keys=True) + "\n")
        print(f"written: {', '.join(f'{target}: {len(kernels)} kernels' for target, kernels in sorted(found.items()))}")
        return 0
    wrong = compare(found, budgets)
    print("\n".join(wrong) or f"within budget: {', '.join(f'{t}: {len(k)} kernels' for t, k in sorted(found.items()))}")
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
