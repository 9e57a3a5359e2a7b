"""Shapes to measure: a list from real networks, and random ones from a seed so that none can be a special case."""

from __future__ import annotations

import numpy as np

# (name, M, N, K, transpose_a, transpose_b)
GEMM = [
    ("square 1024", 1024, 1024, 1024, False, False),
    ("square 2048", 2048, 2048, 2048, False, False),
    ("mlp forward 1", 128, 512, 784, False, True),
    ("mlp forward 2", 128, 256, 512, False, True),
    ("mlp weight gradient 1", 512, 784, 128, True, False),
    ("mlp input gradient 2", 128, 512, 256, False, False),
    ("gpt qkv", 4096, 768, 256, False, True),
    ("gpt mlp up", 4096, 1024, 256, False, True),
    ("gpt mlp down", 4096, 256, 1024, False, True),
    ("gpt mlp up, weight gradient", 1024, 256, 4096, True, False),
]


def random_gemm(count: int, seed: int) -> list[tuple[str, int, int, int, bool, bool]]:
    """Shapes drawn log-uniformly from 16 to 4096 with at most 4 GFLOP, in every transposition."""
    rng = np.random.default_rng(seed)
    shapes: list[tuple[str, int, int, int, bool, bool]] = []
    while len(shapes) < count:
        m, n, k = (int(v) for v in np.exp(rng.uniform(np.log(16), np.log(4096), 3)))
        if 2.0 * m * n * k <= 4e9:
            ta, tb = bool(rng.integers(2)), bool(rng.integers(2))
            letters = f"{'t' if ta else 'n'}{'t' if tb else 'n'}"
            shapes.append((f"random {m}x{n}x{k} {letters}", m, n, k, ta, tb))
    return shapes
