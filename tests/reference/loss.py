"""Losses."""

import numpy as np

from tests.reference.softmax import log_softmax


def reduced(values, reduction, weight=None):
    """All values, their sum, or the sum over that of the weights."""
    if reduction == "none":
        return values
    total = np.asarray(values.sum())
    if reduction == "sum":
        return total
    return total / np.float64(values.size if weight is None else weight.sum())


def cross_entropy(logits, labels, weight=None, smoothing=0.0, ignore=-100, reduction="mean"):
    """With p = softmax(logits), e = smoothing, C classes: (1 - e) w_y (-log p_y) + e / C sum_c w_c (-log p_c)"""
    classes = logits.shape[-1]
    weight = np.ones(classes) if weight is None else weight
    nll = -log_softmax(logits)
    counted = labels != ignore
    safe = np.where(counted, labels, 0)
    own = np.take_along_axis(nll, safe[..., None], -1)[..., 0]
    values = (1 - smoothing) * weight[safe] * own
    if smoothing:
        values = values + smoothing / classes * (weight * nll).sum(axis=-1)
    return reduced(np.where(counted, values, 0.0), reduction, np.where(counted, weight[safe], 0.0))


def binary_cross_entropy(logits, targets, pos_weight=None, reduction="mean"):
    """-(pos t log s + (1 - t) log(1 - s)) with s = sigmoid(logits); log s = -log(1 + e^-x)"""
    pos = 1.0 if pos_weight is None else pos_weight
    log_s, log_not = (-(np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))) for z in (-logits, logits))
    return reduced(-(pos * targets * log_s + (1 - targets) * log_not), reduction)


def mse(x, t, reduction="mean"):
    """(x - t)^2"""
    return reduced((x - t) ** 2, reduction)


def l1(x, t, reduction="mean"):
    """|x - t|"""
    return reduced(np.abs(x - t), reduction)


def huber(x, t, delta=1.0, reduction="mean"):
    """(x - t)^2 / 2 where |x - t| <= delta, else delta (|x - t| - delta / 2)"""
    d = np.abs(x - t)
    return reduced(np.where(d <= delta, 0.5 * d * d, delta * (d - 0.5 * delta)), reduction)
