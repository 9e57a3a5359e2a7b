"""Everything that a run needs to go on with the same bits, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import _core
from .._core import Tensor
from ..serialization import model_metadata, read_file, write_file

if TYPE_CHECKING:
    from .history import History
    from .trainer import Trainer, _Run


def write_model(trainer: Trainer, path: Path, history: History) -> None:
    """The model of a finished run."""
    last = history.rows[-1] if history.rows else {}
    write_file(path, "model", trainer.model.state_dict(), _metadata(trainer, last))


def _metadata(trainer: Trainer, measured: dict[str, Any]) -> dict[str, Any]:
    return model_metadata(trainer.model, trainer.labels, trainer.preprocess, measured, None)


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
        "monitor": run.monitor,
        "best_value": None if run.best is None else run.best_value,
        "stale_epochs": run.stale_epochs,
        "seconds": run.seconds,
    }
    last = run.history.rows[-1] if run.history.rows else {}
    write_file(path, "checkpoint", tensors, {**_metadata(trainer, last), "smelt.trainer": notes})


def restore(run: _Run, path: Path) -> None:
    """Puts a run where a checkpoint left it."""
    tensors, metadata = read_file(path)
    notes = metadata.get("smelt.trainer")
    if metadata.get("smelt.kind") != "checkpoint" or notes is None:
        raise ValueError(f"resume: {path} must be a checkpoint, it is a {metadata.get('smelt.kind')}")
    for key, value in (
        ("batch_size", run.loader.batch_size),
        ("rows", len(run.loader.dataset)),
        ("seed", run.loader.seed),
        ("epochs", run.epochs),
    ):
        if notes[key] != value:
            raise ValueError(f"resume: {key} must be that of the checkpoint, {notes[key]}, got {value}")

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
