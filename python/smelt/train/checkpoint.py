"""Everything that a run needs to go on with the same bits, in one file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._core import Tensor
from ..nn.module import Module
from ..serialization import exact, model_metadata, read_file, restored, write_file

if TYPE_CHECKING:
    from .history import History
    from .run import _Run
    from .trainer import Trainer


def write_model(trainer: Trainer, path: Path, history: History) -> None:
    """The model of a finished run."""
    last = history.rows[-1] if history.rows else {}
    write_file(path, "model", trainer.model.state_dict(), _metadata(trainer, last))


def _metadata(trainer: Trainer, measured: dict[str, Any]) -> dict[str, Any]:
    return model_metadata(trainer.model, trainer.labels, trainer.preprocess, measured, None)


def options(run: _Run) -> dict[str, Any]:
    """What makes a run the one that it is, as JSON values; what cannot be told is left out."""
    trainer, loader = run.trainer, run.loader
    optimizer, loss, schedule = trainer.optimizer, trainer.loss, trainer.schedule
    notes = [f"clip_norm={optimizer.clip_norm:g}"] if optimizer.clip_norm is not None else []
    notes += ["nesterov"] if getattr(optimizer, "nesterov", False) else []
    steps = run.epochs * len(loader)
    sampled = range(0, steps, 1 + steps // 20_000)
    found = {
        "monitor": run.monitor,
        "patience": None if run.patience is None else int(run.patience),
        "optimizer": " ".join([type(optimizer).__name__, *notes]),
        "loss": repr(loss) if isinstance(loss, Module) else getattr(loss, "__qualname__", type(loss).__name__),
        "precision": trainer.precision,
        "metrics": [metric.name for metric in trainer.metrics],
        "shuffle": bool(loader.shuffle),
        "drop_last": bool(loader.drop_last),
        "dataset": _fingerprint(loader.dataset),
        "validation": "none" if run.validation is None else _fingerprint(run.validation.dataset),
        "schedule": {  # the last: others change its length
            "name": "a function" if callable(schedule) else schedule or "constant",
            "factors": [float(run.factor(index)) for index in sorted({(steps - 1) * i // 8 for i in range(9)})],
            "mean": sum(float(run.factor(index)) for index in sampled) / len(sampled),
        },
    }
    return {name: value for name, value in found.items() if value is not None or name == "patience"}


def _fingerprint(dataset: Any) -> str | None:
    """None where there are values that are not finite: a run that they ended may go on with repaired ones."""
    arrays = [array for array in (dataset.x, dataset.y) if array is not None]
    if any(array.dtype.kind == "f" and not np.isfinite(array).all() for array in arrays):
        return None
    return f"sha256 {dataset.sha256()}"


def _check_same_run(run: _Run, notes: dict[str, Any]) -> None:
    """Another run is refused; what a checkpoint of an earlier version does not tell is taken to agree."""
    loader = run.loader
    counts = {"batch_size": loader.batch_size, "rows": len(loader.dataset), "seed": loader.seed, "epochs": run.epochs}
    old = {name: notes[name] for name in (*counts, "monitor") if name in notes}
    old.update(notes.get("options", {}))
    for name, value in {**counts, **run.options}.items():
        before = old.get(name, value)
        if name == "schedule":
            pairs = zip([*before["factors"], before["mean"]], [*value["factors"], value["mean"]])
            if all(math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) for a, b in pairs):
                continue  # the factors are what counts, and another machine's cosine may round otherwise
            before, value = (
                f"{s['name']} with factors {', '.join(f'{f:.4g}' for f in s['factors'])}, in the mean {s['mean']:.6g}"
                for s in (before, value)
            )
        if before != value:
            raise ValueError(f"resume: {name} must be that of the checkpoint, {before}, got {value}")


def write(run: _Run, path: Path) -> None:
    """Model, optimizer, random numbers, loader, history, best weights so far."""
    trainer = run.trainer
    optimizer = trainer.optimizer.state_dict()
    tensors: dict[str, Tensor] = {f"model.{name}": t for name, t in trainer.model.state_dict().items()}
    for state, values in optimizer["state"].items():
        tensors.update({f"optimizer.{state}.{parameter}": t for parameter, t in values.items()})
    if run.best is not None:
        tensors.update({f"best.{name}": t for name, t in run.best.items()})
    tensors["loader.position"] = _core.to_tensor([run.loader.epoch, run.loader.position])
    notes = {
        "options": run.options,
        "taken": run.taken,
        "steps": trainer.steps,
        "epochs": run.epochs,
        "batch_size": run.loader.batch_size,
        "rows": len(run.loader.dataset),
        "seed": run.loader.seed,
        "first_epoch": run.first_epoch,
        "base_rates": run.base_rates,
        "written_rates": run.written_rates,
        "random": list(_core.generator_state()),
        "optimizer": {key: optimizer[key] for key in ("steps", "skipped", "groups")},
        "history": run.history.rows,
        "mean": run.mean.state(),
        "metrics": [metric.state() for metric in trainer.metrics],
        "best_value": None if run.best is None else run.best_value,
        "stale_epochs": run.stale_epochs,
        "seconds": run.seconds,
    }
    last = run.history.rows[-1] if run.history.rows else {}
    write_file(path, "checkpoint", tensors, {**_metadata(trainer, last), "smelt.trainer": exact(notes)})


def restore(run: _Run, path: Path) -> None:
    """Puts a run where a checkpoint left it."""
    tensors, metadata = read_file(path)
    notes = restored(metadata.get("smelt.trainer"))
    if metadata.get("smelt.kind") != "checkpoint" or notes is None:
        raise ValueError(f"resume: {path} must be a checkpoint, it is a {metadata.get('smelt.kind')}")
    _check_same_run(run, notes)

    def part(prefix: str) -> dict[str, Tensor]:
        return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}

    trainer = run.trainer
    trainer.model.load_state_dict(part("model."))
    state: dict[str, dict[str, Tensor]] = {}
    for name, t in part("optimizer.").items():
        kind, _, parameter = name.partition(".")
        state.setdefault(kind, {})[parameter] = t
    trainer.optimizer.load_state_dict({**notes["optimizer"], "state": state})
    run.base_rates = list(notes["base_rates"])
    rates = [group.options()["lr"] for group in trainer.optimizer.groups]
    run.written_rates = list(notes.get("written_rates", rates))  # earlier versions did not note them
    epoch, position = tensors["loader.position"].tolist()
    run.loader.load_state_dict({"epoch": epoch, "position": position, "seed": notes["seed"]})
    _core.set_generator_state(*notes["random"])
    run.taken, trainer.steps, run.first_epoch = notes["taken"], notes["steps"], notes["first_epoch"]
    run.history.rows[:] = notes["history"]
    run.mean.load_state(notes["mean"])
    for metric, saved in zip(trainer.metrics, notes["metrics"]):
        metric.load_state(saved)
    run.best = part("best.") or None
    run.best_value = notes["best_value"] if notes["best_value"] is not None else run.best_value
    run.stale_epochs, run.seconds = notes["stale_epochs"], notes["seconds"]
