"""Every claimed figure: target, measured value, peer, PASS / MISS / NOT RUN. `make claims` runs all of them.

    python bench/claims.py                    # all
    python bench/claims.py --only gemm cnn    # rows whose name contains one of the words
    python bench/claims.py --list

Rows against PyTorch need it installed beside smelt (2.13 is the peer that the targets name). The table is printed and written
to bench/results/<date>-<cpu>-<isa>-<cores>c/claims.json; rows that were not run this time keep their last entry there.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

import smelt  # noqa: E402
from bench import cifar_curve, gpu_claims, peak_memory, speed_claims, start_to_epoch  # noqa: E402, F401
from bench.claim_rows import CLAIMS, NotRunError, Row, claim, peer, quiet, result  # noqa: E402
from smelt import bench, kernels  # noqa: E402
from smelt.bench import models  # noqa: E402

# -------------------------------------------------------------------------------------------------------- on its own


@claim("import smelt beyond import numpy", "<= 60 ms")
def import_time() -> Row:
    quiet()
    # Bytecode as an installed package has it: the first, uncounted import writes it.
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}

        # Within one process: the starts of two differ by more than this.
        code = "import time, numpy; t = time.perf_counter(); import smelt; print(time.perf_counter() - t)"

        def once() -> float:
            done = subprocess.run(
                [sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True
            )
            return 1e3 * float(done.stdout)

        times = [once() for _ in range(8)][1:]
    return result(np.median(times) <= 60, f"{np.median(times):.0f} ms (best {min(times):.0f})", n=7)


@claim("verdicts of smelt bench", "A against A: no difference, 10 % planted: found, each in >= 19 of 20")
def verdicts() -> Row:
    quiet()
    x = {k: smelt.randn(256, k) for k in (500, 550)}
    w = {k: smelt.randn(k, 256) for k in x}
    plain, slower = (lambda k=k: smelt.matmul(x[k], w[k]) for k in x)
    same = sum(bench.compare(plain, plain, pairs=31).verdict == "no difference" for _ in range(20))
    found = sum(bench.compare(plain, slower, pairs=31).verdict == "faster" for _ in range(20))
    return result(same >= 19 and found >= 19, f"no difference in {same} of 20, found in {found} of 20", n=31)


@claim("AdamW with the bf16 mirror, 64 M parameters", ">= 92 % of an in-place stream")
def adamw_mirror() -> Row:
    quiet()
    n = 64 << 20
    p, g, m, v = (smelt.full(n, value) for value in (1.0, 0.5, 0.0, 0.0))
    mirror = smelt.zeros(n, dtype="bfloat16")
    shares, rates = [], []
    for step in range(1, 10):
        begin = time.perf_counter()
        kernels.adam(p, g, m, v, lr=1e-3, step=step, weight_decay=0.01, mirror=mirror)
        rates.append(30e-9 * n / (time.perf_counter() - begin))
        begin = time.perf_counter()
        done = kernels.probe(g, "update")
        shares.append(rates[-1] / (1e-9 * done / (time.perf_counter() - begin)))
    share = float(np.median(shares))
    text = f"{100 * share:.0f} % ({100 * min(shares):.0f} to {100 * max(shares):.0f}), {np.median(rates):.1f} GB/s"
    return result(share >= 0.92, text, n=9)


@claim("start of the interpreter to a trained MNIST epoch", "<= 1/3 of PyTorch's better time (1 or 2 threads)")
def start_to_epoch_time() -> Row:
    version = peer().__version__
    if not os.environ.get("SMELT_DATA"):
        raise NotRunError("needs MNIST below SMELT_DATA")
    ours, theirs = [], []
    for _ in range(3):
        quiet()
        ours.append(min(start_to_epoch.measure("smelt", threads)[0] for threads in (1, 2)))
        theirs.append(min(start_to_epoch.measure("torch", threads)[0] for threads in (1, 2)))
    ratio = float(np.median(ours) / np.median(theirs))
    text = f"{ratio:.2f} of it, {np.median(ours):.2f} s against {np.median(theirs):.2f} s"
    return result(ratio <= 1 / 3, text, peer=f"PyTorch {version}", ours=ours, theirs=theirs, n=3)


@claim("CPU wheel", "<= 6 MB")
def wheel_size() -> Row:
    with tempfile.TemporaryDirectory() as folder:
        without = "--config-settings=cmake.define.SMELT_CUDA=OFF"
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", without, "-w", folder, str(ROOT)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise NotRunError(f"the wheel could not be built: {done.stderr.strip().splitlines()[-1]}")
        size = next(Path(folder).glob("*.whl")).stat().st_size / 1e6
    return result(size <= 6, f"{size:.2f} MB")


def add_gpu_claims() -> None:
    def here(measure: Callable[[], tuple[bool, str] | str]) -> Row:
        found = measure()
        if isinstance(found, str):
            raise NotRunError(found)
        return result(*found)

    def there(judge: gpu_claims.Judge) -> Row:
        found = gpu_claims.measured()
        if found is None:
            raise NotRunError("needs a GPU: make gpu-check STAGE=bench")
        passed, text = judge(found[1])
        return result(passed, f"{text} ({found[0]})")

    for name, target, measure in gpu_claims.HERE:
        claim(name, target)(functools.partial(here, measure))
    for name, target, judge in gpu_claims.ON_GPU:
        claim(name, target)(functools.partial(there, judge))


add_gpu_claims()


@claim("2 threads beside two busy loops", "mean step time <= 1.15x of 1 thread's")
def contention() -> Row:
    if (os.cpu_count() or 1) < 2:
        raise NotRunError("needs 2 cores")
    quiet()

    def run(library: str) -> dict[str, float]:
        script = [sys.executable, str(ROOT / "bench" / "contention.py"), "--library", library, "--seconds", "20"]
        done = subprocess.run(script, check=True, capture_output=True, text=True)
        return dict(json.loads(done.stdout))

    ours = run("smelt")
    text, more = f"{ours['ratio']:.2f}x", {}
    try:
        version = peer().__version__
        theirs = run("torch")
        more = {"peer": f"PyTorch {version}: {theirs['ratio']:.2f}x", "theirs": theirs}
    except NotRunError:
        pass
    return result(ours["ratio"] <= 1.15, text, ours=ours, **more)


@claim("resident memory over 5,000 steps after 500", "grows <= 1 MB")
def memory_growth() -> Row:
    step, _ = models.smelt_step("mlp")

    def resident() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6

    for _ in range(500):
        step()
    before = resident()
    for _ in range(5000):
        step()
    growth = resident() - before
    return result(growth <= 1, f"{growth:.2f} MB")


def peak_memory_row(precision: str) -> Row:
    version = peer().__version__
    ours, theirs = (
        [peak_memory.measure(library, "resnet18", precision) for _ in range(3)] for library in ("smelt", "torch")
    )
    peaks = [float(np.median([run["peak"] for run in runs])) for runs in (ours, theirs)]
    ratio = peaks[0] / peaks[1]
    text = f"{ratio:.2f} of it, {peaks[0]:.0f} MB against {peaks[1]:.0f} MB"
    return result(ratio <= 0.8, text, peer=f"PyTorch {version}, eager, channels_last", ours=ours, theirs=theirs, n=3)


for precision, short in (("float32", "fp32"), ("bf16", "bf16")):
    claim(f"resnet-18 step {short}, peak resident memory", "<= 0.8x of PyTorch's, fresh processes")(
        functools.partial(peak_memory_row, precision)
    )


@claim("cifar-10 curve, resnet-18 bf16, 3 epochs", "as far from fp32's as 3 seeds differ: mean distance <= 1.5 sigma")
def cifar_curves() -> Row:
    """About an hour; runs of the same sources that are done are read from build/curves."""
    folder = os.environ.get("SMELT_DATA", "")
    try:
        cifar_curve.read(folder or ".")
    except FileNotFoundError as error:
        raise NotRunError(f"{error}, the unpacked set") from None
    kept = ROOT / "build" / "curves" / cifar_curve.sources()
    runs = {p: [cifar_curve.run(folder, p, seed, kept) for seed in range(3)] for p in ("float32", "bf16")}
    mean, worst = cifar_curve.agreement(*([run["curve"] for run in group] for group in runs.values()))
    accuracies = " against ".join(
        f"{100 * np.mean([r['accuracy'] for r in runs[p]]):.1f} %" for p in ("bf16", "float32")
    )
    text = f"{mean:.2f} sigma, worst window {worst:.1f}; accuracy {accuracies}"
    return result(mean <= 1.5, text, n=3, runs=runs)


@claim("replay of 1,000 one-element calls", "<= 2 ms")
def small_calls() -> Row:
    quiet()

    def calls(x: Any) -> Any:
        for _ in range(500):
            x = (x + 1) * 0.5
        return x

    step, x = smelt.capture(calls), smelt.zeros(1)
    for _ in range(5):
        step(x)
    assert step(x).item() == calls(x).item() and len(step.plans[0]) == 1000, step.recording
    times = []
    for _ in range(200):
        begin = time.perf_counter()
        step(x)
        times.append(time.perf_counter() - begin)
    milliseconds = 1e3 * float(np.median(times))
    return result(milliseconds <= 2, f"{milliseconds:.3f} ms (longest {1e3 * max(times):.3f})", n=200)


@claim("first step of the trainer", "<= 3x the hundredth + 10 ms")
def first_step() -> Row:
    quiet()
    excess = {}
    for name in ("mlp", "cnn"):
        worst = []
        for _ in range(5):
            trainer = smelt.Trainer(models.MODELS[name].build())
            x, y = models.batch(name)
            times = []
            for _ in range(105):
                begin = time.perf_counter()
                trainer.step(x, y)
                times.append(time.perf_counter() - begin)
            assert trainer.recording.startswith("recorded: "), trainer.recording
            worst.append((times[0], float(np.median(times[95:]))))
        excess[name] = float(np.median([first - 3 * late for first, late in worst]))
    text = ", ".join(f"{name} 3x {'+' if e >= 0 else '-'} {1e3 * abs(e):.1f} ms" for name, e in excess.items())
    return result(max(excess.values()) <= 0.010, text, excess=excess, n=5)


def train(*options: str, isa: str | None = None) -> dict[str, Any]:
    environment = {**os.environ, **({"SMELT_MAX_ISA": isa} if isa else {})}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "smelt", "train", *options, "--json", "--quiet", "--out", f"{folder}/run"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise NotRunError(done.stderr.strip().splitlines()[-1])
    return dict(json.loads(done.stdout))


@claim("digits test accuracy, mean over seeds 0-4, every instruction set", ">= 99.0 %")
def digits_accuracy() -> Row:
    means = {}
    for isa in (
        name.removesuffix("_fill") for name in reversed(kernels.impls("fill"))
    ):  # those beyond only multiply bfloat16
        means[isa] = float(np.mean([train("digits", "--seed", str(s), isa=isa)["test"]["accuracy"] for s in range(5)]))
    text = ", ".join(f"{isa} {100 * value:.2f} %" for isa, value in means.items())
    return result(min(means.values()) >= 0.99, text, means=means, n=5)


@claim("mnist test accuracy, cnn, 5 epochs, mean over seeds 0-2", ">= 99.3 %")
def mnist_accuracy() -> Row:
    runs = [train("mnist", "--model", "cnn", "--epochs", "5", "--seed", str(s)) for s in range(3)]
    mean = float(np.mean([r["test"]["accuracy"] for r in runs]))
    each = [r["test"]["accuracy"] for r in runs]
    return result(mean >= 0.993, f"{100 * mean:.2f} %", each=each, seconds=[r["seconds"] for r in runs], n=3)


@claim("mnist, bf16 against float32, cnn, 2 epochs, 5 seeds", "|difference of means| <= 2 standard errors")
def mnist_bf16() -> Row:
    def runs(precision: str) -> np.ndarray:
        options = ("mnist", "--model", "cnn", "--epochs", "2", "--precision", precision)
        return np.array([train(*options, "--seed", str(seed))["test"]["accuracy"] for seed in range(5)])

    wide, low = runs("float32"), runs("bf16")
    difference = float(low.mean() - wide.mean())
    error = float(np.sqrt(wide.var(ddof=1) / 5 + low.var(ddof=1) / 5))
    text = f"{100 * low.mean():.3f} % against {100 * wide.mean():.3f} %, standard error {100 * error:.3f} %"
    return result(abs(difference) <= 2 * error, text, bf16=low.tolist(), float32=wide.tolist(), n=5)


def newcomer(command: str) -> tuple[float, str]:
    """Seconds and output of a make command in a fresh clone with an empty home and no environment."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), f"{folder}/smelt"], check=True)
        kept = {k: v for k, v in os.environ.items() if k in ("LANG", "TERM") or k.startswith(("PIP_", "http", "HTTP"))}
        path = ":".join(p for p in os.environ["PATH"].split(":") if str(sys.prefix) not in p)
        environment = {**kept, "HOME": f"{folder}/home", "PATH": path}
        os.mkdir(f"{folder}/home")
        begin = time.perf_counter()
        done = subprocess.run(["make", command], cwd=f"{folder}/smelt", env=environment, capture_output=True, text=True)
        seconds = time.perf_counter() - begin
    if done.returncode:
        raise NotRunError(f"make {command} failed: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    return seconds, done.stdout


@claim("make demo in a fresh clone", "<= 360 s, <= 15 s of it training, >= 98.5 %")
def make_demo() -> Row:
    seconds, output = newcomer("demo")
    last = output.strip().splitlines()[-1]
    accuracy = float(re.search(r"test accuracy ([\d.]+) %", last).group(1))
    training = float(re.search(r"trained for ([\d.]+) s", output).group(1))
    text = f"{seconds:.0f} s, training {training:.1f} s, {last}"
    return result(seconds <= 360 and training <= 15 and accuracy >= 98.5, text)


@claim("make test in a fresh clone", "<= 600 s")
def make_test() -> Row:
    seconds, output = newcomer("test")
    return result(seconds <= 600, f"{seconds:.0f} s, {output.strip().splitlines()[-1]}")


# ------------------------------------------------------------------------------------------------------------- output


def results_path() -> Path:
    cpu = re.sub(r"[^a-z0-9]+", "-", smelt._core.cpu_model().lower()).strip("-")
    machine = f"{cpu}-{smelt.runtime.info()['isa']}-{os.cpu_count()}c"  # one CPU name covers several generations
    return ROOT / "bench" / "results" / f"{datetime.date.today()}-{machine}" / "claims.json"


def commit() -> str:
    done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def save(path: Path, results: dict[str, Any]) -> None:
    info = smelt.runtime.info().items()
    results["machine"] = {k: v for k, v in info if k in ("cpu", "isa", "threads", "smelt", "python")}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="WORD", help="rows whose name contains one of the words")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    args = parser.parse_args()
    if args.list:
        for name, target, _ in CLAIMS:
            print(f"{name}: {target}")
        return 0
    if args.only and not any(word in name for name, _, _ in CLAIMS for word in args.only):
        parser.error(f"--only must be words of a row's name, see --list; got {' '.join(args.only)}")
    path = results_path()
    saved = json.loads(path.read_text()) if path.exists() else {"claims": {}}
    missed = 0
    for name, target, function in CLAIMS:
        if args.only and not any(word in name for word in args.only):
            continue
        try:
            row = function()
        except NotRunError as error:
            row = {"status": "NOT RUN", "measured": str(error)}
        row = {"target": target, **row, "commit": commit(), "command": "python " + " ".join(sys.argv)}
        saved["claims"][name] = row
        missed += row["status"] == "MISS"
        print(f"{row['status']:8}{name:66}{target:66}{row['measured']}  {row.get('peer', '')}", flush=True)
        save(path, saved)  # a run that is broken off leaves what it has
    saved["limits"] = bench.limits()
    save(path, saved)
    print(
        f"limits: {', '.join(f'{k} {v:.0f}' for k, v in saved['limits'].items())}; written to {path.relative_to(ROOT)}"
    )
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
