"""The handwritten digits that come with the package."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from ..data.dataset import ArrayDataset

__all__ = ["digits"]


def digits() -> ArrayDataset:
    """1,797 handwritten digits, uint8 images (N, 8, 8, 1) with values from 0 to 16 (Alpaydin and Kaynak, 1998).

    They are the test set of "Optical Recognition of Handwritten Digits" of the UCI repository, under CC BY 4.0, and
    part of the package.

    Returns:
        The dataset; cut it with :func:`smelt.data.split`.

    Example:
        >>> datasets.digits().x.shape
        (1797, 8, 8, 1)
    """
    raw = gzip.decompress((Path(__file__).parent / "digits_data" / "digits.csv.gz").read_bytes())
    table = np.array([line.split(b",") for line in raw.split()]).astype(np.float64).astype(np.uint8)
    return ArrayDataset(table[:, :64].reshape(-1, 8, 8, 1), table[:, 64].astype(np.int64), [str(i) for i in range(10)])
