"""One call of `Trainer.fit`: where it stands, what happens after steps and epochs, and how it is saved."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .. import _core, metrics
from .._core import Tensor
from ..data import Loader
from ..data.loader import as_tensor
from ..schedule import get as _schedule
from . import checkpoint
from .callbacks import Callback
from .history import History
from .interrupt import Interrupt
from .progress import Progress
from .run_folder import RunFolder
from .steps import Step

if TYPE_CHECKING:
    from .trainer import Trainer

_log = logging.getLogger("smelt")


class _Run:
    """One call of fit: where it stands, and how it is saved."""

    def __init__(
        self,
        trainer: Trainer,
        loader: Loader,
        validation: Any,
        epochs: int,
        patience: int | None,
        monitor: str | None,
        folder: RunFolder | None,
        checkpoint_every: int | None,
        callbacks: list[Callback],
        handler: logging.Handler | None,
    ):
        self.trainer, self.loader, self.validation, self.epochs = trainer, loader, validation, epochs
        self.patience, self.folder, self.checkpoint_every, self.callbacks = (
            patience,
            folder,
            checkpoint_every,
            callbacks,
        )
        self.handler = handler
        self.monitor = monitor or "val_loss"
        self.first_epoch = self.loader.epoch  # of a loader that was used before
        self.factor = _schedule(trainer.schedule, epochs * len(loader))
        self.base_rates: list[float] = []  # of the groups: what the schedule multiplies
        self.written_rates: list[float] = []  # what it gave last
        self.take_rates()
        self.taken = 0  # steps of this run
        self.left_out = 0  # batches of this epoch in which no label counts
        self.open: list[tuple[Step, int, Any]] = []  # those not accounted for, their number and targets
        self.each_step = not all(_only_epochs(c) for c in callbacks)  # callbacks see a step before the next is taken
        self.history = History()
        self.mean = metrics.Loss()
        self.best: dict[str, Tensor] | None = None
        self.best_value = math.nan
        self.stale_epochs = 0
        self.seconds = 0.0
        self.options = {} if folder is None else checkpoint.options(self)
        trainer._recorder.retry()
        if not all(_passive(c) for c in callbacks):
            trainer._recorder.off = (
                "a callback runs after each step; passive = True in it says that it changes nothing for a step"
            )
        for metric in trainer.metrics:
            metric.reset()

    def log(self, message: str, *values: Any) -> None:
        """To the logger, and into log.txt whatever level the logger has."""
        _log.info(message, *values)
        if self.handler is not None:
            self.handler.handle(_log.makeRecord(_log.name, logging.INFO, __file__, 0, message, values, None))

    def restore(self) -> None:
        assert self.folder is not None
        self.folder.prune()
        path = self.folder.latest_checkpoint()
        if path is None:
            self.log("no checkpoint in %s: starting anew", self.folder.path)
            return
        checkpoint.restore(self, path)
        self.log("resumed from %s", path)

    def save(self) -> None:
        assert self.folder is not None
        path = self.folder.checkpoint_path(self.taken)
        checkpoint.write(self, path)
        self.folder.prune()
        self.log("wrote %s", path)

    def go(self) -> History:
        trainer = self.trainer
        trainer.history, trainer.stop = self.history, self.out_of_patience()
        started = time.perf_counter() - self.seconds
        for callback in self.callbacks:
            callback.on_fit_begin(trainer)
        with Interrupt() as interrupt, Progress(self.epochs, len(self.loader)) as progress:
            while self.epoch < self.epochs and not trainer.stop:
                trainer.model.train()
                _core.note_change("an epoch")  # validation and callbacks ran: compare the next step with its recording
                progress.begin(self.epoch, self.loader.position)
                for x, y in self.batches():
                    taken = self.step(x, y, progress)
                    self.seconds = time.perf_counter() - started
                    if taken and self.checkpoint_every and self.taken % self.checkpoint_every == 0:
                        self.save()
                    if interrupt.requested:
                        self.account(progress)
                        self.interrupted()
                    if trainer.stop:
                        break
                self.account(progress)
                if not trainer.stop or self.loader.position == 0:
                    self.seconds = time.perf_counter() - started
                    self.end_epoch(progress)
                    if interrupt.requested:
                        self.interrupted()
        return self.finish()

    @property
    def epoch(self) -> int:
        """Epochs of this run that are complete."""
        return self.loader.epoch - self.first_epoch

    def take_rates(self) -> None:
        """A learning rate that is not the one written last was set from outside, by a callback: the new base."""
        for i, group in enumerate(self.trainer.optimizer.groups):
            rate = group._options["lr"]
            if i == len(self.base_rates):  # the group is new
                self.base_rates.append(rate)
                self.written_rates.append(rate)
            elif rate != self.written_rates[i]:
                self.base_rates[i] = rate

    def write_rates(self, factor: float) -> None:
        self.take_rates()
        self.written_rates = [base * factor for base in self.base_rates]
        self.trainer.optimizer._set_rates(self.written_rates)

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """Inputs and targets of this epoch's steps; of a dataset on the trainer's device, the rows and the targets here.
        Others come from the host, where they are looked at, by the trainer's own way."""
        loader = self.loader
        if (
            loader.device != self.trainer.device
            or loader.device == "cpu"
            or type(loader).__iter__ is not Loader.__iter__
        ):
            yield from loader
            return
        for picked in loader._picks():
            if not loader.resident:
                x, y = picked.parts()
                yield as_tensor(x), as_tensor(y)
                continue
            yield picked, picked.loader.dataset[picked.rows][1]

    def step(self, x: Any, y: Any, progress: Progress) -> bool:
        """Takes a step. False where no label of the batch counts: its loss is the mean of nothing."""
        trainer = self.trainer
        if trainer._nothing_counts(y):
            self.left_out += 1
            progress.leave_out()
            return False
        self.write_rates(self.factor(self.taken))
        step = trainer._step(x, y, self.loader.rows)
        self.taken += 1
        self.open.append((step, self.taken, y))
        saves = self.checkpoint_every and self.taken % self.checkpoint_every == 0
        self.account(progress, 0 if step.settled or self.each_step or saves else 1)
        return True

    def account(self, progress: Progress, leave: int = 0) -> None:
        """Counts the steps of which nobody has asked for the loss, but for the last ones, which a GPU may still be at."""
        while len(self.open) > leave:
            step, number, y = self.open.pop(0)
            step.settle()
            self.trainer._score(self.mean, step.value, step.results[1], y)
            progress.step(step.value, step.lr)
            for callback in self.callbacks:
                callback.on_step_end(self.trainer, number, step.value)

    def end_epoch(self, progress: Progress) -> None:
        trainer = self.trainer
        row: dict[str, Any] = {
            "epoch": self.epoch,
            "step": self.taken,
            "seconds": round(self.seconds, 3),
            "lr": trainer.optimizer.lr,
            "train_loss": self.mean.compute(),
        }
        row.update({f"train_{m.name}": v for m in trainer.metrics if isinstance(v := m.compute(), (int, float))})
        if self.validation is not None:
            report = trainer.evaluate(self.validation)
            row.update({f"val_{name}": value for name, value in report.items() if isinstance(value, (int, float))})
        self.mean.reset()
        for metric in trainer.metrics:
            metric.reset()
        if self.left_out:
            self.log("no label counts in %d batches of the epoch: left out", self.left_out)
            self.left_out = 0
        self.history.rows.append(row)
        if self.validation is not None:
            self.keep_best(row)
        progress.end_epoch()
        for callback in self.callbacks:
            callback.on_epoch_end(trainer, row)
        self.log("epoch %d of %d: %s", self.epoch, self.epochs, {k: v for k, v in row.items() if k != "epoch"})
        if self.folder is not None:
            self.folder.write_history(self.history)
            if self.checkpoint_every is None:
                self.save()

    def keep_best(self, row: dict[str, Any]) -> None:
        if self.monitor not in row:
            raise ValueError(f"Trainer: monitor must be one of {', '.join(row)}, got {self.monitor!r}")
        value = float(row[self.monitor])
        better = value < self.best_value if self.monitor.endswith("loss") else value > self.best_value
        if better or math.isnan(self.best_value):
            self.best_value, self.stale_epochs = value, 0
            self.best = {name: t.copy() for name, t in self.trainer.model.state_dict().items()}
            return
        self.stale_epochs += 1
        if self.out_of_patience():
            self.log("no better %s for %d epochs: stopping", self.monitor, self.patience)
            self.trainer.stop = True

    def out_of_patience(self) -> bool:
        return self.patience is not None and self.stale_epochs >= self.patience

    def interrupted(self) -> None:
        if self.folder is not None:
            self.save()
        where = f"; go on with resume from {self.folder.path}" if self.folder is not None else ""
        raise KeyboardInterrupt(f"interrupted after step {self.taken}{where}")

    def finish(self) -> History:
        trainer = self.trainer
        if self.best is not None:
            trainer.model.load_state_dict(self.best)
        self.write_rates(1.0)
        self.log("training steps: %s", trainer.recording)
        trainer.model.eval()
        if self.folder is not None:
            self.folder.write_history(self.history)
            checkpoint.write_model(trainer, self.folder.path / "model.safetensors", self.history)
        for callback in self.callbacks:
            callback.on_fit_end(trainer)
        return self.history


def _only_epochs(callback: Any) -> bool:
    """Whether a callback has nothing to do after a step."""
    return getattr(type(callback), "on_step_end", None) in (None, Callback.on_step_end)


def _passive(callback: Any) -> bool:
    """Whether steps may be recorded with this callback."""
    return _only_epochs(callback) or bool(getattr(callback, "passive", False))
