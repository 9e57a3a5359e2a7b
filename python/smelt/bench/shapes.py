"""Shapes to measure: lists from real networks, and random ones from a seed so that none can be a special case."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ATTENTION",
    "CONV",
    "GEMM",
    "MEMORY",
    "NORM",
    "NORM_LARGE",
    "OPTIM",
    "Attention",
    "Conv",
    "Gemm",
    "random_attention",
    "random_conv",
    "random_gemm",
]


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


@dataclass(frozen=True)
class Conv:
    """A convolution of images (N, H, W, C) with K filters of R x S, padded by half a kernel.

    Attributes:
        name: where it comes from.
        n, h, w, c: of the images.
        k, r, s: of the filters.
        stride: in both directions.
        groups: of channels.

    Example:
        >>> smelt.bench.shapes.Conv("layer", 1, 8, 8, 4, 4, 3, 3, stride=2).out
        (4, 4)
    """

    name: str
    n: int
    h: int
    w: int
    c: int
    k: int
    r: int
    s: int
    stride: int = 1
    groups: int = 1

    @property
    def padding(self) -> tuple[int, int]:
        """Rows above and below, columns left and right.

        Example:
            >>> smelt.bench.shapes.Conv("layer", 1, 8, 8, 4, 4, 3, 1).padding
            (1, 0)
        """
        return self.r // 2, self.s // 2

    @property
    def out(self) -> tuple[int, int]:
        """Rows and columns of the result.

        Example:
            >>> smelt.bench.shapes.Conv("layer", 1, 8, 9, 4, 4, 3, 3).out
            (8, 9)
        """
        rows, columns = self.padding
        return (self.h + 2 * rows - self.r) // self.stride + 1, (self.w + 2 * columns - self.s) // self.stride + 1

    @property
    def flops(self) -> float:
        """Multiplications and additions of the forward pass; either gradient has as many.

        Example:
            >>> smelt.bench.shapes.Conv("layer", 1, 1, 1, 2, 3, 1, 1).flops
            12.0
        """
        p, q = self.out
        return 2.0 * self.n * p * q * self.k * self.r * self.s * (self.c // self.groups)

    def __str__(self) -> str:
        options = (f" s{self.stride}" if self.stride > 1 else "") + (f" g{self.groups}" if self.groups > 1 else "")
        return f"{self.name} {self.n}x{self.h}x{self.w}x{self.c}-{self.k}x{self.r}x{self.s}{options}"


@dataclass(frozen=True)
class Attention:
    """Attention of sequences to themselves.

    Attributes:
        name: where it comes from.
        batch, heads, t, d: sequences, heads, length, features of a head.
        causal: whether a query sees no key behind it.
        kv_heads: heads of keys and values; 0: as many as of queries.

    Example:
        >>> smelt.bench.shapes.Attention("layer", 1, 1, 2, 1).flops
        56.0
    """

    name: str
    batch: int
    heads: int
    t: int
    d: int
    causal: bool = False
    kv_heads: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "kv_heads", self.kv_heads or self.heads)

    @property
    def flops(self) -> float:
        """Multiplications and additions of two products forward and five backward, where a query sees a key.

        Example:
            >>> smelt.bench.shapes.Attention("layer", 1, 1, 2, 1, causal=True).flops
            42.0
        """
        seen = self.t * (self.t + 1) / 2 if self.causal else self.t * self.t
        return 14.0 * self.batch * self.heads * seen * self.d

    def __str__(self) -> str:
        options = (" causal" if self.causal else "") + (f" kv{self.kv_heads}" if self.kv_heads != self.heads else "")
        return f"{self.name} {self.batch}x{self.heads}x{self.t}x{self.d}{options}"


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
CONV = (
    Conv("resnet-18 stage 1", 32, 32, 32, 64, 64, 3, 3),
    Conv("resnet-18 stage 2", 32, 16, 16, 128, 128, 3, 3),
    Conv("resnet-18 stage 3", 32, 8, 8, 256, 256, 3, 3),
    Conv("resnet-18 stage 4", 32, 4, 4, 512, 512, 3, 3),
    Conv("resnet-18 down 2", 32, 32, 32, 64, 128, 3, 3, stride=2),
    Conv("resnet-18 down 4", 32, 8, 8, 256, 512, 3, 3, stride=2),
    Conv("resnet-18 around 2", 32, 32, 32, 64, 128, 1, 1, stride=2),
    Conv("cifar stem", 32, 32, 32, 3, 64, 3, 3),
    Conv("mnist stem", 128, 28, 28, 1, 32, 3, 3),
    Conv("cnn second", 128, 14, 14, 32, 64, 3, 3),
    Conv("resnet-50 stem", 8, 96, 96, 3, 64, 7, 7, stride=2),
    Conv("resnet-50 reduce 1", 16, 24, 24, 256, 64, 1, 1),
    Conv("resnet-50 expand 1", 16, 24, 24, 64, 256, 1, 1),
    Conv("resnet-50 middle 2", 16, 12, 12, 128, 128, 3, 3),
    Conv("resnet-50 expand 3", 16, 6, 6, 256, 1024, 1, 1),
    Conv("resnet-50 middle 4", 16, 7, 7, 512, 512, 3, 3),
    Conv("vgg 1", 4, 112, 112, 64, 64, 3, 3),
    Conv("vgg 3", 4, 56, 56, 128, 256, 3, 3),
    Conv("vgg 5", 4, 14, 14, 512, 512, 3, 3),
    Conv("mobilenet depthwise 1", 16, 56, 56, 64, 64, 3, 3, groups=64),
    Conv("mobilenet depthwise 2", 16, 28, 28, 256, 256, 3, 3, stride=2, groups=256),
    Conv("mobilenet depthwise 3", 16, 14, 14, 512, 512, 5, 5, groups=512),
    Conv("mobilenet pointwise", 16, 28, 28, 128, 256, 1, 1),
    Conv("u-net top", 2, 128, 128, 32, 32, 3, 3),
    Conv("u-net middle", 2, 64, 64, 128, 64, 3, 3),
    Conv("u-net bottom", 2, 16, 16, 512, 256, 3, 3),
    Conv("resnext", 8, 28, 28, 128, 128, 3, 3, groups=32),
)
ATTENTION = (
    Attention("characters", 64, 4, 64, 32, causal=True),
    Attention("gpt of 4 layers", 16, 4, 256, 64, causal=True),
    Attention("gpt-2, short", 8, 12, 128, 64, causal=True),
    Attention("gpt-2", 2, 12, 1024, 64, causal=True),
    Attention("gpt-2 medium", 2, 16, 512, 64, causal=True),
    Attention("gpt-2 xl", 1, 25, 1024, 64, causal=True),
    Attention("bert-base, sentences", 32, 12, 128, 64),
    Attention("bert-base", 4, 12, 512, 64),
    Attention("bert-large", 4, 16, 384, 64),
    Attention("distilbert, words", 32, 12, 64, 64),
    Attention("vit-s/16", 16, 6, 197, 64),
    Attention("vit-b/16", 8, 12, 197, 64),
    Attention("t5-small", 8, 8, 512, 64),
    Attention("whisper-tiny", 1, 6, 1500, 64),
    Attention("stable diffusion", 2, 8, 1024, 40),
    Attention("stable diffusion, deep", 2, 8, 256, 80),
    Attention("phi-2", 1, 32, 512, 80, causal=True),
    Attention("llama-2 7b", 1, 32, 512, 128, causal=True),
    Attention("llama-3 8b", 1, 32, 512, 128, causal=True, kv_heads=8),
    Attention("long", 1, 8, 2048, 64, causal=True),
    Attention("long, wide", 1, 8, 2048, 128, causal=True),
    Attention("long, both ways", 1, 8, 2048, 64),
    Attention("one head", 4, 1, 1024, 64),
    Attention("narrow", 16, 8, 256, 32),
)
OPTIM = (1 << 16, 1 << 20, 1 << 24)  # parameters
# Rows and features, or images channels last.
_ROWS, _IMAGES = ((4096, 256), (4096, 1024)), ((32, 32, 32, 64), (128, 14, 14, 256), (16, 96, 96, 64))
NORM: dict[str, tuple[tuple[int, ...], ...]] = {
    "layer_norm": ((128, 256), *_ROWS), "rms_norm": _ROWS, "group_norm": _IMAGES, "batch_norm": _IMAGES, "softmax": _ROWS,
    "log_softmax": _ROWS, "cross_entropy": ((4096, 256), (512, 50257)), "gelu": _ROWS, "dropout": _ROWS,
}  # fmt: skip
# About 1 GB of tensors.
NORM_LARGE: dict[str, tuple[tuple[int, ...], ...]] = {
    name: ((2560, 50257),)
    if name == "cross_entropy"
    else ((64, 128, 128, 64),)
    if sizes is _IMAGES
    else ((65536, 1024),)
    for name, sizes in NORM.items()
}

# Shapes of the arrays, and the numbers that an op takes beside them: window, stride and padding; axes.
MEMORY: dict[str, tuple[tuple[tuple[tuple[int, ...], ...], tuple[int, ...]], ...]] = {
    "max_pool2d": ((((128, 28, 28, 32),), (2, 2, 0)), (((32, 112, 112, 64),), (3, 2, 1))),
    "avg_pool2d": ((((128, 28, 28, 32),), (2, 2, 0)), (((32, 56, 56, 64),), (3, 2, 0))),
    "embedding": ((((50257, 768), (16, 512)), ()), (((1000, 64), (4096,)), ())),
    "permute": (
        (((2048, 2048),), (1, 0)), (((64, 512, 8, 64),), (0, 2, 1, 3)), (((32, 56, 56, 64),), (0, 3, 1, 2)),
        (((32, 3, 224, 224),), (0, 2, 3, 1)),
    ),
    "concat": (
        (((4096, 256), (4096, 256)), (1,)), (((32, 28, 28, 64), (32, 28, 28, 64)), (3,)), (((1024, 512), (512, 512)), (0,)),
    ),
    "sum": ((((4096, 1024),), (0,)), (((64, 256, 256),), (1,)), (((4096, 1024),), (1,))),
    "mean": ((((32, 49, 512),), (1,)),),
    "max": ((((4096, 1024),), (1,)), (((4096, 1024),), (0,))),
}  # fmt: skip


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


def random_conv(count: int, seed: int) -> list[Conv]:
    """Convolutions drawn from a seed: images of 4 to 128, 1 to 512 channels, kernels of 1, 3, 5 and 7, at most 2 GFLOP.

    Args:
        count: how many.
        seed: of the draw.

    Returns:
        The convolutions. One of eight is depthwise, one of eight strided.

    Example:
        >>> len(smelt.bench.shapes.random_conv(3, seed=0))
        3
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    shapes: list[Conv] = []
    while len(shapes) < count:
        n, h, w = (int(v) for v in np.exp(rng.uniform(np.log([1, 4, 4]), np.log([64, 128, 128]))))
        c, k = (int(v) for v in np.exp(rng.uniform(np.log(8), np.log(512), 2)))
        c, k = (v if rng.integers(4) == 0 else (v + 7) // 8 * 8 for v in (c, k))  # most layers have whole vectors
        r, stride = int(rng.choice([1, 3, 3, 3, 5, 7])), int(rng.integers(8) == 0) + 1
        depthwise = rng.integers(8) == 0 and r > 1
        shape = Conv("random", n, h, w, c, c if depthwise else k, r, r, stride, c if depthwise else 1)
        if 1e7 <= shape.flops <= 2e9:
            shapes.append(shape)
    return shapes


def random_attention(count: int, seed: int) -> list[Attention]:
    """Attention drawn from a seed: lengths of 16 to 2048, heads of 16 to 128 features, at most 40 GFLOP.

    Args:
        count: how many.
        seed: of the draw.

    Returns:
        The shapes. Half of them are causal; lengths and most sizes of heads are no multiples of anything.

    Example:
        >>> len(smelt.bench.shapes.random_attention(3, seed=0))
        3
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    shapes: list[Attention] = []
    while len(shapes) < count:
        batch, heads, t = (int(v) for v in np.exp(rng.uniform(np.log([1, 1, 16]), np.log([64, 24, 2048]))))
        d = int(rng.choice([16, 32, 48, 64, 80, 96, 128, int(rng.integers(16, 129))]))
        shape = Attention("random", batch, heads, t, d, bool(rng.integers(2)))
        if 1e7 <= shape.flops <= 4e10:
            shapes.append(shape)
    return shapes
