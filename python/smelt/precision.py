"""Mixed precision: which operations compute in bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import Any

from . import _core
from .autograd import refuse_lazy

__all__ = ["autocast", "autocast_policies"]

_DTYPES = {"bf16": "bfloat16", "bfloat16": "bfloat16", "fp32": "float32", "float32": "float32"}


def working_dtype(what: str, precision: Any) -> str:
    """The dtype that a precision, by name or dtype, stands for."""
    name = precision if isinstance(precision, str) else getattr(precision, "name", None)
    if name not in _DTYPES:
        raise ValueError(f"{what} must be 'bf16' or 'float32', got {precision!r}")
    return _DTYPES[name]


class autocast:  # noqa: N801  (a context manager, named as the field names it)
    """Matrix products and convolutions compute in bfloat16 meanwhile: a context manager, or a decorator.

    Parameters stay float32, and their gradients are written in float32. The operations of `autocast_policies` that are
    ``"low"`` take float32 operands in bfloat16 and sum in float32; those that are ``"float32"`` take bfloat16 operands in
    float32; all others follow their operands, bfloat16 where these differ. Only the forward pass needs it; it holds for the
    current thread. Source: Micikevicius et al., "Mixed Precision Training" (ICLR 2018), with bfloat16, which needs no scaling
    of the loss.

    Args:
        precision: ``"bf16"`` (``"bfloat16"``), or ``"float32"`` (``"fp32"``) to switch it off within another one.

    Raises:
        ValueError: another precision.

    Example:
        >>> layer, x = nn.Linear(4, 2), smelt.ones(3, 4)
        >>> with smelt.autocast("bf16"):
        ...     y = layer(x)
        >>> y.dtype
        smelt.bfloat16
        >>> y.sum().backward()
        >>> layer.weight.grad.dtype
        smelt.float32
    """

    def __init__(self, precision: Any = "bf16") -> None:
        self._dtype = working_dtype("autocast: precision", precision)
        self._previous: list[Any] = []

    def __enter__(self) -> None:
        self._previous.append(_core.autocast_dtype())
        _core.set_autocast_dtype(self._dtype)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _core.set_autocast_dtype(self._previous.pop())

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        refuse_lazy("autocast", function)

        @wraps(function)
        def inner(*args: Any, **kwargs: Any) -> Any:
            with autocast(self._dtype):
                return function(*args, **kwargs)

        return inner


def autocast_policies() -> dict[str, str]:
    """What :class:`autocast` does to each operation; those that are not named follow their operands.

    Returns:
        By operation ``"low"`` (float32 operands are taken in the low dtype, bfloat16) or ``"float32"`` (the other way).

    Example:
        >>> smelt.autocast_policies()["conv2d"], smelt.autocast_policies()["cross_entropy"]
        ('low', 'float32')
    """
    return dict(_core.AUTOCAST)
