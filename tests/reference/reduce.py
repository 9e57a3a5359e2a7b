"""Reductions and running sums."""

import numpy as np


def count(x, axis):
    """How many elements go into each result."""
    axes = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    return int(np.prod([x.shape[a] for a in axes], dtype=np.int64))


def total(x, axis=None, keepdims=False):
    """sum_i x_i, in int64 for integers and bool"""
    return np.add.reduce(x, axis=axis, keepdims=keepdims, dtype=np.float64 if x.dtype.kind == "f" else np.int64)


def mean(x, axis=None, keepdims=False):
    """1 / n sum_i x_i"""
    return total(x.astype(np.float64), axis, keepdims) / np.float64(count(x, axis))


def var(x, axis=None, keepdims=False, correction=0):
    """1 / (n - correction) sum_i (x_i - mean)^2"""
    x = x.astype(np.float64)
    distance = x - mean(x, axis, True)
    return total(distance * distance, axis, keepdims) / np.float64(count(x, axis) - correction)


def std(x, axis=None, keepdims=False, correction=0):
    """The root of the variance"""
    return np.sqrt(var(x, axis, keepdims, correction))


def prod(x, axis=None, keepdims=False):
    """The product of all x_i, in int64 for integers and bool"""
    return np.multiply.reduce(x, axis=axis, keepdims=keepdims, dtype=np.float64 if x.dtype.kind == "f" else np.int64)


def position(x, largest, axis=None, keepdims=False):
    """The place of the first extremum; NaN is more extreme than all else."""

    def first(row):
        best = 0
        for i, v in enumerate(row):
            if row[best] == row[best] and (v != v or (v > row[best] if largest else v < row[best])):
                best = i
        return best

    if axis is None:
        found = np.array(first(x.ravel()), np.int64)
        return found.reshape((1,) * x.ndim) if keepdims else found
    rows = np.moveaxis(x, axis, -1)
    found = np.array([first(row) for row in rows.reshape(-1, x.shape[axis])], np.int64).reshape(rows.shape[:-1])
    return np.expand_dims(found, axis) if keepdims else found


def cumsum(x, axis=-1):
    """y_i = sum_{j <= i} x_j, in int64 for integers and bool"""
    return np.add.accumulate(x, axis=axis, dtype=np.float64 if x.dtype.kind == "f" else np.int64)
