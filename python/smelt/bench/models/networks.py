"""The networks of the benchmarks, as a user of smelt writes them."""

from __future__ import annotations

from collections.abc import Callable

from ... import functions, nn
from ..._core import Tensor


def mlp() -> nn.Module:
    """784-512-256-10."""
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))


def cnn() -> nn.Module:
    """Two convolutions of 32 and 64 filters with batch norm, and a layer of 128, on 28x28 images."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def _conv_norm(inputs: int, outputs: int, size: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs)


def _around(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    return None if stride == 1 and inputs == outputs else nn.Sequential(*_conv_norm(inputs, outputs, 1, stride))


def basic_block(inputs: int, width: int, stride: int) -> nn.Module:
    """Two 3x3 convolutions and the way around them."""
    body = nn.Sequential(*_conv_norm(inputs, width, 3, stride), nn.ReLU(), *_conv_norm(width, width, 3))
    return nn.Residual(body, _around(inputs, width, stride), "relu")


def bottleneck(inputs: int, width: int, stride: int) -> nn.Module:
    """1x1, 3x3 and 1x1 convolutions and the way around them."""
    body = nn.Sequential(
        *_conv_norm(inputs, width, 1),
        nn.ReLU(),
        *_conv_norm(width, width, 3, stride),
        nn.ReLU(),
        *_conv_norm(width, 4 * width, 1),
    )
    return nn.Residual(body, _around(inputs, 4 * width, stride), "relu")


def _stages(block: Callable[[int, int, int], nn.Module], expansion: int, counts: tuple[int, ...]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    inputs = 64
    for i, count in enumerate(counts):
        for j in range(count):
            layers.append(block(inputs, 64 << i, 2 if i and j == 0 else 1))
            inputs = (64 << i) * expansion
    return layers


def resnet18() -> nn.Module:
    """ResNet-18 as it is used for 32x32 images: a 3x3 convolution first, no pooling (He et al., 2016)."""
    return nn.Sequential(
        *_conv_norm(3, 64, 3),
        nn.ReLU(),
        *_stages(basic_block, 1, (2, 2, 2, 2)),
        nn.GlobalAvgPool2d(),
        nn.Linear(512, 10),
    )


def resnet50() -> nn.Module:
    """ResNet-50 with its 7x7 convolution of stride 2 and pooling (He et al., 2016)."""
    return nn.Sequential(
        *_conv_norm(3, 64, 7, 2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, padding=1),
        *_stages(bottleneck, 4, (3, 4, 6, 3)),
        nn.GlobalAvgPool2d(),
        nn.Linear(2048, 1000),
    )


def _feed_forward(width: int) -> nn.Module:
    """x + W2 gelu(W1 norm(x)): a transformer block without attention."""
    body = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
    return nn.Residual(body)


def _self_attention(width: int, heads: int) -> nn.Module:
    """x + the attention of norm(x) to itself and what came before."""
    return nn.Residual(nn.Sequential(nn.LayerNorm(width), nn.MultiHeadAttention(width, heads, causal=True)))


class GPT(nn.Module):
    """A decoder (Radford et al., 2019) with learned positions, whose head is the table of tokens."""

    def __init__(self, vocabulary: int, context: int, layers: int, width: int, heads: int):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        blocks = [layer for _ in range(layers) for layer in (_self_attention(width, heads), _feed_forward(width))]
        self.blocks = nn.Sequential(*blocks, nn.LayerNorm(width))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(functions.arange(tokens.shape[1], device=tokens.device))
        return functions.linear(self.blocks(x), self.tokens.weight)


def gpt() -> nn.Module:
    """4 layers of width 256 with 4 heads, a vocabulary of 256 and a context of 256."""
    return GPT(256, 256, 4, 256, 4)


def gpt2() -> nn.Module:
    """GPT-2 of 124 M parameters: 12 layers of width 768 with 12 heads, 50,257 tokens, a context of 1,024."""
    return GPT(50257, 1024, 12, 768, 12)


def block() -> nn.Module:
    """A transformer block without attention: layer norm, 512-2048-512 with GELU, residual."""
    return _feed_forward(512)
