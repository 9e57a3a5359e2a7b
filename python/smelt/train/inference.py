"""Outputs of a model for many rows, and the device on which that happens."""

from __future__ import annotations

import os
from typing import Any

from .. import _core
from .._core import Tensor
from ..autograd import no_grad
from ..data import ArrayDataset, Loader
from ..nn.module import Module, evaluating
from ..precision import autocast
from .steps import check_finite


def resolve_device(device: str) -> str:
    """``"auto"`` is a GPU where there is one; SMELT_DEVICE overrides it."""
    if not isinstance(device, str):
        raise TypeError(f"device must be a name such as 'auto', 'cpu' or 'cuda', got {device!r}")
    if device == "auto":
        device = os.environ.get("SMELT_DEVICE") or ("cpu" if _core.why_unavailable("cuda") else "cuda")
    return _core.parse_device(device)


def wide(outputs: Any) -> Any:
    """Outputs for metrics, and for users of NumPy, which has no bfloat16."""
    return outputs.float() if isinstance(outputs, Tensor) and outputs.dtype.name == "bfloat16" else outputs


def predict(model: Module, x: Any, preprocess: Any, device: str, batch_size: int, precision: str = "float32") -> Tensor:
    """Outputs for inputs, batch by batch, in evaluation mode."""
    if batch_size < 1:
        raise ValueError(f"predict: batch_size must be at least 1, got {batch_size}")
    dataset = x if isinstance(x, ArrayDataset) else ArrayDataset(x)
    loader, outputs = Loader(dataset, batch_size), []
    with evaluating(model), no_grad(), autocast(precision):
        for batch, _ in loader:
            check_finite("predict: inputs", batch, loader.rows)
            inputs = preprocess(batch) if preprocess is not None else batch
            outputs.append(wide(model(_core.to_device(inputs, device))))
    return _core.concat(outputs, 0)
