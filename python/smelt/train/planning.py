"""Memory of a training step before training: a walk through the step on tensors without memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _changes, _core, losses
from .._core import Tensor
from ..autograd import no_grad
from ..nn.layers import Linear
from ..nn.module import evaluating
from ..recorded import Plan

if TYPE_CHECKING:
    from .trainer import Trainer

Kind = tuple[tuple[int, ...], str]  # shape of a row, dtype


def plan_step(trainer: Trainer, batch_size: int, data: Any) -> Plan:
    """See `Trainer.plan`."""
    if not isinstance(batch_size, (int, np.integer)) or isinstance(batch_size, bool) or batch_size < 1:
        raise ValueError(f"Trainer: batch_size must be a whole number of at least 1, got {batch_size!r}")
    random = _changes.random_state()
    trainer.optimizer._core.pack()
    try:
        with evaluating(trainer.model):  # puts the modes back
            trainer.model.train()
            x, y = _rows(trainer, data, batch_size)
            step = _walk(trainer, x, y, batch_size)
            if step.refusal:  # the end of another optimizer, in Python's collector, refuses too
                step = _walk(trainer, x, y, batch_size)
    finally:
        _changes.put_back_random_state(random)
    if step.refusal:
        raise ValueError(
            f"Trainer: a step's memory is known before training where it can be recorded, here {step.refusal}"
        )
    return Plan(_core.Plan(step, _core.Arena()))


def _walk(trainer: Trainer, x: Kind, y: Kind, batch_size: int) -> _core.RecordedStep:
    if trainer._transfer is not None:
        trainer._transfer.buffers(trainer.model)
    _changes.count_recordings(1)  # modules say what stands against a recording
    batch = [_core.placeholder([batch_size, *shape], dtype, trainer.device) for shape, dtype in (x, y)]
    recorder = _core.Recorder(batch, True)
    given: list[Tensor] = []
    try:
        inputs, targets = recorder.inputs()
        if trainer._transfer is not None:
            given += trainer._guarded([inputs, targets], inputs)
        else:
            given += trainer._forward(inputs, targets, inputs)
            recorder.cut()
            trainer._backward(given[0])
    finally:
        step = recorder.finish(given)
        _changes.count_recordings(-1)
    return step


def _rows(trainer: Trainer, data: Any, batch_size: int) -> tuple[Kind, Kind]:
    """Shapes and dtypes of the rows of a batch."""
    if data is not None:
        dataset = trainer._loader("data", data, batch_size, shuffle=False).dataset
        x, y = trainer._batch(*dataset[np.zeros(1, np.int64)])
        return _kind(x), _kind(y)
    if trainer._rows is not None:
        kinds: tuple[Kind, Kind] = trainer._rows
        return kinds
    first = next((m for m in trainer.model.modules() if not list(m.named_children())), None)
    if not isinstance(first, Linear):
        raise ValueError(
            "Trainer: plan needs data=..., for the shapes of its rows; only what a Linear as the first layer takes is "
            f"known, the model begins with {type(first).__name__}"
        )
    x_kind: Kind = ((first.weight.shape[1],), first.weight.dtype.name)
    with no_grad():
        recorder = _core.Recorder([], True)
        try:
            outputs = trainer.model(_core.placeholder([batch_size, *x_kind[0]], x_kind[1], trainer.device))
        finally:
            recorder.finish([])
    labels = trainer.loss is losses.cross_entropy
    return x_kind, (outputs.shape[1:-1], "int64") if labels else (outputs.shape[1:], outputs.dtype.name)


def _kind(x: Tensor) -> Kind:
    return x.shape[1:], x.dtype.name
