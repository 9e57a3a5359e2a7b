"""Batches of a dataset, in an order that depends on (seed, epoch) alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import _core
from .._core import Tensor
from ..functions._types import Array
from .dataset import ArrayDataset, as_dataset, permutation

__all__ = ["Loader"]


class Loader:
    """Cuts a dataset into batches of tensors, epoch by epoch.

    The order is a function of (seed, epoch): any batch size sees the samples in the same order, and a loader that starts
    in the middle of an epoch goes on as the one before would have.

    Args:
        dataset: where rows come from, a dataset or a pair (x, y).
        batch_size: rows of a batch; the last one may have fewer.
        shuffle: a new order each epoch.
        seed: of the orders.
        drop_last: leave out a last batch that is not full.
        device: where batches come to. They are copied to a GPU while it computes.
        resident: the whole dataset lies on the device, and batches are gathered there; a trainer's recorded step does so
            too. On the CPU it always does.

    Raises:
        ValueError: the dataset is empty, the batch size below 1, or the device no device's name.
        TypeError: the device is no name, or `resident` no bool.
        MemoryError: the dataset does not fit on the device.
        RuntimeError: the device is not there.

    Example:
        >>> loader = data.Loader(data.ArrayDataset(np.arange(5.0), np.arange(5)), batch_size=2)
        >>> [y.tolist() for x, y in loader]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        dataset: ArrayDataset,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        device: str = "cpu",
        resident: bool = False,
    ):
        dataset = as_dataset("Loader: dataset", dataset)
        if batch_size < 1:
            raise ValueError(f"Loader: batch_size must be at least 1, got {batch_size}")
        if len(dataset) == 0:
            raise ValueError("Loader: the dataset must have at least one row, got none")
        if drop_last and len(dataset) < batch_size:
            raise ValueError(f"Loader: drop_last leaves nothing of {len(dataset)} rows in batches of {batch_size}")
        self.dataset, self.batch_size, self.shuffle, self.seed, self.drop_last = (
            dataset, batch_size, shuffle, seed, drop_last,
        )  # fmt: skip
        if not isinstance(device, str) or not isinstance(resident, bool):
            raise TypeError(f"Loader: device must be a name and resident a bool, got {device!r} and {resident!r}")
        self.device = _core.parse_device(device)
        self.resident = resident and self.device != "cpu"
        self._uploader = None if self.device == "cpu" else _core.Uploader(self.device)
        self._whole: list[Tensor] = []  # on the device, if resident
        if self.resident:
            parts = [dataset.x] if dataset.y is None else [dataset.x, dataset.y]
            self._whole = [_core.to_device(as_tensor(part), self.device) for part in parts]
        self.epoch = 0
        self.position = 0  # batches of this epoch that were handed out
        self.rows: Array = np.arange(0)  # the dataset's rows in the batch that was handed out last

    def __len__(self) -> int:
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands.

        Returns:
            ``{"epoch", "position", "seed"}``.

        Example:
            >>> data.Loader(data.ArrayDataset(np.arange(4)), 2).state_dict()
            {'epoch': 0, 'position': 0, 'seed': 0}
        """
        return {"epoch": self.epoch, "position": self.position, "seed": self.seed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on from a place.

        Args:
            state: from :meth:`state_dict`.

        Example:
            >>> loader = data.Loader(data.ArrayDataset(np.arange(4), np.arange(4)), 2)
            >>> loader.load_state_dict({"epoch": 0, "position": 1, "seed": 0})
            >>> [y.tolist() for x, y in loader]
            [[2, 3]]
        """
        self.epoch, self.position, self.seed = state["epoch"], state["position"], state["seed"]

    def __repr__(self) -> str:
        where = "" if self.device == "cpu" else f", device={self.device!r}, resident={self.resident}"
        return (
            f"Loader({self.dataset}, batch_size={self.batch_size}, shuffle={self.shuffle}, seed={self.seed}, "
            f"drop_last={self.drop_last}{where}: {len(self)} batches, at epoch {self.epoch}, batch {self.position})"
        )

    def __iter__(self) -> Iterator[tuple[Tensor, Any]]:
        """The rest of this epoch; afterwards the loader stands at the start of the next."""
        for picked in self._picks():
            batch = picked.tensors() if self.resident else [self._to_device(part) for part in picked.parts()]
            yield batch[0], batch[1] if len(batch) > 1 else None

    def _picks(self) -> Iterator[Picked]:
        """The same as rows of the dataset."""
        n = len(self.dataset)
        order = permutation(n, self.seed, self.epoch + 1) if self.shuffle else np.arange(n)
        while self.position < len(self):
            begin = self.position * self.batch_size
            self.rows = order[begin : begin + self.batch_size]
            self.position += 1
            yield Picked(self, self.rows)
        self.epoch += 1
        self.position = 0

    def _to_device(self, rows: Any) -> Tensor:
        batch = as_tensor(rows)
        return batch if self._uploader is None else self._uploader.upload(batch)


class Picked:
    """Rows of a loader's dataset that make a batch."""

    def __init__(self, loader: Loader, rows: Array):
        self.loader, self.rows = loader, rows

    def parts(self) -> list[Array]:
        """Inputs and targets, if there are any, as the dataset has them."""
        x, y = self.loader.dataset[self.rows]
        return [x] if y is None else [x, y]

    def numbers(self) -> Tensor:
        """The rows (N), int64, on the loader's device."""
        return self.loader._to_device(self.rows.astype(np.int64))

    def tensors(self, numbers: Tensor | None = None) -> list[Tensor]:
        """Inputs and targets, gathered on the loader's device by the rows there."""
        numbers = self.numbers() if numbers is None else numbers
        return [_core.take(whole, numbers, 0) for whole in self.loader._whole]


def as_tensor(rows: Any) -> Tensor:
    if rows.dtype == np.float64:
        with np.errstate(over="ignore"):
            rows = rows.astype(np.float32)
    elif rows.dtype.kind in "iu" and rows.dtype not in (np.uint8, np.int32, np.int64):
        rows = rows.astype(np.int64)
    return _core.from_numpy(np.asarray(rows), None)
