"""Philox4x32-10 (Salmon et al., 2011) in whole numbers, and what is made of its bits."""

import numpy as np


def philox(seed, counter):
    """The four 32-bit words of one counter."""
    c = [counter & 0xFFFFFFFF, counter >> 32, 0, 0]
    k = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def words(seed, counter, n):
    """Element i has word i % 4 of counter + i / 4; whole counters, so the number is a multiple of 4."""
    drawn = [w for i in range((n + 3) // 4) for w in philox(seed, counter + i)]
    return np.array(drawn, dtype=np.uint64)


def uniform(seed, counter, n):
    """The upper 24 bits over 2^24"""
    return (words(seed, counter, n)[:n] >> np.uint64(8)).astype(np.float64) * 2.0**-24


def normal(seed, counter, n):
    """Pairs r cos a, r sin a with r = sqrt(-2 log u), u in (0, 1], a in [0, 2 pi) (Box and Muller, 1958)"""
    pairs = words(seed, counter, n).astype(np.float64).reshape(-1, 2)
    r, a = np.sqrt(-2 * np.log((pairs[:, 0] + 1) * 2.0**-32)), 2 * np.pi * pairs[:, 1] * 2.0**-32
    return np.stack([r * np.cos(a), r * np.sin(a)], axis=1).ravel()[:n]


def integers(seed, counter, n, low, high):
    """low + floor(w (high - low) / 2^64), where w is the element's word and, below it, the next of its counter"""
    drawn = [int(w) for w in words(seed, counter, n)]
    wide = [drawn[i] << 32 | drawn[i // 4 * 4 + (i + 1) % 4] for i in range(n)]
    return np.array([low + (w * (high - low) >> 64) for w in wide], dtype=np.int64)


def dropout(x, seed, counter, p):
    """x / (1 - p) where the element's word is at least p 2^32, else 0"""
    kept = words(seed, counter, x.size)[: x.size] >= np.uint64(int(p * 2**32))
    return np.where(kept.reshape(x.shape), x * (1 / (1 - p)), 0.0)
