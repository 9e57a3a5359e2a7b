"""The networks of the benchmarks, in smelt and in PyTorch, with equal weights.

A trainer here is a function that takes one training step (forward, backward, AdamW) on a fixed batch and returns the
loss before it as a float.
"""

from __future__ import annotations

import copy
import importlib
import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .. import functions, losses, nn, optim
from ..precision import autocast

if TYPE_CHECKING:
    import numpy as np

__all__ = ["MODELS", "batch", "cnn", "mlp", "smelt_step"]

Step = Callable[[], float]


def mlp() -> nn.Sequential:
    """784-512-256-10.

    Returns:
        The network.

    Example:
        >>> len(list(smelt.bench.models.mlp().parameters()))
        6
    """
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))


def cnn() -> nn.Sequential:
    """Two convolutions of 32 and 64 filters with batch norm, and a layer of 128, on 28x28 images.

    Returns:
        The network.

    Example:
        >>> smelt.bench.models.cnn().eval()(smelt.zeros(1, 28, 28, 1)).shape
        (1, 10)
    """
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


MODELS: dict[str, tuple[Callable[[], nn.Sequential], tuple[int, ...]]] = {
    "mlp": (mlp, (784,)),
    "cnn": (cnn, (28, 28, 1)),
}


def batch(name: str, rows: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs and labels.

    Args:
        name: of the network.
        rows: how many.

    Returns:
        Inputs float32 and labels int64, from a fixed seed.

    Example:
        >>> smelt.bench.models.batch("mlp", 2)[0].shape
        (2, 784)
    """
    import numpy as np

    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, *MODELS[name][1])).astype(np.float32), rng.integers(0, 10, rows)


def smelt_step(name: str, precision: str = "float32") -> tuple[Step, nn.Sequential]:
    """smelt's training step.

    Args:
        name: of the network.
        precision: ``"float32"`` or ``"bf16"``.

    Returns:
        The step, and the network that it trains.

    Example:
        >>> step, model = smelt.bench.models.smelt_step("mlp")
        >>> 2 < step() < 3
        True
    """
    functions.manual_seed(0)
    model = MODELS[name][0]()
    x, y = map(functions.from_numpy, batch(name))
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> float:
        optimizer.zero_grad()
        with autocast(precision):
            loss = losses.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step, model


def torch_model(model: nn.Sequential) -> Any:
    """The same network with the same weights: channels first, as PyTorch has them.

    Args:
        model: one of this module's.

    Returns:
        A PyTorch module.

    Raises:
        ImportError: PyTorch is not installed.

    """
    torch: Any = importlib.import_module("torch")

    layers: list[Any] = []
    shape: tuple[int, int, int] | None = None  # (H, W, C) before a Flatten
    side = 28
    for layer in model:
        if isinstance(layer, nn.Conv2d):
            twin: Any = torch.nn.Conv2d(layer.in_channels, layer.out_channels, 3, padding=1, bias=False)
            twin.weight.data = torch.from_numpy(layer.weight.numpy().transpose(0, 3, 1, 2).copy())
            shape = (side, side, layer.out_channels)
        elif isinstance(layer, nn.BatchNorm2d):
            twin = torch.nn.BatchNorm2d(layer.channels)
        elif isinstance(layer, nn.MaxPool2d):
            twin = torch.nn.MaxPool2d(2)
            side //= 2
            assert shape is not None
            shape = (side, side, shape[2])
        elif isinstance(layer, nn.Linear):
            twin = torch.nn.Linear(layer.in_features, layer.out_features)
            weight = layer.weight.numpy()
            if shape is not None:  # the first after Flatten: columns in (C, H, W) order
                weight = weight.reshape(-1, *shape).transpose(0, 3, 1, 2).reshape(weight.shape)
                shape = None
            twin.weight.data = torch.from_numpy(weight.copy())
            assert layer.bias is not None
            twin.bias.data = torch.from_numpy(layer.bias.numpy().copy())
        else:
            twin = {nn.ReLU: torch.nn.ReLU, nn.Flatten: torch.nn.Flatten}[type(layer)]()
        layers.append(twin)
    return torch.nn.Sequential(*layers)


def torch_steps(name: str, model: nn.Sequential, precision: str = "float32") -> Iterator[tuple[str, Step]]:
    """PyTorch's step in every configuration that may be its best; weights are those of `model` now.

    Args:
        name: of the network.
        model: smelt's, before its first step.
        precision: ``"float32"`` or ``"bf16"``.

    Returns:
        Configurations and steps.

    Raises:
        ImportError: PyTorch is not installed.

    """
    torch: Any = importlib.import_module("torch")

    x, y = batch(name)
    base = torch_model(model)
    for threads, compiled, last in itertools.product((1, 2), (False, True), (False, True)):
        if last and x.ndim < 4:
            continue
        torch.set_num_threads(threads)
        twin = copy.deepcopy(base)
        images = torch.from_numpy(x if x.ndim == 2 else x.transpose(0, 3, 1, 2).copy())
        if last:
            twin = twin.to(memory_format=torch.channels_last)
            images = images.contiguous(memory_format=torch.channels_last)
        labels = torch.from_numpy(y)
        optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-3, fused=True)
        forward = torch.compile(twin) if compiled else twin

        def step(
            forward: Any = forward, optimizer: Any = optimizer, images: Any = images, labels: Any = labels
        ) -> float:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = torch.nn.functional.cross_entropy(forward(images), labels)
            loss.backward()
            optimizer.step()
            return float(loss.item())

        label = f"{threads} threads, {'compiled' if compiled else 'eager'}{', channels_last' if last else ''}"

        def timed(step: Step = step, threads: int = threads) -> float:
            torch.set_num_threads(threads)
            return step()

        yield label, timed
