"""The tape: when it records, functions with a gradient of one's own, and a check of gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from . import _core
from ._core import Tensor

__all__ = ["Function", "FunctionContext", "enable_grad", "gradcheck", "is_grad_enabled", "no_grad"]


def refuse_lazy(name: str, function: Callable[..., Any]) -> None:
    """A generator or coroutine would run after the decorator has ended."""
    import inspect

    lazy = (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    if any(is_lazy(function) for is_lazy in lazy):
        raise TypeError(
            f"{name}: a decorated function must not be a generator or coroutine; use it as a context manager inside"
        )


class _GradMode:
    _enabled: bool

    def __init__(self) -> None:
        self._previous: list[bool] = []

    def __enter__(self) -> None:
        self._previous.append(_core.grad_enabled())
        _core.set_grad_enabled(self._enabled)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _core.set_grad_enabled(self._previous.pop())

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        from functools import wraps

        refuse_lazy(type(self).__name__, function)

        @wraps(function)
        def inner(*args: Any, **kwargs: Any) -> Any:
            with type(self)():
                return function(*args, **kwargs)

        return inner


class no_grad(_GradMode):  # noqa: N801  (a context manager, named as the field names it)
    """Nothing goes on the tape meanwhile: a context manager, or a decorator. It holds for the current thread.

    Example:
        >>> x = smelt.ones(2, dtype="float32").requires_grad_()
        >>> with smelt.no_grad():
        ...     y = x * 2
        >>> y.requires_grad
        False
    """

    _enabled = False


class enable_grad(_GradMode):  # noqa: N801
    """The tape records meanwhile, also inside :class:`no_grad`.

    Example:
        >>> x = smelt.ones(2).requires_grad_()
        >>> with smelt.no_grad(), smelt.enable_grad():
        ...     y = x * 2
        >>> y.requires_grad
        True
    """

    _enabled = True


def is_grad_enabled() -> bool:
    """Whether the tape records in this thread.

    Returns:
        True unless :class:`no_grad` is in force.

    Example:
        >>> smelt.is_grad_enabled()
        True
    """
    return _core.grad_enabled()


class FunctionContext:
    """What the forward of a :class:`Function` leaves for its backward. Any attribute may be set on it.

    Example:
        >>> context = smelt.FunctionContext()
        >>> context.save_for_backward(smelt.ones(1))
        >>> context.saved_tensors
        (tensor([1.]),)
    """

    def __init__(self) -> None:
        self._saved: tuple[tuple[Tensor, int], ...] = ()
        self.needs_input_grad: tuple[bool, ...] = ()

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keeps tensors for backward, which then checks that nobody has written to them.

        Args:
            tensors: inputs, outputs or intermediate results.

        Example:
            >>> smelt.FunctionContext().save_for_backward(smelt.ones(1), smelt.zeros(1))
        """
        self._saved = tuple((t._detach(), t._version) for t in tensors)

    @property
    def saved_tensors(self) -> tuple[Tensor, ...]:
        """What was saved."""
        for t, version in self._saved:
            if t._version != version:
                raise RuntimeError(
                    f"backward: a tensor of shape {t.shape} that backward needs was changed in place after it was used"
                )
        return tuple(t for t, _ in self._saved)


