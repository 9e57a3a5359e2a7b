"""The idx format of the MNIST family (LeCun, http://yann.lecun.com/exdb/mnist), plain or gzipped."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..functions._types import Array

__all__ = ["read_idx", "write_idx"]

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: Any) -> Array:
    """An array from an idx file.

    Args:
        path: the file; gzipped when its name ends in ``.gz``.

    Returns:
        Array in native byte order.

    Raises:
        ValueError: the file is truncated, has bytes left over, or is no idx file; the message has path and sizes.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.idx"
        >>> datasets.write_idx(path, np.array([1, 2], np.uint8))
        >>> datasets.read_idx(path)
        array([1, 2], dtype=uint8)
    """
    path = Path(path)
    raw = path.read_bytes()
    if path.suffix == ".gz":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"read_idx: {path} is truncated or not gzip ({error})") from None
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _TYPES:
        raise ValueError(f"read_idx: {path} must begin with an idx header, got {raw[:4].hex() or 'nothing'}")
    dtype, rank = np.dtype(_TYPES[raw[2]]), raw[3]
    header = 4 + 4 * rank
    if len(raw) < header:
        raise ValueError(f"read_idx: {path} must have a header of {header} bytes, the file has {len(raw)}")
    shape = struct.unpack(f">{rank}I", raw[4:header])
    expected = header + math.prod(shape) * dtype.itemsize
    if len(raw) != expected:
        raise ValueError(f"read_idx: {path} must have {expected} bytes for shape {shape}, it has {len(raw)}")
    return np.frombuffer(raw, dtype, offset=header).reshape(shape).astype(dtype.newbyteorder("="))


def write_idx(path: Any, array: Array) -> None:
    """Writes an array as an idx file.

    Args:
        path: the file; gzipped when its name ends in ``.gz``.
        array: uint8, int8, int16, int32, float32 or float64, at most 255 axes.

    Raises:
        TypeError: another dtype.

    Example:
        >>> import tempfile, pathlib
        >>> datasets.write_idx(pathlib.Path(tempfile.mkdtemp()) / "a.idx.gz", np.zeros((2, 3), np.float32))
    """
    big = array.astype(array.dtype.newbyteorder(">"))
    codes = {np.dtype(t): code for code, t in _TYPES.items()}
    if big.dtype not in codes:
        raise TypeError(f"write_idx: dtype must be one of {', '.join(t.name for t in codes)}, got {array.dtype}")
    raw = struct.pack(f">HBB{array.ndim}I", 0, codes[big.dtype], array.ndim, *array.shape) + big.tobytes()
    Path(path).write_bytes(gzip.compress(raw) if Path(path).suffix == ".gz" else raw)
