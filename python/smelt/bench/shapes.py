"""Shapes to measure: lists from real networks, and random ones from a seed so that none can be a special case."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GEMM", "NORM", "OPTIM", "Gemm", "random_gemm"]


@dataclass(frozen=True)
class Gemm:
    """A matrix product (batch, M, K) (batch, K, N).

    Attributes:
        name: where it comes from.
        m, n, k: rows, columns and depth.
        ta, tb: whether the operands are stored transposed.
        batch: how many products of this shape.

    Example:
        >>> smelt.bench.shapes.Gemm("square", 64, 64, 64).flops
        524288.0
    """

    name: str
    m: int
    n: int
    k: int
    ta: bool = False
    tb: bool = False
    batch: int = 1

    @property
    def flops(self) -> float:
        """Multiplications and additions.

        Example:
            >>> smelt.bench.shapes.Gemm("dot", 1, 1, 8).flops
            16.0
        """
        return 2.0 * self.batch * self.m * self.n * self.k

    def __str__(self) -> str:
        letters = f"{'t' if self.ta else 'n'}{'t' if self.tb else 'n'}"
        batch = f"{self.batch}x " if self.batch > 1 else ""
        return f"{self.name} {batch}{self.m}x{self.n}x{self.k} {letters}"


GEMM = (
    Gemm("square", 64, 64, 64),
    Gemm("square", 128, 128, 128),
    Gemm("square", 256, 256, 256),
    Gemm("square", 512, 512, 512),
    Gemm("square", 1024, 1024, 1024),
    Gemm("square", 2048, 2048, 2048),
    Gemm("mlp forward 1", 128, 512, 784, tb=True),
    Gemm("mlp forward 2", 128, 256, 512, tb=True),
    Gemm("mlp head", 128, 10, 256, tb=True),
    Gemm("mlp weight gradient 1", 512, 784, 128, ta=True),
    Gemm("mlp input gradient 2", 128, 512, 256),
    Gemm("cnn dense", 128, 128, 3136, tb=True),
    Gemm("cnn dense weight gradient", 128, 3136, 128, ta=True),
    Gemm("resnet 1x1", 6272, 256, 64, tb=True),
    Gemm("resnet 1x1 reduce", 6272, 64, 256, tb=True),
    Gemm("resnet head", 32, 1000, 2048, tb=True),
    Gemm("gpt qkv", 4096, 768, 256, tb=True),
    Gemm("gpt projection", 4096, 256, 256, tb=True),
    Gemm("gpt mlp up", 4096, 1024, 256, tb=True),
    Gemm("gpt mlp down", 4096, 256, 1024, tb=True),
    Gemm("gpt mlp up, weight gradient", 1024, 256, 4096, ta=True),
    Gemm("gpt mlp down, input gradient", 4096, 1024, 256),
    Gemm("gpt-2 token", 1, 2304, 768, tb=True),
    Gemm("gpt-2 logits of one token", 1, 50257, 768, tb=True),
    Gemm("lstm step", 32, 1024, 256, tb=True),
    Gemm("attention scores", 256, 256, 64, tb=True, batch=64),
    Gemm("attention values", 256, 64, 256, batch=64),
    Gemm("small batch", 16, 16, 16, batch=1024),
)
OPTIM = (1 << 16, 1 << 20, 1 << 24)  # parameters
NORM = ((128, 256), (4096, 256), (4096, 1024), (512, 50257))  # rows, features


def random_gemm(count: int, seed: int) -> list[Gemm]:
    """Products drawn log-uniformly from 16 to 4096 with at most 4 GFLOP, in every transposition.

    Args:
        count: how many.
        seed: of the draw.

    Returns:
        The products.

    Example:
        >>> len(smelt.bench.shapes.random_gemm(3, seed=0))
        3
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    shapes: list[Gemm] = []
    while len(shapes) < count:
        m, n, k = (int(v) for v in np.exp(rng.uniform(np.log(16), np.log(4096), 3)))
        if 2.0 * m * n * k <= 4e9:
            shapes.append(Gemm("random", m, n, k, bool(rng.integers(2)), bool(rng.integers(2))))
    return shapes
