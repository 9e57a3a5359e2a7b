"""The trainer: fit, evaluate and predict, with checkpoints and exact resume."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import _core, losses, metrics, optim
from .._core import Tensor
from ..autograd import no_grad
from ..data import Loader
from ..data.dataset import as_dataset
from ..data.loader import Picked
from ..metrics import get as _get_metric
from ..nn.module import Module, evaluating
from ..precision import autocast, working_dtype
from ..recorded import Plan, Recorder, Same, state_of
from ..schedule import get as _schedule
from .callbacks import Callback
from .counted import counted, ignored_label, nothing_counts, on_host, takes_classes, weight_of
from .history import History
from .inference import predict, resolve_device, wide
from .planning import plan_step
from .run import _Run
from .run_folder import RunFolder
from .steps import Step, Transfer, check_finite, not_finite

__all__ = ["Trainer"]

_log = logging.getLogger("smelt")


class Trainer:
    """Trains a model, measures it and predicts with it.

    Args:
        model: takes a batch of inputs, returns outputs.
        loss: a name as in :func:`smelt.losses.get`, or a function of outputs and targets. Means over an epoch or a dataset
            are over the labels that count, weighted as the loss weighs them; of a function of your own over rows, or,
            where it has an attribute ``ignore_index``, over the labels that are not that.
        optimizer: an optimizer over the model's parameters, or ``"adamw"``, ``"adam"`` or ``"sgd"``.
        metrics: names as in :func:`smelt.metrics.get`, or :class:`smelt.metrics.Metric` objects; one name may stand alone.
        device: ``"auto"`` (a GPU where there is one), ``"cpu"`` or ``"cuda"``.
        precision: ``"float32"`` (``"fp32"``), or ``"bf16"``: forward passes under :class:`smelt.autocast`, float32 weights.
        lr: learning rate, when the optimizer is given by name.
        schedule: a name as in :func:`smelt.schedule.get`, or a function from the step's number to a factor.
        preprocess: turns raw inputs into the model's, such as a :class:`smelt.data.ImagePreprocess`; saved with the model.
        labels: names of the classes; saved with the model.
        seed: of the order of the training rows.

    Attributes:
        model: the model.
        optimizer: the optimizer.
        history: the rows of the last ``fit``.
        stop: set it True to end ``fit`` after the current step.

    Raises:
        ValueError: a name is unknown, or the optimizer has none of the model's parameters.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
        >>> y = (x.sum(1) > 0).astype("int64")
        >>> trainer = smelt.Trainer(nn.Linear(4, 2), lr=0.1, metrics=["accuracy"])
        >>> history = trainer.fit((x, y), epochs=5, batch_size=16)
        >>> trainer.evaluate((x, y))["accuracy"] > 0.9
        True
    """

    def __init__(
        self,
        model: Module,
        loss: Any = "cross_entropy",
        optimizer: optim.Optimizer | str = "adamw",
        metrics: Sequence[Any] = (),
        device: str = "auto",
        precision: str = "float32",
        lr: float = 1e-3,
        schedule: Any = None,
        preprocess: Any = None,
        labels: Sequence[str] | None = None,
        seed: int = 0,
    ):
        self.precision = working_dtype("Trainer: precision", precision)
        self.device = resolve_device(device)
        self.model = model.to(self.device) if self.device != "cpu" else model
        self.loss = losses.get(loss)
        self.optimizer = (
            optim.get(optimizer, model.named_parameters(), lr=lr) if isinstance(optimizer, str) else optimizer
        )
        self.metrics = [_get_metric(m) for m in ([metrics] if isinstance(metrics, str) else metrics)]
        self.schedule = schedule
        _schedule(schedule, 1)
        self._check_optimizer()
        self.preprocess = preprocess
        self.labels = None if labels is None else list(labels)
        self.seed = seed
        self.history = History()
        self.stop = False
        self._steps = 0
        self._recorder = Recorder("the training step")
        self._rows: Any = None  # shapes and dtypes of the last step's rows
        self._transfer = None if self.device == "cpu" else Transfer(self.device)
        self._readouts: list[_core.Readout] = []  # that are not in use
        self._open: list[Step] = []  # that were given to a GPU and are not settled
        if self._transfer is not None:
            self.optimizer._core.retract()  # what another trainer may have left

    def _check_optimizer(self) -> None:
        """An optimizer over another model's parameters would train that one."""
        own = {id(p) for p in self.model.parameters()}
        if own.isdisjoint(id(p) for _, p in self.optimizer._given):
            names = ", ".join([name for name, _ in self.optimizer._given][:3])
            raise ValueError(
                f"Trainer: the optimizer must have parameters of the model, it has {names} ... of another; "
                "make it with model.parameters()"
            )

    def __repr__(self) -> str:
        model = type(self.model).__name__
        loss = getattr(self.loss, "__name__", None) or repr(self.loss)
        return (
            f"Trainer({model} with {sum(p.size for p in self.model.parameters()):,} parameters, loss={loss}, "
            f"optimizer={self.optimizer}, metrics={[m.name for m in self.metrics]}, schedule={self.schedule!r}, "
            f"device={self.device!r}, {self.steps} steps)"
        )

    # ---------------------------------------------------------------------------------------------------------- steps

    def _batch(self, x: Any, y: Any) -> list[Tensor]:
        """A batch as the model takes it, or the numbers of rows that lie on the device."""
        if isinstance(x, Picked):
            return [x.numbers()]
        with _named(x):
            inputs = _core.to_tensor(self.preprocess(x) if self.preprocess is not None else x)
            targets = _core.to_tensor(y)
            if self._transfer is not None:
                inputs, targets = self._transfer.to_device(inputs), self._transfer.to_device(targets)
            return [_core.dense(inputs), _core.dense(targets)]

    def _forward(self, inputs: Tensor, targets: Tensor, x: Any) -> tuple[Tensor, Tensor]:
        """Loss and outputs of a batch."""
        with _named(x), autocast(self.precision):
            outputs = self.model(inputs)
            return self.loss(outputs, targets), outputs

    def _check_loss(self, loss: Tensor, x: Any, y: Any, rows: Any) -> float:
        """The loss as a number; a step with one that is not finite is refused before it can touch the weights."""
        value = loss.item()
        if math.isfinite(value):
            return float(value)
        check_finite("Trainer: inputs", x, rows, f"step {self.steps + 1}")
        check_finite("Trainer: targets", y, rows, f"step {self.steps + 1}")
        raise RuntimeError(not_finite(float(value), self.steps + 1, self.optimizer.lr))

    def step(self, x: Any, y: Any) -> Tensor:
        """One training step: forward, backward, update.

        Args:
            x: a batch of inputs.
            y: its targets.

        Returns:
            The loss, a tensor () off the tape.

        Raises:
            ValueError: shapes disagree, the message naming the layer; or the inputs are not finite; or the loss ignores
                every label.
            RuntimeError: the loss is not finite; the weights are unchanged. On a GPU the step after it raises this, or
                what the trainer is asked for next, and neither of the two has changed anything.

        Example:
            >>> trainer = smelt.Trainer(nn.Linear(4, 2))
            >>> loss = trainer.step(smelt.ones(8, 4), smelt.zeros(8, dtype="int64"))
            >>> loss.shape
            ()
        """
        if self._nothing_counts(y):
            raise ValueError(self._all_ignored("the batch"))
        if not self.model.training:  # else what a layer was set to by itself stays
            self.model.train()
        try:
            step = self._step(x, y, scored=False)
            loss = step.results[0]
            self._settle(1)
        except BaseException:
            self._retract()
            raise
        return loss

    def _nothing_counts(self, y: Any) -> bool:
        """Whether the loss counts no label of some that are there."""
        labels = on_host(y)
        return labels is not None and nothing_counts(self.loss, labels)

    def _all_ignored(self, where: str) -> str:
        return (
            f"Trainer: a label must count, every label of {where} is {ignored_label(self.loss)}, which the loss ignores, "
            "or of a class without weight"
        )

    def _settle(self, leave: int = 0) -> None:
        """Waits for steps that were given to a GPU, but for the last ones, and raises what one of them met."""
        try:
            while len(self._open) > leave:
                self._open[0].settle()
        except BaseException:  # a failure, or Ctrl-C while it waited
            self._retract()
            raise

    def _retract(self, failed: Step | None = None) -> None:
        """Ends the open steps; those that failed were not taken. Of `failed` and what comes after it, that is known."""
        if self._transfer is None:
            return
        before = self.optimizer._core.given_steps
        self.optimizer._core.retract()
        lost = before - self.optimizer._core.given_steps
        first = failed.number if failed is not None else self._steps - min(lost, len(self._open)) + 1
        self._steps = min(self._steps, first - 1)
        self._open.clear()

    def _step(self, x: Any, y: Any, rows: Any = None, scored: bool = True) -> Step:
        """A step whose loss is wanted, and, where it is scored, its outputs."""
        # Infinity may give a finite loss, by tanh for one, and gradients that are NaN.
        for what, values in (("inputs", x), ("targets", y)):
            if isinstance(values, np.ndarray) or (isinstance(values, Tensor) and values.device == "cpu"):
                check_finite(f"Trainer: {what}", values, rows, f"step {self._steps + 1}")  # of others the loss tells
        batch = self._batch(x, y)
        source = None
        if isinstance(x, Picked):
            source = Same(x.loader)
        else:
            self._rows = tuple((t.shape[1:], t.dtype.name) for t in batch)
        kind = tuple((t.shape, t.dtype.name, t.requires_grad) for t in batch)
        parts = (Same(self.model), Same(self.optimizer), Same(self.loss), state_of(self.loss), source)
        kept = self._recorder.lookup((kind, self.precision, parts), batch)
        step = None
        try:
            if self._transfer is not None:
                if kept is not None:
                    step = self._replay_behind(kept.plan, batch, scored)
                return step if step is not None else self._run_behind(batch, x, scored)
            if kept is not None:
                step = self._replay(kept.plan, batch)
            return step if step is not None else self._run(batch, x, y, rows)
        except MemoryError as error:
            raise MemoryError(f"{error}{self._needs(batch)}") from None

    def _needs(self, batch: list[Tensor]) -> str:
        """What a step needs, for an error about memory."""
        try:
            needs = plan_step(self, len(batch[0]), None).memory()
        except (ValueError, RuntimeError, MemoryError):
            return ""
        return f"; recorded, a step of {len(batch[0])} rows needs {needs} bytes besides model and optimizer"

    def _taken(self, loss: Tensor, outputs: Tensor, value: float) -> Step:
        self._steps += 1
        return Step(self, [loss, wide(outputs)], value)

    def _run(self, batch: list[Tensor], x: Any, y: Any, rows: Any) -> Step:
        """A step on the CPU: the loss is looked at before anything changes."""
        before = [(buffer, buffer.copy()) for _, buffer in self.model.named_buffers()]
        try:
            try:
                inputs, targets = self._recorder.start(batch)
                loss, outputs = self._forward(inputs, targets, x)
                self._recorder.pause()
                value = self._check_loss(loss, x, y, rows)
            except Exception:
                self._recorder.pause()
                for buffer, old in before:  # running statistics are written in forward
                    buffer.copy_(old)
                raise
            self._recorder.resume()
            self._backward(loss)
            self._recorder.finish([loss, outputs], (self.model, self.loss))
        except BaseException:
            self._recorder.abandon()
            raise
        return self._taken(loss.detach(), outputs.detach(), value)

    def _run_behind(self, batch: list[Tensor], x: Any, scored: bool) -> Step:
        """A step on a GPU: kernels look at the loss, and the program at what they found, when the next step is on its way."""
        try:
            loss, outputs = self._guarded(self._recorder.start(batch), x)
            self._recorder.finish([loss, outputs], (self.model, self.loss))
        except BaseException:
            self._recorder.abandon()
            raise
        results = [loss.detach(), wide(outputs.detach())] if scored else [loss.detach()]
        return self._sent(results, self._readouts.pop() if self._readouts else _core.Readout(self.device))

    def _guarded(self, batch: list[Tensor], x: Any) -> tuple[Tensor, Tensor]:
        """Forward, backward and update, none of which has an effect where the loss is not finite."""
        assert self._transfer is not None
        if isinstance(x, Picked):
            batch = self._batch(*x.tensors(batch[0]))
        inputs, targets = batch
        buffers = self._transfer.buffers(self.model)
        before = None if buffers is None else buffers.copy()
        try:
            loss, outputs = self._forward(inputs, targets, x)
            self._backward(loss)
        except BaseException:
            if buffers is not None and before is not None:
                buffers.copy_(before)
            raise
        if buffers is not None and before is not None:
            self.optimizer._core.restore_if_failed(buffers, before)
        return loss, outputs

    def _replay_behind(self, plan: _core.Plan, batch: list[Tensor], scored: bool) -> Step | None:
        """A step from its graph. None where memory does not suffice: nothing is changed, and steps run from now on."""
        try:
            fresh = plan.prepare(0 if scored else 1)
            results = plan.views(batch, 2) if scored else fresh
            readout = self._readouts.pop() if self._readouts else _core.Readout(self.device)
            readout.reserve([*results, self.optimizer._core.status()])
        except MemoryError:
            self._recorder.give_up(
                f"its plan needs {plan.memory()} bytes in one piece, which are not free on {self.device}"
            )
            return None
        plan.replay(0, batch)
        if not scored:
            plan.copy_outputs(batch, fresh)
        elif results[1].dtype.name == "bfloat16":
            results[1] = wide(results[1])
        return self._sent(results, readout)

    def _sent(self, results: list[Tensor], readout: _core.Readout) -> Step:
        self._steps += 1
        return Step(self, results).read_out(readout)

    def _backward(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        if self._transfer is None:
            self.optimizer.step()
        else:
            self.optimizer._step(loss)

    def _replay(self, plan: _core.Plan, batch: list[Tensor]) -> Step | None:
        """A step from its recording. None where the forward pass fails: nothing is changed, and the step itself says why."""
        try:
            plan.replay(0, batch)
            loss, outputs = plan.outputs(batch)
            value = loss.item()
        except (IndexError, RuntimeError, MemoryError):
            value = math.nan
        except BaseException:
            plan.undo()
            raise
        if not math.isfinite(value):
            plan.undo()
            return None
        plan.replay(1, batch)
        return self._taken(loss, outputs, value)

    @property
    def steps(self) -> int:
        """How many training steps were taken."""
        _core.refuse_recording("it reads the trainer's count of steps")
        self._settle()
        return self._steps

    @steps.setter
    def steps(self, value: int) -> None:
        self._steps = value

    @property
    def recording(self) -> str:
        """What has become of the recording of training steps, in a sentence: plans and replays, or why there are none."""
        return self._recorder.describe()

    def plan(self, batch_size: int = 64, data: Any = None) -> Plan:
        """What a training step will run, and the memory that it will need, without running it.

        Walks through a step on tensors without memory. The parameters move into the optimizer's flat buffer, as they would
        at the first step.

        Args:
            batch_size: rows of the step.
            data: a dataset, a pair (x, y) or a :class:`smelt.data.Loader`, for the shapes of its rows. By default those
                of the last step, or, before the first, what the model's first layer takes, if that is a Linear.

        Returns:
            The plan; its ``memory()`` is that of the recorded step, to the byte.

        Raises:
            ValueError: the shapes are not known, data and model disagree, or the step cannot be recorded.

        Example:
            >>> trainer = smelt.Trainer(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
            >>> trainer.plan(batch_size=64).memory() < trainer.plan(batch_size=128).memory()
            True
        """
        with _named(None):
            return plan_step(self, batch_size, data)

    # ------------------------------------------------------------------------------------------------------------ fit

    def fit(
        self,
        train: Any,
        validation: Any = None,
        epochs: int = 10,
        batch_size: int = 64,
        callbacks: Iterable[Callback] = (),
        shuffle: bool = True,
        drop_last: bool = False,
        patience: int | None = None,
        monitor: str | None = None,
        out: Any = None,
        checkpoint_every: int | None = None,
        resume: bool = False,
    ) -> History:
        """Trains for some epochs.

        With a validation set, the weights of the epoch with the best ``monitor`` are put back at the end. With ``out``,
        the run folder gets history, checkpoints and the model; a run that was broken off there goes on with
        ``resume=True`` and ends with the same bits as one that was not. A batch whose labels the loss ignores, all of them,
        is no step: it is left out, as in ``evaluate``. A learning rate that a callback sets is from
        then on the base that the schedule multiplies; afterwards the optimizer has the base, also after an error.

        Args:
            train: a dataset, a pair of arrays (x, y), or a :class:`smelt.data.Loader`.
            validation: likewise, or None.
            epochs: how often every row is seen, at least 1.
            batch_size: rows of a step.
            callbacks: :class:`smelt.train.Callback` objects.
            shuffle: a new order each epoch.
            drop_last: leave out a last batch that is not full.
            patience: end after so many epochs without a better ``monitor``.
            monitor: a column of the history, ``"val_loss"`` by default; losses are better when lower, all else higher.
            out: run folder, a path (new or empty unless ``resume``) or a :class:`smelt.train.RunFolder`.
            checkpoint_every: steps between checkpoints, by default one at the end of each epoch.
            resume: go on from the last checkpoint in ``out``.

        Returns:
            The history, one row for each epoch.

        Raises:
            ValueError: an option is out of range, or data and model disagree, the message naming the layer; or the loss
                ignores every label.
            FileExistsError: ``out`` has files and ``resume`` is False.
            KeyboardInterrupt: after Ctrl-C, at the end of the step and with a checkpoint written; at once on a second.

        Example:
            >>> x, y = np.eye(8, dtype="float32"), np.arange(8) % 2
            >>> trainer = smelt.Trainer(nn.Linear(8, 2), lr=0.1)
            >>> history = trainer.fit((x, y), epochs=3, batch_size=4)
            >>> len(history), history["epoch"]
            (3, [1, 2, 3])
        """
        for name, value in (("epochs", epochs), ("batch_size", batch_size)):
            if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
                raise ValueError(f"Trainer: {name} must be a whole number of at least 1, got {value!r}")
        if patience is not None and (patience < 1 or validation is None):
            raise ValueError(f"Trainer: patience must be at least 1 and needs a validation set, got {patience}")
        if checkpoint_every is not None and (checkpoint_every < 1 or out is None):
            raise ValueError(f"Trainer: checkpoint_every must be at least 1 and needs out, got {checkpoint_every}")
        if resume and out is None:
            raise ValueError("Trainer: resume needs out, the folder of the run to go on with")
        columns = [f"{part}_{name}" for part in ("train", "val") for name in ("loss", *(m.name for m in self.metrics))]
        if monitor is not None and monitor not in columns:
            raise ValueError(f"Trainer: monitor must be one of {', '.join(columns)}, got {monitor!r}")
        self._settle()
        loader = self._loader("train", train, batch_size, shuffle, drop_last)
        if loader.device not in ("cpu", self.device):
            allowed = " or ".join(dict.fromkeys(("cpu", self.device)))
            raise ValueError(f"Trainer: the loader's device must be {allowed}, got {loader.device}")
        self._check_labels(loader.dataset.y)
        if loader.dataset.y is not None and self._nothing_counts(loader.dataset.y):
            raise ValueError(self._all_ignored("the dataset"))
        if loader.resident:  # no step will look
            check_finite("Trainer: inputs", loader.dataset.x, np.arange(len(loader.dataset)), "the dataset")
            check_finite("Trainer: targets", loader.dataset.y, np.arange(len(loader.dataset)), "the dataset")
        if validation is not None:
            validation = self._loader("validation", validation, 256, shuffle=False)
        folder = out if out is None or isinstance(out, RunFolder) else RunFolder(out, resume)
        handler = folder.log_handler() if folder is not None else None
        try:
            run = _Run(
                self, loader, validation, epochs, patience, monitor, folder, checkpoint_every, list(callbacks), handler
            )
            try:
                if resume:
                    run.restore()
                return run.go()
            except BaseException:
                self._retract()
                raise
            finally:
                run.write_rates(1.0)  # whatever happened: the next run's base is not a rate of this one's schedule
        finally:
            if handler is not None:
                handler.close()

    def _check_labels(self, y: Any) -> None:
        """Names that do not cover the classes would leave some predictions without one."""
        if self.labels is None or y is None or y.ndim != 1 or y.dtype.kind not in "iu" or not y.size:
            return
        if int(y.max()) >= len(self.labels):
            raise ValueError(
                f"Trainer: labels must name every class, got {len(self.labels)} names and class {int(y.max())}"
            )

    def _loader(self, name: str, source: Any, batch_size: int, shuffle: bool, drop_last: bool = False) -> Loader:
        if isinstance(source, Loader):
            return source
        dataset = as_dataset(f"Trainer: {name}", source, "a dataset, a Loader or a pair (x, y)")
        if dataset.y is None:
            raise ValueError("Trainer: the dataset must have targets, got y=None")
        if takes_classes(self.loss) and dataset.y.dtype.kind == "f":
            raise TypeError(
                f'Trainer: cross_entropy: labels must be integers, got {dataset.y.dtype}; use y.astype("int64")'
            )
        return Loader(dataset, batch_size, shuffle, self.seed, drop_last)

    # --------------------------------------------------------------------------------------------- evaluate and predict

    def evaluate(self, dataset: Any, batch_size: int = 256) -> dict[str, Any]:
        """Loss and metrics over a dataset, the model in evaluation mode. None of them depends on ``batch_size``, but by
        rounding, as long as the loss is a mean over labels or rows.

        Args:
            dataset: a dataset, a pair of arrays (x, y), or a loader: a whole epoch of it, wherever it stands.
            batch_size: rows at once.

        Returns:
            ``{"loss": ..., <metric>: ...}``.

        Raises:
            ValueError: data and model disagree, the message naming the layer; or values are not finite.

        Example:
            >>> trainer = smelt.Trainer(nn.Linear(2, 2), metrics=["accuracy"])
            >>> sorted(trainer.evaluate((np.ones((4, 2), "float32"), np.zeros(4, "int64"))))
            ['accuracy', 'loss']
        """
        self._settle()
        mean = metrics.Loss()
        for metric in self.metrics:
            metric.reset()
        loader = copy.copy(self._loader("dataset", dataset, batch_size, shuffle=False))
        loader.position = 0  # the whole epoch, and a loader of the caller's stays where it stands
        with evaluating(self.model), no_grad():
            for x, y in loader:
                check_finite("Trainer: inputs", x, loader.rows)
                check_finite("Trainer: targets", y, loader.rows)
                inputs, targets = self._batch(x, y)
                loss, outputs = self._forward(inputs, targets, x)
                self._score(mean, loss.item(), wide(outputs), y)
        return {"loss": mean.compute(), **{m.name: m.compute() for m in self.metrics}}

    def _score(self, mean: metrics.Loss, value: float, outputs: Tensor, y: Any) -> None:
        """Adds a batch to the mean loss and the metrics; labels that the loss ignores do not count."""
        labels = np.asarray(y.numpy() if isinstance(y, Tensor) else y)
        weight, mask = weight_of(self.loss, labels), counted(self.loss, labels)
        mean.add(value if weight else 0.0, weight)
        scores: Any = outputs
        if mask is not None:
            scores, labels = outputs.numpy()[mask], labels[mask]
        for metric in self.metrics:
            metric.update(scores, labels)

    def predict(self, x: Any, batch_size: int = 256) -> Tensor:
        """The model's outputs for inputs, in evaluation mode.

        Args:
            x: inputs (N, ...), an array, a tensor or a dataset.
            batch_size: rows at once.

        Returns:
            Tensor (N, ...) of outputs, such as the logits of each class.

        Raises:
            ValueError: data and model disagree, the message naming the layer; or the inputs are not finite.

        Example:
            >>> smelt.Trainer(nn.Linear(2, 3)).predict(np.ones((4, 2), "float32")).shape
            (4, 3)
        """
        self._settle()
        return predict(self.model, x, self.preprocess, self.device, batch_size, self.precision)


@contextmanager
def _named(x: Any) -> Iterator[None]:
    """Errors of a batch say that they come from the trainer, and what helps."""
    try:
        yield
    except (ValueError, TypeError, IndexError, RuntimeError, MemoryError) as error:
        if len(error.args) == 1 and isinstance(error.args[0], str) and not error.args[0].startswith("Trainer: "):
            error.args = (f"Trainer: {error.args[0]}{_hint(error.args[0], x)}",)
        raise


def _hint(message: str, x: Any) -> str:
    """What to do about an error that data and options of the trainer lead to."""
    dtype = str(getattr(x, "dtype", ""))
    if "both must have one dtype" in message and dtype and "float" not in dtype:
        return f'; the inputs are {dtype}: use x.astype("float32"), or a preprocess'
    if "batch_norm: training needs more than 1 value" in message:
        return "; a last batch of one row is left out with drop_last=True"
    return ""
