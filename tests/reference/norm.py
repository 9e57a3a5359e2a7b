"""Normalisation, and its error when computed in floating point."""

import numpy as np


def batch_norm(x, weight, bias, mean, var, training, eps, residual=None, activation=None):
    """(x - mean) / sqrt(var + eps) * weight + bias over all axes but the last."""
    if training and x.size:
        axes = tuple(range(x.ndim - 1))
        mean, var = x.mean(axis=axes), x.var(axis=axes)
    y = (x - mean) / np.sqrt(var + eps) * weight + bias
    y = y if residual is None else y + residual
    return np.maximum(y, 0) if activation == "relu" else y


def running(x, mean, var, momentum):
    """Running statistics after a batch: moved towards its mean and its unbiased variance."""
    rows = x.reshape(-1, x.shape[-1])
    if len(rows) == 0:
        return mean, var
    return mean + momentum * (rows.mean(axis=0) - mean), var + momentum * (rows.var(axis=0, ddof=1) - var)


def layer_norm(x, weight=None, bias=None, eps=1e-5):
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axis of each row."""
    if x.size == 0:
        return x
    y = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def rms_norm(x, weight=None, eps=1e-5):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis of each row."""
    if x.size == 0:
        return x
    y = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)
    return y if weight is None else y * weight


def grouped(x, groups):
    """(N, ..., C) as (N, positions, groups, C / groups)."""
    return x.reshape(x.shape[0], -1, groups, x.shape[-1] // groups) if x.size else x


def group_norm(x, groups, weight=None, bias=None, eps=1e-5):
    """(x - mean) / sqrt(var + eps) * weight + bias over the positions and channels of each group of each image."""
    if x.size == 0:
        return x
    g = grouped(x, groups)
    y = (g - g.mean(axis=(1, 3), keepdims=True)) / np.sqrt(g.var(axis=(1, 3), keepdims=True) + eps)
    y = y.reshape(x.shape)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def statistics_error(x, axes, u, chunk=64):
    """Errors of mean and variance of n numbers.

    A mean of n terms in any order is off by at most (n + 8) u mean|x| (Higham, 2002, sec. 4.2); merging chunks of at
    least 64 costs less than a sum does. With it the mean of squared distances is off by the square of that, and relatively
    by (n + 16) u: the sum, and a few roundings for each difference and merge. Merging adds d^2 n1 n2 / (n1 + n2) for means
    that are d apart: with errors of the means inside, by Cauchy and Schwarz at most twice them times the deviation.
    """
    n = int(np.prod([x.shape[a] for a in axes]))
    of_mean = (n + 8) * u * np.abs(x).mean(axis=axes, keepdims=True)
    var = x.var(axis=axes, keepdims=True)
    of_merging = 2 * of_mean * np.sqrt(var) if n > chunk else 0
    return of_mean, (n + 16) * u * var + of_mean**2 + of_merging


def normalised_error(x, axes, eps, u, given=None, chunk=64):
    """Error of (x - mean) / sqrt(var + eps); the statistics are exact where they are given."""
    if x.size == 0:
        return np.zeros(x.shape)
    if given is None:
        mean, var = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
        of_mean, of_var = statistics_error(x, axes, u, chunk)
    else:
        mean, var = given
        of_mean = of_var = 0.0
    # Half of the variance's relative error, and 8 roundings: of eps, root, inverse, difference and product.
    relative = 0.5 * of_var / (var + eps) + 8 * u
    return (of_mean + np.abs(x - mean) * relative) / np.sqrt(var + eps)
