"""Matrix products."""

import numpy as np


def matmul(a, b, transpose_a=False, transpose_b=False):
    """c[..., i, j] = sum_k a[..., i, k] b[..., k, j]"""
    a = np.swapaxes(a, -1, -2) if transpose_a else a
    b = np.swapaxes(b, -1, -2) if transpose_b else b
    return np.matmul(a, b)


def linear(x, weight, bias=None):
    """y[..., n] = sum_k x[..., k] weight[n, k] + bias[n]"""
    y = x @ weight.T
    return y if bias is None else y + bias


def dot_bound(a, b, units):
    """Error of a sum of K products in any order: at most (K + 2) units of the sum of |a| |b| (Higham, 2002, sec. 3.1)."""
    return (a.shape[-1] + 2) * units * np.matmul(np.abs(a), np.abs(b))
