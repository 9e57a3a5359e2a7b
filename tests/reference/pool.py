"""Pooling of channels-last images, window by window."""

import math

import numpy as np


def windows(extent, kernel, stride, padding):
    """For each output the first and last pixel inside the image, and the pixels of the window with padding."""
    out = (extent + 2 * padding - kernel) // stride + 1
    starts = [i * stride - padding for i in range(out)]
    return [(max(a, 0), min(a + kernel, extent), kernel) for a in starts]


def adaptive_windows(extent, out):
    """Window i of P covers floor(i H / P) up to ceil((i + 1) H / P)."""
    ends = [(i * extent // out, math.ceil((i + 1) * extent / out)) for i in range(out)]
    return [(a, b, b - a) for a, b in ends]


def pool(x, rows, columns, largest, count_padding=True):
    """The largest element or the mean of each window."""
    y = np.zeros((x.shape[0], len(rows), len(columns), x.shape[3]))
    for p, (y0, y1, height) in enumerate(rows):
        for q, (x0, x1, width) in enumerate(columns):
            window = x[:, y0:y1, x0:x1]
            if largest:
                y[:, p, q] = window.max(axis=(1, 2))  # a NaN wins
            else:
                count = height * width if count_padding else (y1 - y0) * (x1 - x0)
                y[:, p, q] = window.sum(axis=(1, 2)) / count
    return y


def max_gradient(x, dy, rows, columns):
    """Each dy goes to the first of the largest elements of its window, to the first NaN where there is one."""
    dx = np.zeros_like(x)
    for n, p, q, c in np.ndindex(dy.shape):
        (y0, y1, _), (x0, x1, _) = rows[p], columns[q]
        best = (y0, x0)
        for i in range(y0, y1):
            for j in range(x0, x1):
                now, before = x[n, i, j, c], x[(n, *best, c)]
                if now > before or (np.isnan(now) and not np.isnan(before)):
                    best = (i, j)
        dx[(n, *best, c)] += dy[n, p, q, c]
    return dx
