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

    Raises:
        ValueError: the dataset is empty, the batch size below 1, or the device no device's name.
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
        self.device = _core.parse_device(device)
        self._uploader = None if self.device == "cpu" else _core.Uploader(self.device)
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
        where = "" if self.device == "cpu" else f", device={self.device!r}"
        return (
            f"Loader({self.dataset}, batch_size={self.batch_size}, shuffle={self.shuffle}, seed={self.seed}, "
            f"drop_last={self.drop_last}{where}: {len(self)} batches, at epoch {self.epoch}, batch {self.position})"
        )

    def __iter__(self) -> Iterator[tuple[Tensor, Any]]:
        """The rest of this epoch; afterwards the loader stands at the start of the next."""
        n = len(self.dataset)
        order = permutation(n, self.seed, self.epoch + 1) if self.shuffle else np.arange(n)
        while self.position < len(self):
            begin = self.position * self.batch_size
            self.rows = order[begin : begin + self.batch_size]
            x, y = self.dataset[self.rows]
            self.position += 1
            yield self._batch(x), None if y is None else self._batch(y)
        self.epoch += 1
        self.position = 0

    def _batch(self, rows: Any) -> Tensor:
        if rows.dtype == np.float64:
            with np.errstate(over="ignore"):
                rows = rows.astype(np.float32)
        elif rows.dtype.kind in "iu" and rows.dtype not in (np.uint8, np.int32, np.int64):
            rows = rows.astype(np.int64)
        batch = _core.from_numpy(np.asarray(rows), None)
        return batch if self._uploader is None else self._uploader.upload(batch)
