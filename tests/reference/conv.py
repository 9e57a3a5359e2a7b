"""Convolutions of channels-last images and sequences, tap by tap."""

import math

import numpy as np


def extents(size, kernel, stride, padding, dilation):
    """Output extent and zeros before and after, for one axis; padding None is "same"."""
    reach = dilation * (kernel - 1) + 1
    if padding is None:
        out = math.ceil(size / stride)
        total = max((out - 1) * stride + reach - size, 0)
        return out, total // 2, total - total // 2
    return (size + 2 * padding - reach) // stride + 1, padding, padding


def conv2d(x, weight, bias=None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    """y[n, p, q, k] = bias[k] + sum over r, s, c of x[n, p stride + r dilation - before, ..., c] weight[k, r, s, c]"""
    n, h, w, _ = x.shape
    k, rows, columns, depth = weight.shape
    p, top, bottom = extents(h, rows, stride[0], None if padding is None else padding[0], dilation[0])
    q, left, right = extents(w, columns, stride[1], None if padding is None else padding[1], dilation[1])
    padded = np.pad(x, [(0, 0), (top, bottom), (left, right), (0, 0)])
    y = np.zeros((n, p, q, k))
    each = k // groups
    for r in range(rows):
        for s in range(columns):
            i, j = r * dilation[0], s * dilation[1]
            tap = padded[:, i : i + (p - 1) * stride[0] + 1 : stride[0], j : j + (q - 1) * stride[1] + 1 : stride[1]]
            tap = tap[:, :p, :q]
            for g in range(groups):
                channels, kernels = slice(g * depth, (g + 1) * depth), slice(g * each, (g + 1) * each)
                y[..., kernels] += tap[..., channels] @ weight[kernels, r, s].T
    return y if bias is None else y + bias


def conv1d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """conv2d of images of one row."""
    pads = None if padding is None else (0, padding)
    return conv2d(x[:, None], weight[:, None], bias, (1, stride), pads, (1, dilation), groups)[:, 0]


def activate(z, name):
    """The activations by their definitions."""
    if name is None:
        return z
    if name == "relu":
        return np.maximum(z, 0)
    if name == "tanh":
        return np.tanh(z)
    if name == "sigmoid":
        return 1 / (1 + np.exp(-z))
    if name == "silu":
        return z / (1 + np.exp(-z))
    if name == "gelu":
        return z * 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))
    assert name == "gelu_tanh"
    return z * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
