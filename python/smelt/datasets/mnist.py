"""MNIST and its relatives: four idx files in ``$SMELT_DATA/<name>``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import ArrayDataset
from . import fetch as _fetch
from .idx import read_idx
from .locate import data_root

__all__ = ["fashion_mnist", "kmnist", "mnist"]

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_DIGITS = [str(i) for i in range(10)]
_CLOTHES = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
_KANA = ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"]

# Mirrors and fingerprints of the gzipped files.
_MIRRORS = {
    "mnist": (
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
    ),
    "fashion-mnist": (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ),
    "kmnist": (
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
    ),
}
_SHA256 = {
    "mnist": {
        "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
    "kmnist": {
        "train-images-idx3-ubyte": "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
        "train-labels-idx1-ubyte": "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
        "t10k-images-idx3-ubyte": "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
        "t10k-labels-idx1-ubyte": "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
    },
}


def _find(folder: Path, stem: str) -> Path | None:
    """The file, plain or gzipped; both spellings of the plain name are in use."""
    for name in (f"{stem}.gz", stem, stem.replace("-idx", ".idx")):
        if (folder / name).exists():
            return folder / name
    return None


def _load(name: str, labels: list[str], root: Any, fetch: bool) -> tuple[ArrayDataset, ArrayDataset]:
    folder = data_root(root) / name
    parts = []
    for part, stems in _FILES.items():
        arrays = []
        for stem in stems:
            path = _find(folder, stem)
            if path is None and fetch:
                urls = [f"{base}{stem}.gz" for base in _MIRRORS[name]]
                path = _fetch.download(urls, folder / f"{stem}.gz", _SHA256[name][stem])
            if path is None:
                raise FileNotFoundError(
                    f"{name}: {folder / stem}.gz is not there; put the idx files there, set SMELT_DATA to the folder "
                    f"that holds {name}/, or pass download=True"
                )
            arrays.append(read_idx(path))
        images, targets = arrays
        if images.ndim != 3 or targets.ndim != 1 or len(images) != len(targets):
            raise ValueError(
                f"{name}: {part} images and labels must be (N, H, W) and (N,), got {images.shape} and {targets.shape}"
            )
        parts.append(ArrayDataset(images[..., None], targets.astype(np.int64), labels))
    return parts[0], parts[1]


def mnist(root: Any = None, download: bool = False) -> tuple[ArrayDataset, ArrayDataset]:
    """60,000 + 10,000 handwritten digits, uint8 images (N, 28, 28, 1) (LeCun et al., 1998).

    Args:
        root: the folder that holds ``mnist/``; by default the variable SMELT_DATA, else ``~/.cache/smelt``.
        download: fetch the files (11 MB) when they are not there.

    Returns:
        Training and test set.

    Raises:
        FileNotFoundError: a file is missing and ``download`` is False.
        ValueError: a file is damaged.

    Example:
        >>> train, test = datasets.mnist()  # doctest: +SKIP
        >>> train.x.shape  # doctest: +SKIP
        (60000, 28, 28, 1)
    """
    return _load("mnist", _DIGITS, root, download)


def fashion_mnist(root: Any = None, download: bool = False) -> tuple[ArrayDataset, ArrayDataset]:
    """60,000 + 10,000 pictures of clothes, uint8 images (N, 28, 28, 1) (Xiao et al., 2017).

    Args:
        root: the folder that holds ``fashion-mnist/``; by default SMELT_DATA, else ``~/.cache/smelt``.
        download: fetch the files (30 MB) when they are not there.

    Returns:
        Training and test set.

    Raises:
        FileNotFoundError: a file is missing and ``download`` is False.
        ValueError: a file is damaged.

    Example:
        >>> train, test = datasets.fashion_mnist()  # doctest: +SKIP
        >>> train.labels[0]  # doctest: +SKIP
        'T-shirt'
    """
    return _load("fashion-mnist", _CLOTHES, root, download)


def kmnist(root: Any = None, download: bool = False) -> tuple[ArrayDataset, ArrayDataset]:
    """60,000 + 10,000 cursive Japanese characters, uint8 images (N, 28, 28, 1) (Clanuwat et al., 2018).

    Args:
        root: the folder that holds ``kmnist/``; by default SMELT_DATA, else ``~/.cache/smelt``.
        download: fetch the files (21 MB) when they are not there.

    Returns:
        Training and test set.

    Raises:
        FileNotFoundError: a file is missing and ``download`` is False.
        ValueError: a file is damaged.

    Example:
        >>> train, test = datasets.kmnist()  # doctest: +SKIP
        >>> train.labels[0]  # doctest: +SKIP
        'o'
    """
    return _load("kmnist", _KANA, root, download)
