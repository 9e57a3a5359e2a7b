"""The networks of ``smelt train``."""

from __future__ import annotations

import math

from .. import nn


def build(name: str, shape: tuple[int, ...], classes: int) -> nn.Module:
    """A network for inputs of one shape.

    Args:
        name: ``"mlp"`` or ``"cnn"``.
        shape: of one input, (H, W, C).
        classes: how many outputs.
    """
    if name == "mlp":
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(shape), 512),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(512, 256),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(256, classes),
        )
    height, width, channels = shape
    layers: list[nn.Module] = []
    # Pictures below 16 pixels are halved once, after the second block; others after each of three.
    large = min(height, width) >= 16
    blocks = [(32, True), (64, True), (128, True)] if large else [(32, False), (64, min(height, width) >= 2)]
    for filters, pooled in blocks:
        layers += [
            nn.Conv2d(channels, filters, 3, padding="same", bias=False),
            nn.BatchNorm2d(filters),
            nn.ReLU(),
        ]
        channels = filters
        if pooled:
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(height * width * channels, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, classes),
    )