class Function:
    """An op with a forward and a backward of one's own, in Python.

    Derive a class with two static methods and call its ``apply``.

    Example:
        >>> class Cube(smelt.Function):
        ...     @staticmethod
        ...     def forward(context, x):
        ...         context.save_for_backward(x)
        ...         return x * x * x
        ...
        ...     @staticmethod
        ...     def backward(context, grad):
        ...         (x,) = context.saved_tensors
        ...         return grad * 3 * x * x
        >>> x = smelt.tensor([2.0], requires_grad=True)
        >>> Cube.apply(x).sum().backward()
        >>> x.grad
        tensor([12.])
    """

    @staticmethod
    def forward(context: FunctionContext, *args: Any) -> Any:
        """Computes the outputs, a tensor or a tuple of them; nothing goes on the tape meanwhile.

        Args:
            context: keeps what backward needs.
            args: what ``apply`` was given.
        """
        raise TypeError("Function: a derived class must define forward")

    @staticmethod
    def backward(context: FunctionContext, *grads: Tensor) -> Any:
        """Computes one gradient for each argument of forward, None where there is none.

        Args:
            context: what forward left.
            grads: one for each output.
        """
        raise TypeError("Function: a derived class must define backward")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Runs forward and puts the op on the tape.

        Args:
            args: handed to forward; tensors among them take part in the gradient.

        Returns:
            What forward returned.

        Raises:
            TypeError: forward returned something that is not a tensor.

        Example:
            >>> class Double(smelt.Function):
            ...     @staticmethod
            ...     def forward(context, x):
            ...         return x * 2
            >>> Double.apply(smelt.ones(2))
            tensor([2., 2.])
        """
        context = FunctionContext()
        context.needs_input_grad = tuple(isinstance(a, Tensor) and a.requires_grad for a in args)
        with no_grad():
            result = cls.forward(context, *args)
        single = isinstance(result, Tensor)
        outputs: list[Any] = [result] if single else list(result)
        for y in outputs:
            if not isinstance(y, Tensor):
                raise TypeError(f"{cls.__name__}: forward must return tensors, got {type(y).__name__}")

        def call(grads: Sequence[Tensor]) -> list[Tensor | None]:
            given = cls.backward(context, *grads)
            items = list(given) if isinstance(given, (tuple, list)) else [given]
            for item in items:
                if item is not None and not isinstance(item, Tensor):
                    raise TypeError(f"{cls.__name__}: backward must return tensors or None, got {type(item).__name__}")
            return items

        inputs = [a if isinstance(a, Tensor) else None for a in args]
        recorded = _core.record_function(cls.__name__, inputs, outputs, call)
        return recorded[0] if single else tuple(recorded)


def gradcheck(
    function: Callable[..., Tensor], inputs: Tensor | Sequence[Tensor], eps: float = 1e-5, tolerance: float = 1e-6
) -> bool:
    """Compares the gradients of a function with central differences, in float64.

    The difference quotient (f(x + h) - f(x - h)) / 2h has an error of about h^2 f''' / 6 + 1e-16 |f| / h, which the
    defaults keep below 1e-6 for values and derivatives around 1.

    Args:
        function: takes the inputs and returns a floating tensor of any shape.
        inputs: float64 tensors, or one; those that require a gradient are checked, each element of them.
        eps: the distance h.
        tolerance: largest allowed error, relative to the larger of 1 and the gradient.

    Returns:
        True.

    Raises:
        ValueError: a gradient is wrong; the message has input, position and both values. Or an input is not float64,
            or none requires a gradient.
        TypeError: an input, or what the function returns, is not a tensor.

    Example:
        >>> x = smelt.tensor([0.3, -2.0], dtype="float64", requires_grad=True)
        >>> smelt.gradcheck(lambda x: (x * x).sum(), [x])
        True
    """
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    for i, x in enumerate(inputs):
        if not isinstance(x, Tensor):
            raise TypeError(f"gradcheck: input {i} must be a tensor, got {type(x).__name__}; use smelt.tensor")
    if not any(x.requires_grad for x in inputs):
        raise ValueError("gradcheck: an input must require a gradient, none does; use requires_grad=True")
    for i, x in enumerate(inputs):
        if x.requires_grad and x.dtype != "float64":
            raise ValueError(f"gradcheck: input {i} must be float64, got {x.dtype}")
        x.grad = None
    y = function(*inputs)
    if not isinstance(y, Tensor):
        raise TypeError(f"gradcheck: the function must return a tensor, got {type(y).__name__}")
    weights = np.cos(np.arange(y.size) * 1.7).reshape(y.shape)  # a direction that no symmetry hides
    y.backward(_core.cast(_core.from_numpy(np.array(weights), True), y.dtype))
    for i, x in enumerate(inputs):
        if not x.requires_grad:
            continue
        grad = np.zeros(x.shape) if x.grad is None else x.grad.numpy()
        values = x.detach().numpy()
        for at in np.ndindex(*x.shape):
            old = values[at]
            ends = []
            for step in (eps, -eps):
                values[at] = old + step
                with no_grad():
                    ends.append(float((function(*inputs).numpy() * weights).sum()))
            values[at] = old
            expected = (ends[0] - ends[1]) / (2 * eps)
            if not abs(grad[at] - expected) <= tolerance * max(1.0, abs(expected)):
                raise ValueError(
                    f"gradcheck: gradient of input {i} at {at} must be {expected:.8g} (central difference), "
                    f"got {grad[at]:.8g}"
                )
    return True
