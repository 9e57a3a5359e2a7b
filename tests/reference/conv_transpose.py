"""Transposed convolutions of channels-last images and sequences: each pixel adds its multiple of a kernel to the output."""

import numpy as np


def conv_transpose2d(
    x, weight, bias=None, stride=(1, 1), padding=(0, 0), output_padding=(0, 0), groups=1, dilation=(1, 1)
):
    """y[n, p stride + r dilation - padding, ..., c] = bias[c] + sum over p, r, k of x[n, p, q, k] weight[k, r, s, c]"""
    n, p, q, k = x.shape
    _, rows, columns, each = weight.shape
    h = (p - 1) * stride[0] + dilation[0] * (rows - 1) + 1 + output_padding[0]
    w = (q - 1) * stride[1] + dilation[1] * (columns - 1) + 1 + output_padding[1]
    y = np.zeros((n, h, w, each * groups))
    depth = k // groups
    for i, j, r, s in np.ndindex(p, q, rows, columns):
        at = y[:, i * stride[0] + r * dilation[0], j * stride[1] + s * dilation[1]]
        for g in range(groups):
            ins, outs = slice(g * depth, (g + 1) * depth), slice(g * each, (g + 1) * each)
            at[:, outs] += x[:, i, j, ins] @ weight[ins, r, s]
    y = y[:, padding[0] : h - padding[0], padding[1] : w - padding[1]]
    return y if bias is None else y + bias


def conv_transpose1d(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """conv_transpose2d of images of one row."""
    steps = [(1, stride), (0, padding), (0, output_padding)]
    return conv_transpose2d(x[:, None], weight[:, None], bias, *steps, groups, (1, dilation))[:, 0]
