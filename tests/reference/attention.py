"""Attention with the matrix of scores, row by row."""

import numpy as np


def seen(shape, causal=False, mask=None, lengths=None):
    """Which of (batch, heads, queries, keys) a query sees, and what is added to its score."""
    batch, _, queries, keys = shape
    allowed, added = np.ones(shape, bool), np.zeros(shape)
    if causal:
        allowed &= np.arange(keys) <= np.arange(queries)[:, None] + keys - queries
    if lengths is not None:
        allowed &= (np.arange(keys) < np.asarray(lengths)[:, None]).reshape(batch, 1, 1, keys)
    if mask is not None and mask.dtype == bool:
        allowed &= mask
    elif mask is not None:
        added = added + mask
        allowed &= ~np.isneginf(added)
    return allowed, np.where(allowed, added, 0)


def attention(q, k, v, causal=False, mask=None, scale=None, lengths=None):
    """y = sum over the keys that a query sees of softmax(scale q k^T + mask) v; zeros where it sees none"""
    group = q.shape[2] // k.shape[2] if k.shape[2] else 1
    q, k, v = (np.moveaxis(x, 2, 1) for x in (q, np.repeat(k, group, 2), np.repeat(v, group, 2)))
    scores = np.einsum("bhid,bhjd->bhij", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    allowed, added = seen(scores.shape, causal, mask, lengths)
    scores = np.where(allowed, scores + added, -np.inf)
    largest = scores.max(-1, keepdims=True, initial=-np.inf)
    e = np.where(allowed, np.exp(scores - np.where(np.isneginf(largest), 0, largest)), 0)
    total = e.sum(-1, keepdims=True)
    weights = e / np.where(total == 0, 1, total)
    return np.moveaxis(np.einsum("bhij,bhjd->bhid", weights, v), 1, 2)


def attention_packed(qkv, heads, kv_heads=None, **options):
    """The same of (batch, time, features), features being queries, keys and values of all heads."""
    kv_heads = heads if kv_heads is None else kv_heads
    b, t, width = qkv.shape
    parts = qkv.reshape(b, t, heads + 2 * kv_heads, width // (heads + 2 * kv_heads))
    q, k, v = np.split(parts, [heads, heads + kv_heads], axis=2)
    return attention(q, k, v, **options).reshape(b, t, heads * v.shape[-1])


def sizes(q, k, v, dy, causal=False, mask=None, scale=None, lengths=None):
    """What result and gradients are sums of, all terms positive: y, dq, dk, dv."""
    group = q.shape[2] // k.shape[2]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    wide = (np.moveaxis(np.repeat(x, n, 2), 2, 1) for x, n in ((q, 1), (k, group), (v, group), (dy, 1)))
    q, k, v, dy = wide
    scores = np.einsum("bhid,bhjd->bhij", q, k) * scale
    allowed, added = seen(scores.shape, causal, mask, lengths)
    scores = np.where(allowed, scores + added, -np.inf)
    largest = scores.max(-1, keepdims=True)
    e = np.where(allowed, np.exp(scores - np.where(np.isneginf(largest), 0, largest)), 0)
    total = e.sum(-1, keepdims=True)
    p = e / np.where(total == 0, 1, total)
    dp = np.einsum("bhid,bhjd->bhij", abs(dy), abs(v))
    ds = p * (dp + (p * dp).sum(-1, keepdims=True)) * abs(scale)
    y, dq = p @ abs(v), ds @ abs(k)
    dk, dv = (np.einsum("bhij,bhid->bhjd", x, abs(z)) for x, z in ((ds, q), (p, dy)))
    b, heads, keys, d = dk.shape
    dk = dk.reshape(b, heads // group, group, keys, d).sum(2)
    dv = dv.reshape(b, heads // group, group, keys, -1).sum(2)
    return [np.moveaxis(x, 1, 2) for x in (y, dq, dk, dv)]
