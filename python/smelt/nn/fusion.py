"""Which neighbouring layers run as one, and how.

`Sequential` and `Residual` ask here before they call their modules; nothing else fuses, so what a hand-written ``forward``
does is what it says. A fused form has the bits of its parts.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..functions._types import pair
from .activations import GELU, ReLU, Sigmoid, SiLU, Tanh
from .layers import Conv1d, Conv2d, Linear
from .module import Module
from .normalisation import BatchNorm1d, BatchNorm2d, LayerNorm, RMSNorm
from .pooling import MaxPool2d

__all__ = ["unfused"]

_ACTIVATIONS: dict[type, str] = {ReLU: "relu", Tanh: "tanh", Sigmoid: "sigmoid", SiLU: "silu"}
_PRODUCTS = (Linear, Conv1d, Conv2d)
_BATCH_NORMS = (BatchNorm1d, BatchNorm2d)
_NORMS = (LayerNorm, RMSNorm)


class _State(threading.local):
    off = False


_state = _State()


@contextmanager
def unfused() -> Iterator[None]:
    """Runs each layer by itself meanwhile, in this thread: to look at what lies between them, or to compare.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
        >>> with nn.unfused():
        ...     y = model(smelt.ones(1, 4))
        >>> bool((model(smelt.ones(1, 4)) == y).all())
        True
    """
    before, _state.off = _state.off, True
    try:
        yield
    finally:
        _state.off = before


def is_on() -> bool:
    return not _state.off


def is_plain(module: Module) -> bool:
    """Nobody listens to it, and a recorded step may have it: its output may stay within a fused call."""
    return not module._pre_hooks and not module._post_hooks and module.recordable


def ending(layer: Any, follower: Any) -> str | None:
    """The activation that a layer takes over from the module behind it, or None."""
    kind = type(layer)
    if kind not in _PRODUCTS and kind not in _BATCH_NORMS:
        return None
    name = _ACTIVATIONS.get(type(follower))
    if type(follower) is GELU:
        name = "gelu_tanh" if follower.approximate == "tanh" else "gelu"
    if name is None or (kind in _BATCH_NORMS and name != "relu"):
        return None
    return name if layer.activation is None and is_plain(layer) and is_plain(follower) else None


def pooled(layer: Any, followers: Sequence[Any]) -> tuple[str | None, tuple[int, int], int] | None:
    """Of a batch norm whose pass can end with max pooling: the activation between, the windows, how many modules it takes."""
    if type(layer) is not BatchNorm2d or not is_plain(layer) or not followers:
        return None
    name = ending(layer, followers[0])
    taken = 0 if name is None else 1
    pool = followers[taken] if taken < len(followers) else None
    if type(pool) is not MaxPool2d or not is_plain(pool):
        return None
    kernel = pair("kernel_size", pool.kernel_size)
    steps = kernel if pool.stride is None else pair("stride", pool.stride)
    if steps != kernel or pair("padding", pool.padding) != (0, 0):
        return None
    return name or layer.activation, kernel, taken + 1


def takes_residual(layer: Any) -> bool:
    """Whether a sum can be added in a layer's own pass: a batch norm's."""
    return type(layer) in _BATCH_NORMS and layer.activation is None and is_plain(layer)


def takes_sum(layer: Module) -> bool:
    """Whether a layer can add its input up itself: a norm."""
    return type(layer) in _NORMS and is_plain(layer)


def table(rows: Sequence[tuple[str, str, str]]) -> str:
    """The fusions of a model as text."""
    if not rows:
        return "no layers are fused"
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join(f"{where:{widths[0]}}  {what:{widths[1]}}  {how}" for where, what, how in rows)


class Fusions(list[tuple[str, str, str]]):
    """Rows of (paths, layers, fused call); as text a table."""

    def __repr__(self) -> str:
        return table(self)


def of(module: Module, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """What is fused in a module and in those below it."""
    rows: Any = getattr(module, "_fusions", None)
    if rows is not None:
        yield from ((" + ".join(f"{prefix}{path}" for path in paths), what, how) for paths, what, how in rows())
    for name, child in module.named_children():
        yield from of(child, f"{prefix}{name}.")
