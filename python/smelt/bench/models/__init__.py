"""The networks of the benchmarks, in smelt and in PyTorch, with equal weights.

A step is a function that takes one training step (forward, backward, AdamW) on a fixed batch and returns the loss before it
as a float.
"""

from __future__ import annotations

import copy
import importlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ... import functions, losses, nn, optim
from ..._core import Tensor
from ...precision import autocast
from ...recorded import capture
from . import networks, peers

if TYPE_CHECKING:
    import numpy as np

__all__ = ["MODELS", "Network", "batch", "smelt_step"]

Step = Callable[[], Any]


@dataclass(frozen=True)
class Network:
    """A network of the benchmarks.

    Attributes:
        build: makes it.
        shape: of one input.
        rows: of a batch.
        tokens: the vocabulary of integer inputs and targets; 0 for floats.
        classes: of the targets of images; 0 where the target is of the input's shape.

    Example:
        >>> smelt.bench.models.MODELS["mlp"].shape
        (784,)
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    rows: int = 128
    tokens: int = 0
    classes: int = 10


MODELS = {
    "mlp": Network(networks.mlp, (784,)),
    "cnn": Network(networks.cnn, (28, 28, 1)),
    "block": Network(networks.block, (512,), rows=4096, classes=0),
    "resnet18": Network(networks.resnet18, (32, 32, 3), rows=32),
    "resnet50": Network(networks.resnet50, (96, 96, 3), rows=16, classes=1000),
    "gpt": Network(networks.gpt, (256,), rows=16, tokens=256),
    "gpt2": Network(networks.gpt2, (256,), rows=1, tokens=50257),
}


def batch(name: str, rows: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs and targets.

    Args:
        name: of the network.
        rows: how many, the network's own number by default.

    Returns:
        Inputs, float32 or int64 tokens, and int64 labels or float32 targets, from a fixed seed.

    Example:
        >>> smelt.bench.models.batch("mlp", 2)[0].shape
        (2, 784)
    """
    import numpy as np

    network, rng = MODELS[name], np.random.default_rng(0)
    shape = (rows or network.rows, *network.shape)
    if network.tokens:
        return rng.integers(0, network.tokens, shape), rng.integers(0, network.tokens, shape)
    x = rng.normal(size=shape).astype(np.float32)
    if not network.classes:
        return x, rng.normal(size=shape).astype(np.float32)
    return x, rng.integers(0, network.classes, shape[0])


def smelt_step(
    name: str, precision: str = "float32", device: str = "cpu", rows: int | None = None, read: bool = True
) -> tuple[Step, nn.Module]:
    """smelt's training step.

    Args:
        name: of the network.
        precision: ``"float32"`` or ``"bf16"``.
        device: where it trains.
        rows: of a batch, the network's own number by default.
        read: the step gives the loss as a number, for which it waits; else as a tensor.

    Returns:
        The step, and the network that it trains.

    Example:
        >>> step, model = smelt.bench.models.smelt_step("mlp")
        >>> 2 < step() < 3
        True
    """
    functions.manual_seed(0)
    model = MODELS[name].build().to(device)
    x, y = (functions.from_numpy(part).to(device) for part in batch(name, rows))
    loss_of = losses.cross_entropy if MODELS[name].classes else losses.mse_loss
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)

    @capture
    def train(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        with autocast(precision):
            loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return (lambda: float(train(x, y).item())) if read else (lambda: train(x, y)), model


def torch_steps(
    name: str,
    model: nn.Module,
    precision: str = "float32",
    device: str = "cpu",
    rows: int | None = None,
    read: bool = True,
) -> Iterator[tuple[str, Step]]:
    """PyTorch's step in every configuration that may be its best; weights are those of `model` now.

    Args:
        name: of the network.
        model: smelt's, before its first step.
        precision: ``"float32"`` or ``"bf16"``.
        device: where it trains: on the CPU with 1 and 2 threads.
        rows: of a batch, the network's own number by default.
        read: steps give the loss as a number.

    Returns:
        Configurations and steps.

    Raises:
        ImportError: PyTorch is not installed.

    """
    torch: Any = importlib.import_module("torch")
    dynamo: Any = importlib.import_module("torch._dynamo")
    dynamo.config.recompile_limit = (
        64  # beyond it a compiled step quietly becomes an eager one; each configuration counts
    )

    x, y = batch(name, rows)
    base = peers.build(model)
    loss_of = torch.nn.functional.cross_entropy if MODELS[name].classes else torch.nn.functional.mse_loss
    thread_counts = (1, 2) if device == "cpu" else (1,)
    for threads, compiled, last in itertools.product(thread_counts, (False, True), (False, True)):
        if last and x.ndim < 4:
            continue
        torch.set_num_threads(threads)
        twin = copy.deepcopy(base).to(device)
        images = torch.from_numpy(x if x.ndim < 4 else x.transpose(0, 3, 1, 2).copy())
        if last:
            twin = twin.to(memory_format=torch.channels_last)
            images = images.contiguous(memory_format=torch.channels_last)
        images, labels = images.to(device), torch.from_numpy(y).to(device)
        optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-3, fused=True)
        forward = torch.compile(twin) if compiled else twin

        def step(forward: Any = forward, optimizer: Any = optimizer, images: Any = images, labels: Any = labels) -> Any:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=precision == "bf16"):
                out = forward(images)
                loss = loss_of(out.flatten(0, -2), labels.flatten()) if out.ndim == 3 else loss_of(out, labels)
            loss.backward()
            optimizer.step()
            return float(loss.item()) if read else loss.detach()

        label = f"{'compiled' if compiled else 'eager'}{', channels_last' if last else ''}"
        if device == "cpu":
            label = f"{threads} threads, {label}"

        def timed(step: Step = step, threads: int = threads) -> Any:
            torch.set_num_threads(threads)
            return step()

        yield label, timed
