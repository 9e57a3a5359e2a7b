"""Batch norm folded into the layer before it, for models that no longer train."""

from __future__ import annotations

import copy
import inspect
import logging
from collections import Counter
from typing import Any, TypeVar

import numpy as np

from .. import _core
from .containers import Residual, Sequential
from .fusion import is_plain
from .layers import Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d, Linear
from .module import Module, Parameter
from .normalisation import BatchNorm1d, BatchNorm2d

__all__ = ["fold_batch_norm"]

M = TypeVar("M", bound=Module)

_log = logging.getLogger("smelt")
_TRANSPOSED = (ConvTranspose1d, ConvTranspose2d)
_LAYERS = (Linear, Conv1d, Conv2d, *_TRANSPOSED)
_NORMS = (BatchNorm1d, BatchNorm2d)


def fold_batch_norm(model: M) -> M:
    """A copy for evaluation, without the batch norms that directly follow a linear layer or convolution in a `Sequential`.

    With its running statistics a batch norm is one factor and one number for each channel: weight and bias of the layer
    before take them up, computed in float64 and rounded once (Jacob et al., 2018, section 3.2). What follows moves up by a
    place in the `Sequential`, also in the names of `state_dict`.

    Kept are norms behind anything else, norms and layers with hooks, subclasses, layers with an activation, and layers whose
    weight is used in several places. Kept is also a norm at the end of a `Residual`'s body, whose pass adds the shortcut: the
    sum would be a pass of its own without it. The log says how many were folded.

    Args:
        model: a trained model; it is not changed.

    Returns:
        The copy, in evaluation mode. Train the model itself: statistics of a batch are no longer taken here.

    Raises:
        TypeError: it is not a module.

    Example:
        >>> block = nn.Residual(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()))
        >>> nn.fold_batch_norm(nn.Sequential(block, nn.BatchNorm2d(4), nn.Linear(4, 2)))
        Sequential(
          (0): Residual(
            (body): Sequential(
              (0): Conv2d(4, 4, kernel_size=(3, 3), stride=1, padding=1, dilation=1, groups=1, bias=True)
              (1): ReLU()
            )
          )
          (1): BatchNorm2d(4, eps=1e-05, momentum=0.1)
          (2): Linear(4, 2, bias=True)
        )
    """
    if not isinstance(model, Module):
        raise TypeError(f"fold_batch_norm: needs a module, got {type(model).__name__}")
    folded = copy.deepcopy(model).eval()
    norms = sum(type(module) in _NORMS for module in folded.modules())
    uses = _uses(folded)
    adding = {id(module._last()) for module in folded.modules() if type(module) is Residual}
    count = 0
    for module in list(folded.modules()):
        if type(module) is Sequential:
            count += _fold_neighbours(module, uses, adding)
    _log.info("fold_batch_norm: folded %d of %d batch norms", count, norms)
    return folded


def _uses(model: Module) -> Counter[int]:
    """How many places have a module, or a parameter."""
    uses: Counter[int] = Counter()
    for module in model.modules():
        uses.update(id(value) for value in module.__dict__.values() if isinstance(value, (Module, Parameter)))
    return uses


def _fold_neighbours(sequential: Sequential, uses: Counter[int], adding: set[int]) -> int:
    items = sequential._items()
    kept: list[Module] = []
    for item in items:
        if kept and id(item) not in adding and _fits(kept[-1], item, uses):
            _fold(kept[-1], item)
        else:
            kept.append(item)
    count = len(items) - len(kept)
    if count:
        for name, _ in list(sequential.named_children()):
            delattr(sequential, name)
        for module in kept:
            sequential.append(module)
    return count


def _fits(layer: Any, norm: Any, uses: Counter[int]) -> bool:
    if type(layer) not in _LAYERS or type(norm) not in _NORMS or layer.activation is not None:
        return False
    if not is_plain(layer) or not is_plain(norm) or layer.weight.device != norm.weight.device:
        return False
    alone = all(uses[id(part)] <= 1 for part in (layer, layer.weight, layer.bias) if part is not None)
    channels = layer.out_features if type(layer) is Linear else layer.out_channels
    return alone and channels == norm.channels and layer.weight.dtype.is_floating


def _wide(tensor: Any) -> Any:
    return _core.to_device(_core.cast(tensor._detach(), "float64"), "cpu").numpy()


def _fold(layer: Any, norm: Any) -> None:
    mean, variance, gain, shift = map(_wide, (norm.running_mean, norm.running_var, norm.weight, norm.bias))
    factor = gain / np.sqrt(variance + norm.eps)
    weight = _wide(layer.weight)
    if type(layer) in _TRANSPOSED:  # (in, ..., out / groups): channel c is column c % each of group c // each
        each = weight.shape[-1]
        factors = factor.reshape(layer.groups, 1, *(1,) * (weight.ndim - 2), each)
        scaled = (weight.reshape(layer.groups, -1, *weight.shape[1:]) * factors).reshape(weight.shape)
    else:
        scaled = weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))
    bias = shift - mean * factor if layer.bias is None else shift + (_wide(layer.bias) - mean) * factor

    old = layer.weight
    for name, value in (("weight", scaled), ("bias", bias)):
        narrow = _core.cast(_core.from_numpy(np.ascontiguousarray(value), True), old.dtype)
        setattr(layer, name, Parameter(_core.to_device(narrow, str(old.device)), old.requires_grad))
    layer.activation = norm.activation
    _rewrite(layer, bias=True, activation=norm.activation)


def _rewrite(layer: Module, **changed: Any) -> None:
    """The constructor's arguments, from which a saved model is made again, with some of them changed."""
    arguments, options = layer._arguments
    bound = inspect.signature(type(layer)).bind(*arguments, **options).arguments
    layer.__dict__["_arguments"] = ((), {**bound, **changed})
