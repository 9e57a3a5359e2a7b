"""softmax and its logarithm."""

import numpy as np


def log_softmax(x, axis=-1):
    """x_i - log sum_j e^(x_j)"""
    shifted = x - x.max(axis=axis, keepdims=True) if x.size else x
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def softmax(x, axis=-1):
    """e^(x_i) / sum_j e^(x_j)"""
    shifted = x - x.max(axis=axis, keepdims=True) if x.size else x
    powers = np.exp(shifted)
    return powers / powers.sum(axis=axis, keepdims=True)
