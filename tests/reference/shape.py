"""Rearrangements and conversions, element by element."""

import math

import numpy as np


def permute(x, axes):
    """y[i[axes[0]], i[axes[1]], ...] = x[i]"""
    y = np.zeros([x.shape[a] for a in axes], x.dtype)
    for at in np.ndindex(x.shape):
        y[tuple(at[a] for a in axes)] = x[at]
    return y


def roll(x, shift, axis):
    """y[(i + shift) mod n] = x[i]"""
    y = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        to = list(at)
        to[axis] = (at[axis] + shift) % x.shape[axis]
        y[tuple(to)] = x[at]
    return y


def flip(x, axes):
    """y[n - 1 - i] = x[i] along the axes."""
    y = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        y[tuple(x.shape[a] - 1 - i if a in axes else i for a, i in enumerate(at))] = x[at]
    return y


def pad(x, widths, value):
    """x in the middle of a constant."""
    y = np.full([n + a + b for n, (a, b) in zip(x.shape, widths)], value, x.dtype)
    y[tuple(slice(a, a + n) for n, (a, _) in zip(x.shape, widths))] = x
    return y


RANGES = {"uint8": (0, 2**8 - 1), "int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}


def cast(x, dtype):
    """Floats to integers truncate towards 0 and saturate, NaN is 0; integers to integers wrap; bool is "not 0"."""
    if dtype == "bool":
        return x != 0
    if dtype not in RANGES:
        return x.astype(np.float64)
    low, high = RANGES[dtype]
    y = np.zeros(x.shape, np.dtype(dtype))
    for at in np.ndindex(x.shape):
        if x.dtype.kind != "f":
            y[at] = (int(x[at]) - low) % (high - low + 1) + low
        elif not math.isnan(x[at]):
            y[at] = low if x[at] <= low else high if x[at] >= high else int(x[at])
    return y
