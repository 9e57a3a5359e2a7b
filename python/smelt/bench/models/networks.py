"""The networks of the benchmarks, as a user of smelt writes them."""

from __future__ import annotations

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


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the way around them."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, activation="relu")
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.around = _around(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        return functions.relu(y + self.around(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and the way around them."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, activation="relu")
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width, activation="relu")
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.around = _around(inputs, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        return functions.relu(self.bn3(self.conv3(y)) + self.around(x))


def _around(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))


def _stages(block: type[BasicBlock] | type[Bottleneck], counts: tuple[int, ...]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    inputs = 64
    for i, count in enumerate(counts):
        for j in range(count):
            layers.append(block(inputs, 64 << i, 2 if i and j == 0 else 1))
            inputs = (64 << i) * block.expansion
    return layers


def resnet18() -> nn.Module:
    """ResNet-18 as it is used for 32x32 images: a 3x3 convolution first, no pooling (He et al., 2016)."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64, activation="relu"),
        *_stages(BasicBlock, (2, 2, 2, 2)),
        nn.GlobalAvgPool2d(),
        nn.Linear(512, 10),
    )


def resnet50() -> nn.Module:
    """ResNet-50 with its 7x7 convolution of stride 2 and pooling (He et al., 2016)."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(64, activation="relu"),
        nn.MaxPool2d(3, 2, padding=1),
        *_stages(Bottleneck, (3, 4, 6, 3)),
        nn.GlobalAvgPool2d(),
        nn.Linear(2048, 1000),
    )


class FeedForward(nn.Module):
    """x + W2 gelu(W1 norm(x)): a transformer block without attention."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(functions.gelu(self.up(self.norm(x))))
        return x + y


class SelfAttention(nn.Module):
    """x + W softmax(q k^T / sqrt(d), causal) v of norm(x)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(functions.attention_packed(self.qkv(self.norm(x)), self.heads, causal=True))
        return x + y


class GPT(nn.Module):
    """A decoder (Radford et al., 2019) with learned positions, whose head is the table of tokens."""

    def __init__(self, vocabulary: int, context: int, layers: int, width: int, heads: int):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        blocks = [layer for _ in range(layers) for layer in (SelfAttention(width, heads), FeedForward(width))]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(functions.arange(tokens.shape[1], device=tokens.device))
        return functions.linear(self.norm(self.blocks(x)), self.tokens.weight)


def gpt() -> nn.Module:
    """4 layers of width 256 with 4 heads, a vocabulary of 256 and a context of 256."""
    return GPT(256, 256, 4, 256, 4)


def gpt2() -> nn.Module:
    """GPT-2 of 124 M parameters: 12 layers of width 768 with 12 heads, 50,257 tokens, a context of 1,024."""
    return GPT(50257, 1024, 12, 768, 12)


def block() -> nn.Module:
    """A transformer block without attention: layer norm, 512-2048-512 with GELU, residual."""
    return FeedForward(512)
