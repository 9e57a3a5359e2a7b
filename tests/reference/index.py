"""Reading and writing by index, element by element."""

import math

import numpy as np


def take(x, index, axis):
    """Slices of x in the order of the index."""
    picked = [np.take(x, [i], axis=axis) for i in index.reshape(-1)]
    shape = (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])
    return np.concatenate([x[(slice(None),) * axis + (slice(0, 0),)], *picked], axis=axis).reshape(shape)


def gather(x, index, axis):
    """y[i, j] = x[i, index[i, j]] along axis 1."""
    y = np.zeros(index.shape, x.dtype)
    for at in np.ndindex(index.shape):
        y[at] = x[(*at[:axis], index[at], *at[axis + 1 :])]
    return y


def scatter_add(x, index, values, axis):
    """y[i, index[i, j]] += values[i, j] along axis 1."""
    y = x.copy()
    for at in np.ndindex(index.shape):
        y[(*at[:axis], index[at], *at[axis + 1 :])] += values[at]
    return y


def one_hot(index, classes):
    """1 at each index."""
    y = np.zeros((*index.shape, classes))
    for at in np.ndindex(index.shape):
        y[(*at, index[at])] = 1
    return y


def sort(x, axis, descending=False):
    """Values and positions; stable, NaN is the largest."""
    rows = np.moveaxis(x, axis, -1)
    index = np.zeros(rows.shape, np.int64)
    for at in np.ndindex(rows.shape[:-1]):
        row = rows[at].tolist()
        keys = [(math.isnan(v), 0 if math.isnan(v) else v) for v in row]
        if descending:
            keys = [(not nan, -v) for nan, v in keys]
        index[at] = sorted(range(len(row)), key=keys.__getitem__)
    index = np.moveaxis(index, -1, axis)
    return gather(x, index, axis % x.ndim), index


def triangle(x, diagonal, lower):
    """Zeros above the diagonal (lower) or below it."""
    y = np.zeros_like(x)
    for i, j in np.ndindex(x.shape[-2:]):
        if (j - i <= diagonal) if lower else (j - i >= diagonal):
            y[..., i, j] = x[..., i, j]
    return y
