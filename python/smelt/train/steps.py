"""Training steps that were taken. On a GPU the program does not wait for one before it gives the device the next."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._core import Tensor

if TYPE_CHECKING:
    from .trainer import Trainer


class Step:
    """A step: its results, which are the loss () and perhaps the outputs, and, once it is settled, the loss as a number.

    A step on a GPU is settled when its results have come back; whether it failed is known then. From the step that failed
    on, nothing has changed on the device.
    """

    def __init__(self, trainer: Trainer, results: list[Tensor], value: float = math.nan):
        self.trainer, self.results, self.value = trainer, results, value
        self.number = trainer._steps
        self.lr = trainer.optimizer.lr
        self._readout: _core.Readout | None = None

    @property
    def settled(self) -> bool:
        """Whether the results are there."""
        return self._readout is None

    def read_out(self, readout: _core.Readout) -> Step:
        """Asks for the results, which come behind the step, and for what the optimizer knows of failures by then."""
        readout.start([*self.results, self.trainer.optimizer._core.status()])
        self._readout = readout
        self.trainer._open.append(self)
        return self

    def settle(self) -> None:
        """Waits for the results.

        Raises:
            RuntimeError: the loss is not finite, or that of a step before it was not.
            IndexError: a label or index was out of range.
        """
        if self._readout is None:
            return
        *self.results, status = self._readout.values()
        self.value = float(self.results[0].item())
        readout, self._readout = self._readout, None
        _, failed, *fault = status.tolist()
        if failed:
            self.trainer._retract(self)
            if fault[0]:
                _raise_fault(fault, self.number)
            raise RuntimeError(not_finite(self.value, self.number, self.lr))
        self.trainer._open.remove(self)
        self.trainer._readouts.append(readout)


def _raise_fault(fault: list[int], number: int) -> None:
    try:
        _core.raise_fault(*fault)
    except IndexError as error:
        raise IndexError(f"Trainer: {error}, in step {number}") from None


def not_finite(value: float, number: int, lr: float) -> str:
    """What the error about a loss says."""
    what = f"it is {value} at step {number}"
    if math.isfinite(value):
        what = f"it was not before step {number}, with the same optimizer,"
    return (
        f"Trainer: the loss must be finite, {what} with learning rate {lr:g}; the weights are as before this step. "
        "A lower lr or clip_norm may help"
    )


class Transfer:
    """What a trainer on a GPU sends there, and what it takes back where a step fails."""

    def __init__(self, device: str):
        self._uploader = _core.Uploader(device)
        self._device = device

    def to_device(self, x: Tensor) -> Tensor:
        """A tensor on the device; one of the CPU goes there while kernels run."""
        if x.device == "cpu" and not x.requires_grad and not _core.recording():
            return self._uploader.upload(_core.dense(x))
        return _core.to_device(x, self._device)

    def buffers(self, model: Any) -> Tensor | None:
        """The memory of the model's buffers, such as running statistics, in one piece."""
        buffers = [buffer for _, buffer in model.named_buffers()]
        if not buffers:
            return None
        whole = _core.packed_in(buffers)
        return _core.pack_together(buffers) if whole is None else whole


def check_finite(what: str, values: Any, rows: Any, where: str = "the batch") -> None:
    """Refuses NaN and infinity; the message names the first row. ``rows`` are the batch's in the dataset, if it has one."""
    array = np.asarray(values.detach().numpy() if isinstance(values, Tensor) else values)
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    bad = ~np.isfinite(array).reshape(len(array) if array.ndim else 1, -1)
    first = np.flatnonzero(bad.any(1))[0]
    row = f"row {first} of the batch" if rows is None else f"row {rows[first]} of the dataset"
    raise ValueError(f"{what} must be finite, {where} has {bad.sum()} values that are not (first in {row})")
