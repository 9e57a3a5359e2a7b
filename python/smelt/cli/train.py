"""smelt train"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from .. import losses, manual_seed, nn, optim
from ..data import ImagePreprocess, split
from ..serialization import environment
from ..train import Callback, RunFolder, Trainer, plot_run
from . import models, report, sources
from .main import UsageError
from .profile import ProfileSteps

_WEIGHT_DECAY = 0.05
_SMOOTHING = 0.1
_COLUMNS = (
    ("epoch", "epoch", "{:d}"), ("train loss", "train_loss", "{:.4f}"), ("train acc", "train_accuracy", "{:.4f}"),
    ("val loss", "val_loss", "{:.4f}"), ("val acc", "val_accuracy", "{:.4f}"), ("seconds", "seconds", "{:.1f}"),
)  # fmt: skip


class Table(Callback):
    """A line for each epoch."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def on_fit_begin(self, trainer: Trainer) -> None:
        self.stream.write("  ".join(f"{title:>10}" for title, _, _ in _COLUMNS) + "\n")
        for row in trainer.history:
            self.on_epoch_end(trainer, row)

    def on_epoch_end(self, trainer: Trainer, row: dict[str, Any]) -> None:
        cells = [form.format(row[key]) if key in row else "-" for _, key, form in _COLUMNS]
        self.stream.write("  ".join(f"{cell:>10}" for cell in cells) + "\n")
        self.stream.flush()


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """One training run: ``smelt train DATASET``.

    Args:
        args: the parsed command line.

    Returns:
        What ``--json`` prints, and the exit code.
    """
    started = time.perf_counter()
    source = sources.open_source(args.dataset, args.data, args.download)
    args.epochs = args.epochs or source.epochs
    args.batch_size = args.batch_size or source.batch_size
    args.out = str(_run_path(args, source.name))

    train, validation = source.train, None
    if args.validation > 0:
        train, validation = split(source.train, args.validation, stratify=True, seed=0)
    manual_seed(args.seed)
    classes = len(source.train.labels or [])
    model = models.build(args.model, source.train.x.shape[1:], classes)
    trainer = Trainer(
        model,
        loss=nn.CrossEntropyLoss(label_smoothing=_SMOOTHING),
        optimizer=optim.AdamW(model.named_parameters(), lr=args.lr, weight_decay=_WEIGHT_DECAY),
        metrics=["accuracy"],
        device=args.device,
        precision=args.precision,
        schedule="one_cycle",
        preprocess=ImagePreprocess.fit(train.x, source.maximum),
        labels=source.train.labels,
        seed=args.seed,
    )
    folder = _open(args)  # only now: a mistake above leaves no empty folder
    _write_config(args, folder, source, trainer)
    stream = sys.stderr if args.json else sys.stdout
    callbacks: list[Callback] = [] if args.quiet else [Table(stream)]
    steps = ProfileSteps()
    try:
        trainer.fit(
            train,
            validation,
            epochs=args.epochs,
            batch_size=args.batch_size,
            callbacks=[*callbacks, steps] if args.profile else callbacks,
            out=folder,
            checkpoint_every=args.checkpoint_every,
            resume=args.resume,
        )
    except KeyboardInterrupt as error:
        step = str(error).partition(";")[0] or "interrupted"
        raise KeyboardInterrupt(f"{step}; go on with: {_command_to_go_on(args)}") from None
    finally:
        steps.end()
    trained = time.perf_counter() - started
    test = report.measure(trainer, source.test)
    last = trainer.history.rows[-1]
    result = {
        "run": args.out,
        "dataset": source.name,
        "model": args.model,
        "epochs": args.epochs,
        "seed": args.seed,
        "seconds": last["seconds"],
        "train": {"loss": last["train_loss"], "accuracy": last["train_accuracy"]},
        "validation": {k[4:]: v for k, v in last.items() if k.startswith("val_")},
        "test": test,
    }
    folder.write_json("metrics.json", result)
    if args.profile:
        result["profile"] = steps.write(folder, stream)
    pictures = f"pictures in {folder.path / 'plots'}; " if _plot(folder, trainer, test, source.train.labels) else ""
    if not args.json:
        whole = "in this command" if args.resume else "in all"
        before = " since the run began" if args.resume else ""
        print(f"run folder {args.out}, trained for {last['seconds']:.1f} s{before}, {trained:.1f} s {whole}")
        print(f"{pictures}next: smelt predict {shlex.quote(args.out)} INPUT")
        print(report.last_line(test), flush=True)
    failed = args.min_accuracy is not None and test["accuracy"] < args.min_accuracy
    if failed:
        below = math.floor(test["accuracy"] * 1e4) / 1e4  # rounded up it might look like the bound
        sys.stderr.write(f"smelt train: test accuracy {below:.4f} is below --min-accuracy {args.min_accuracy}\n")
    return result, int(failed)


