"""Datasets in memory, and splits of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _core
from .._core import Tensor
from ..functions._types import Array

__all__ = ["ArrayDataset", "split"]


def _array(name: str, values: Any) -> Array:
    try:
        array = values.detach().numpy() if isinstance(values, Tensor) else np.asarray(values)
    except ValueError:  # its parts have no common shape
        raise ValueError(
            f"ArrayDataset: {name} must be one array, got a {type(values).__name__} of {len(values)} whose shapes differ; "
            "a model of several inputs is trained in a loop of your own"
        ) from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"ArrayDataset: {name} must be numbers, got dtype {array.dtype}")
    if array.ndim == 0:
        raise ValueError(f"ArrayDataset: {name} must have rows, got a single number")
    return array


class ArrayDataset:
    """Inputs and targets in arrays of equal length, row i belonging to row i.

    Args:
        x: inputs (N, ...), an array or tensor; kept as it is, without a copy.
        y: targets (N, ...), or None.
        labels: names of the classes, in the order of their numbers.

    Raises:
        ValueError: the lengths differ, x or y is not one array, or there are fewer labels than classes.
        TypeError: the values are not numbers.

    Example:
        >>> d = data.ArrayDataset(np.zeros((5, 2), np.float32), np.arange(5))
        >>> len(d), d.x.shape
        (5, (5, 2))
    """

    def __init__(self, x: Any, y: Any = None, labels: Sequence[str] | None = None):
        self.x = _array("x", x)
        self.y = None if y is None else _array("y", y)
        self.labels = None if labels is None else [str(name) for name in labels]
        if self.y is not None and len(self.x) != len(self.y):
            raise ValueError(f"ArrayDataset: x and y must have one length, got {len(self.x)} and {len(self.y)}")
        whole = self.y is not None and self.y.size > 0 and self.y.dtype.kind in "iu"
        classes = int(self.y.max()) + 1 if self.y is not None and whole else 0
        if self.labels is not None and len(self.labels) < classes:
            raise ValueError(
                f"ArrayDataset: labels must name every class, got {len(self.labels)} names and class {classes - 1}"
            )

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> tuple[Array, Any]:
        return self.x[index], None if self.y is None else self.y[index]

    def rows(self, index: Any) -> ArrayDataset:
        """A dataset of some rows.

        Args:
            index: positions, a mask or a slice.

        Returns:
            The smaller dataset.

        Example:
            >>> d = data.ArrayDataset(np.zeros((5, 2)), np.arange(5))
            >>> d.rows([3, 1]).y
            array([3, 1])
        """
        return ArrayDataset(self.x[index], None if self.y is None else self.y[index], self.labels)

    def sha256(self) -> str:
        """A fingerprint of shapes, dtypes and values.

        Returns:
            64 hexadecimal digits.

        Example:
            >>> len(data.ArrayDataset(np.zeros(3)).sha256())
            64
        """
        digest = hashlib.sha256()
        for array in (self.x, self.y):
            if array is not None:
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def __repr__(self) -> str:
        y = "" if self.y is None else f", y={self.y.dtype}{self.y.shape}"
        return f"ArrayDataset(x={self.x.dtype}{self.x.shape}{y})"


def as_dataset(name: str, source: Any, kinds: str = "a dataset or a pair (x, y)") -> ArrayDataset:
    """A dataset, or a pair of arrays as one; ``name`` is that of caller and argument."""
    if isinstance(source, ArrayDataset):
        return source
    if not isinstance(source, (tuple, list)) or len(source) != 2:
        got = (
            f"{type(source).__name__} of {len(source)}" if isinstance(source, (tuple, list)) else type(source).__name__
        )
        raise TypeError(f"{name} must be {kinds}, got {got}")
    return ArrayDataset(*source)


def permutation(n: int, seed: int, stream: int) -> Array:
    """The numbers 0 to n - 1 in an order that depends on (n, seed, stream) alone."""
    return np.argsort(_core.philox_keys(seed % 2**64, stream, n), kind="stable")


def split(
    dataset: ArrayDataset | tuple[Any, Any], fraction: float, stratify: bool = True, seed: int = 0
) -> tuple[ArrayDataset, ArrayDataset]:
    """Cuts a dataset in two at random.

    Args:
        dataset: what to cut, a dataset or a pair (x, y).
        fraction: the second part's share of the rows, above 0 and below 1; it gets ceil(fraction N) rows.
        stratify: keep each class's share in both parts (within one row); needs integer targets (N,).
        seed: of the random choice.

    Returns:
        The larger and the smaller part, rows in their old order.

    Raises:
        ValueError: the fraction is out of range or leaves a part empty, or there are no classes to stratify by.
        TypeError: it is neither a dataset nor a pair.

    Example:
        >>> d = data.ArrayDataset(np.zeros((10, 1)), np.array([0, 1] * 5))
        >>> train, test = data.split(d, 0.2)
        >>> len(train), sorted(test.y.tolist())
        (8, [0, 1])
    """
    if not 0 < fraction < 1:
        raise ValueError(f"split: fraction must be above 0 and below 1, got {fraction}")
    dataset = as_dataset("split: dataset", dataset)
    n = len(dataset)
    wanted = math.ceil(n * fraction)
    if not 0 < wanted < n:
        raise ValueError(f"split: {fraction} of {n} rows leaves a part empty")
    order = permutation(n, seed, 0)
    if stratify:
        y = dataset.y
        if y is None or y.ndim != 1 or y.dtype.kind not in "iub":
            raise ValueError("split: stratify needs one integer class for each row; pass stratify=False")
        classes, number, counts = np.unique(y, return_inverse=True, return_counts=True)
        # Whole rows by the largest remainder, so that the parts have exactly the wanted size.
        share = counts * (wanted / n)
        take = np.floor(share).astype(int)
        remainder = np.argsort(-(share - take), kind="stable")
        take[remainder[: wanted - take.sum()]] += 1
        second = np.concatenate([order[number[order] == c][: take[c]] for c in range(len(classes))])
    else:
        second = order[:wanted]
    chosen = np.zeros(n, bool)
    chosen[second] = True
    return dataset.rows(~chosen), dataset.rows(chosen)
