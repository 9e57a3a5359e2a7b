"""smelt trains AI models at hardware speed from a small wheel.

Tensors, layers, losses, optimizers and a trainer over native kernels. Images are (N, H, W, C), sequences (N, L, C).

Example:
    >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> opt = optim.AdamW(model.parameters(), lr=1e-3)
    >>> loss = losses.cross_entropy(model(smelt.randn(8, 4)), smelt.randint(0, 3, 8))
    >>> loss.backward()
    >>> opt.step()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import (
    _core,
    kernels,
    losses,
    nn,
    optim,
    runtime,
    schedule,
)
from . import functions as _functions
from ._core import DType, Tensor, __version__
from ._tensor import HookHandle
from .autograd import Function, FunctionContext, enable_grad, gradcheck, is_grad_enabled, no_grad
from .functions import *  # noqa: F403
from .precision import autocast, autocast_policies
from .runtime import (
    empty_cache,
    get_float32_matmul,
    get_num_threads,
    memory_stats,
    reset_peak_memory,
    set_float32_matmul,
    set_memory_limit,
    set_num_threads,
)

if TYPE_CHECKING:  # these load when used
    from . import bench, cuda, data, datasets, metrics, train
    from .profiler import Profile, profile
    from .recorded import Capture, Plan, capture
    from .serialization import load, read_metadata, register, save
    from .train import Trainer

float32: DType = _core.dtypes["float32"]
float64: DType = _core.dtypes["float64"]
bfloat16: DType = _core.dtypes["bfloat16"]
float16: DType = _core.dtypes["float16"]
int64: DType = _core.dtypes["int64"]
int32: DType = _core.dtypes["int32"]
uint8: DType = _core.dtypes["uint8"]
bool_: DType = _core.dtypes["bool"]

freeze = nn.freeze
unfreeze = nn.unfreeze

_DTYPES = ["bfloat16", "bool_", "float16", "float32", "float64", "int32", "int64", "uint8"]

__all__ = [
    *_functions.__all__,
    *_DTYPES,
    "Capture",
    "DType",
    "Function",
    "FunctionContext",
    "HookHandle",
    "Plan",
    "Profile",
    "Tensor",
    "Trainer",
    "__version__",
    "autocast",
    "autocast_policies",
    "bench",
    "capture",
    "cuda",
    "data",
    "datasets",
    "empty_cache",
    "enable_grad",
    "freeze",
    "get_float32_matmul",
    "get_num_threads",
    "gradcheck",
    "is_grad_enabled",
    "kernels",
    "load",
    "losses",
    "memory_stats",
    "metrics",
    "nn",
    "no_grad",
    "optim",
    "profile",
    "read_metadata",
    "register",
    "reset_peak_memory",
    "runtime",
    "save",
    "schedule",
    "set_float32_matmul",
    "set_memory_limit",
    "set_num_threads",
    "train",
    "unfreeze",
]

_MODULES = ("bench", "cuda", "data", "datasets", "metrics", "train")
_NAMES = {
    "Trainer": "train",
    **dict.fromkeys(("Capture", "Plan", "capture"), "recorded"),
    **dict.fromkeys(("Profile", "profile"), "profiler"),
    **dict.fromkeys(("load", "read_metadata", "register", "save"), "serialization"),
}


def __getattr__(name: str) -> object:
    import importlib

    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in _NAMES:
        return getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)
    raise AttributeError(f"module 'smelt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})