def _command_to_go_on(args: argparse.Namespace) -> str:
    """The command line that goes on with the run."""
    missing = [] if any(a == "--out" or a.startswith("--out=") for a in args.argv) else ["--out", args.out]
    return shlex.join(["smelt", *args.argv, *missing, *([] if "--resume" in args.argv else ["--resume"])])


def _run_path(args: argparse.Namespace, name: str) -> Path:
    if args.out is not None:
        path = Path(args.out)
        # A run that was killed as it began left a folder with nothing in it, or with a half-written file.
        begun = path.is_dir() and all(item.suffix == ".tmp" for item in path.iterdir())
        if args.resume and not begun and not (path / "config.json").is_file():
            raise UsageError(f"there is no run to resume in {args.out}")
        return path
    if not args.resume:
        return RunFolder.default_path(name, args.model)
    runs = sorted(Path("runs").glob(f"{name}-{args.model}-*"))
    if not runs:
        raise UsageError(f"there is no run to resume in runs/{name}-{args.model}-*; name one with --out")
    return runs[-1]


def _open(args: argparse.Namespace) -> RunFolder:
    try:
        folder = RunFolder(args.out, args.resume)
    except FileExistsError as error:
        raise UsageError(str(error).removeprefix("out: ").replace("pass resume", "pass --resume")) from None
    return folder


_MUST_AGREE = ("dataset", "model", "epochs", "batch_size", "lr", "validation", "precision", "seed")


def _write_config(args: argparse.Namespace, folder: RunFolder, source: sources.Source, trainer: Trainer) -> None:
    """Every option resolved; a resumed run must have those that it began with."""
    options = {k: v for k, v in vars(args).items() if k not in ("run", "argv", "command")}
    path = folder.path / "config.json"
    if path.exists():
        old = sources.read_options(path)
        for name in _MUST_AGREE:
            if old.get(name) != options[name]:
                raise UsageError(
                    f"--{name.replace('_', '-')} must be that of the run to resume, {old.get(name)}, got {options[name]}"
                )
        return
    config = {
        "argv": ["smelt", *args.argv],
        "options": options,
        "weight_decay": _WEIGHT_DECAY,
        "label_smoothing": _SMOOTHING,
        "loss": losses.cross_entropy.__name__,
        "schedule": "one_cycle",
        "optimizer": repr(trainer.optimizer),
        "device": trainer.device,
        "labels": trainer.labels,
        "environment": environment(),
        "data": {
            "train": {"rows": len(source.train), "sha256": source.train.sha256()},
            "test": {"rows": len(source.test), "sha256": source.test.sha256()},
        },
    }
    folder.write_json("config.json", config)


def _plot(folder: RunFolder, trainer: Trainer, test: dict[str, Any], labels: list[str] | None) -> bool:
    try:
        plot_run(folder.path, trainer.history, test["confusion_matrix"], labels, _SMOOTHING)
    except ImportError as error:
        sys.stderr.write(f"smelt train: no pictures: {error}\n")
        return False
    return True
