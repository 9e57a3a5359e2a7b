"""The class Tensor: what the compiled class lacks is put onto it here, most of it the functions of the package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from numbers import Real
from typing import Any

import numpy as np

from . import _core
from . import functions as f
from ._core import DType, Tensor
from .functions import tensor
from .functions._types import Array, DTypeLike, names_device, shown

__all__ = ["DType", "Tensor", "tensor"]


def numpy(self: Tensor) -> Array:
    """The tensor as a NumPy array.

    The memory is shared where it can be: on the CPU, off the tape and of a dtype that NumPy has. Otherwise it is a copy,
    float32 for bfloat16.

    Returns:
        Array of the shape of the tensor.

    Example:
        >>> smelt.tensor([1.0, 2.0]).numpy()
        array([1., 2.], dtype=float32)
    """
    return self._numpy()


def tolist(self: Tensor) -> Any:
    """The tensor as nested lists of Python numbers.

    Returns:
        A list, or a number for shape ().

    Example:
        >>> smelt.tensor([[1, 2]]).tolist()
        [[1, 2]]
    """
    return self._numpy().tolist()


def to(self: Tensor, *where: Any, dtype: DTypeLike | None = None, device: str | None = None) -> Tensor:
    """The tensor with another dtype or on another device; itself where nothing changes.

    Args:
        where: dtypes and devices, in any order.
        dtype: the dtype by name.
        device: the device by name.

    Returns:
        Tensor of the same shape.

    Raises:
        ValueError: no such device.
        TypeError: no such dtype.

    Example:
        >>> smelt.tensor([1.7]).to("int64")
        tensor([1])
    """
    for item in where:
        if names_device(item):
            device = item
        else:
            dtype = item
    out = self if dtype is None else _core.cast(self, dtype)
    return out if device is None else _core.to_device(out, device)


def astype(self: Tensor, dtype: DTypeLike) -> Tensor:
    """The tensor converted to a dtype.

    Floats to integers truncate; what does not fit saturates, and NaN becomes 0.

    Args:
        dtype: the new dtype.

    Returns:
        Tensor of the same shape; itself where it has the dtype.

    Example:
        >>> smelt.tensor([1, 0]).astype(bool)
        tensor([ True, False])
    """
    return _core.cast(self, dtype)


def _converter(name: str, dtype: str) -> Callable[[Tensor], Tensor]:
    def convert(self: Tensor) -> Tensor:
        return _core.cast(self, dtype)

    convert.__name__ = convert.__qualname__ = name
    convert.__doc__ = f"""The tensor converted to {dtype}.

    Returns:
        Tensor of the same shape; itself where it has the dtype.

    Example:
        >>> smelt.tensor([1, 0]).{name}().dtype
        smelt.{dtype}
    """
    return convert


def detach(self: Tensor) -> Tensor:
    """A tensor on the same memory, off the tape.

    Returns:
        Tensor that does not require a gradient.

    Example:
        >>> x = smelt.ones(2)
        >>> x.requires_grad = True
        >>> (x * 2).detach().requires_grad
        False
    """
    return self._detach()


def copy(self: Tensor) -> Tensor:
    """A copy in memory of its own, off the tape.

    Returns:
        Tensor of the same shape.

    Example:
        >>> x = smelt.zeros(2)
        >>> y = x.copy()
        >>> y[0] = 1
        >>> x
        tensor([0., 0.])
    """
    return _core.copy(self._detach())


def backward(self: Tensor, grad: Any = None, retain_graph: bool = False, create_graph: bool = False) -> None:
    """Gradients of this tensor with respect to all leaves that it depends on, into their ``.grad``.

    The first gradient after ``zero_grad()`` or an optimizer's ``step()`` replaces what ``.grad`` holds; those that
    follow add to it.

    Args:
        grad: gradient of this tensor itself: a tensor of its shape and dtype, or an array or number of its shape; None
            means 1 and needs a tensor of one element.
        retain_graph: keep the tape for another backward.
        create_graph: not supported.

    Raises:
        RuntimeError: nothing below requires a gradient, the tape was freed, or ``create_graph`` is asked for.
        TypeError: ``grad`` is something else, or a tensor of another dtype.
        ValueError: ``grad`` has another shape, or is missing where it is needed.

    Example:
        >>> x = smelt.tensor([1.0, 2.0], requires_grad=True)
        >>> (x * x).sum().backward()
        >>> x.grad
        tensor([2., 4.])
    """
    if create_graph:
        raise RuntimeError("backward: gradients of gradients are not supported, got create_graph=True")
    if grad is not None and not isinstance(grad, Tensor):
        if not isinstance(grad, (np.ndarray, Real, list, tuple)):
            raise TypeError(f"backward: grad must be a tensor or array, got {shown(grad)}")
        grad = tensor(grad, self.dtype, self.device)
    _core.backward(self, grad, retain_graph)


class HookHandle:
    """Undoes a hook.

    Example:
        >>> x = smelt.tensor([1.0], requires_grad=True)
        >>> handle = x.register_hook(lambda grad: grad * 10)
        >>> handle.remove()
        >>> (x * 2).sum().backward()
        >>> x.grad
        tensor([2.])
    """

    def __init__(self, remove: Callable[[], None]):
        self._remove = remove

    def remove(self) -> None:
        """Takes the hook away.

        Example:
            >>> from smelt import HookHandle
            >>> HookHandle(lambda: print("gone")).remove()
            gone
        """
        self._remove()


def register_hook(self: Tensor, hook: Callable[[Tensor], Tensor | None]) -> HookHandle:
    """Calls a function with the gradient of this tensor whenever backward has computed it.

    Args:
        hook: takes the gradient; returns one to use in its place, or None.

    Returns:
        A handle with ``remove()``.

    Raises:
        RuntimeError: the tensor does not require a gradient.

    Example:
        >>> x = smelt.tensor([1.0], requires_grad=True)
        >>> handle = x.register_hook(lambda grad: grad * 10)
        >>> (x * 2).sum().backward()
        >>> x.grad
        tensor([20.])
    """

    def checked(grad: Tensor) -> Tensor | None:
        result = hook(grad)
        if result is not None and not isinstance(result, Tensor):
            raise TypeError(f"hook: must return a tensor or None, got {type(result).__name__}")
        return result

    number = self._register_hook(checked)
    return HookHandle(lambda: self._remove_hook(number))


def requires_grad_(self: Tensor, requires_grad: bool = True) -> Tensor:
    """Sets whether backward leaves a gradient in ``.grad``.

    Args:
        requires_grad: the new value.

    Returns:
        The tensor itself.

    Raises:
        TypeError: the dtype is not floating.
        ValueError: the tensor is a result on the tape.

    Example:
        >>> smelt.ones(2).requires_grad_().requires_grad
        True
    """
    self.requires_grad = requires_grad
    return self


def assign_(self: Tensor, value: Any) -> Tensor:
    """Overwrites the content in place, broadcasting and converting as needed.

    Args:
        value: tensor, array or number whose shape broadcasts to this one's.

    Returns:
        The tensor itself.

    Raises:
        RuntimeError: the tensor requires a gradient and ``smelt.no_grad()`` is not in force.

    Example:
        >>> smelt.zeros(2).assign_(7)
        tensor([7., 7.])
    """
    _core.assign(self, value if isinstance(value, Tensor) else tensor(value, self.dtype))
    return self


def copy_(self: Tensor, source: Tensor) -> Tensor:
    """Overwrites the content in place with that of a tensor of the same shape.

    Args:
        source: tensor of this shape.

    Returns:
        The tensor itself.

    Raises:
        TypeError: ``source`` is not a tensor.
        ValueError: the shapes differ.
        RuntimeError: the tensor requires a gradient and ``smelt.no_grad()`` is not in force.

    Example:
        >>> smelt.zeros(2).copy_(smelt.ones(2))
        tensor([1., 1.])
    """
    if not isinstance(source, Tensor):
        raise TypeError(f"copy_: source must be a tensor, got {type(source).__name__}; use assign_")
    if source.shape != self.shape:
        raise ValueError(f"copy_: source must have shape {self.shape}, got {source.shape}")
    _core.assign(self, source)
    return self


def _iterate(self: Tensor) -> Iterator[Tensor]:
    if self.ndim == 0:
        raise TypeError("iter: a tensor of shape () cannot be iterated over")
    return (self[i] for i in range(len(self)))


def _array(self: Tensor, dtype: Any = None, copy: bool | None = None) -> Array:
    array = self._numpy()
    converts = dtype is not None and array.dtype != dtype
    if copy is False and (converts or (self.nbytes and array.ctypes.data != self._address())):
        raise ValueError(
            f"numpy: {self.dtype} tensor cannot be shared as asked for, it needs a copy; leave copy=False out"
        )
    if converts:
        return array.astype(dtype)
    return array.copy() if copy else array


def _copy(self: Tensor) -> Tensor:
    return copy(self)


def _deepcopy(self: Tensor, memo: dict[int, Any]) -> Tensor:
    if self.grad_fn is not None:
        raise RuntimeError("deepcopy: only leaves of the tape can be copied; use x.detach()")
    out = copy(self)
    if self.requires_grad:
        out.requires_grad = True
    return out


def _contains(self: Tensor, value: Any) -> bool:
    return bool(f.any(self == value))


def _format(self: Tensor, spec: str) -> str:
    return format(self.item(), spec) if self.ndim == 0 else format(repr(self), spec)


def _repr(self: Tensor) -> str:
    name = "tensor("
    try:
        values = self._numpy()
    except RuntimeError:  # a tensor without memory
        return f"{name}..., shape={self.shape}, dtype={self.dtype})"
    body = np.array2string(values, precision=4, separator=", ", prefix=name, threshold=1000, floatmode="maxprec")
    if values.size == 0 and self.ndim != 1:
        body = f"[], shape={self.shape}"
    notes = "" if self.dtype in ("float32", "int64", "bool") else f", dtype={self.dtype}"
    notes += "" if self.device == "cpu" else f", device='{self.device}'"
    if self.grad_fn is not None:
        notes += f", grad_fn=<{self.grad_fn}>"
    elif self.requires_grad:
        notes += ", requires_grad=True"
    return f"{name}{body}{notes})"


def _get_data(self: Tensor) -> Tensor:
    return self._detach()


def _set_data(self: Tensor, value: Tensor) -> None:
    copy_(self._detach(), value)


_item = Tensor.item
_init = Tensor.__init__


def _from_tensor(self: Tensor, data: Tensor) -> None:
    if not isinstance(data, Tensor):
        raise TypeError(f"Tensor: data must be a tensor, got {type(data).__name__}; use smelt.tensor")
    _init(self, data)


def item(self: Tensor) -> Any:
    """The value of a tensor of one element, as a Python number.

    Returns:
        A float, an int or a bool, by the dtype.

    Raises:
        ValueError: the tensor has not exactly one element.

    Example:
        >>> smelt.tensor([2.5]).item()
        2.5
    """
    return _item(self)


_TENSOR = """A dense, row-major array of one dtype on one device, which may take part in gradients.

    Made by :func:`smelt.tensor`, :func:`smelt.zeros` and their relatives; operators and methods follow NumPy's.

    Args:
        data: a tensor; the new one shares its memory.

    Example:
        >>> x = smelt.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> x.shape, x.dtype, (x @ x.T).sum().item()
        ((2, 2), smelt.float32, 52.0)
    """
_DTYPE = """An element type, such as ``smelt.float32``; equal to its name and to NumPy's type.

    Example:
        >>> smelt.float32 == "float32", smelt.float32 == np.float32, smelt.float32.itemsize
        (True, True, 4)
    """
_PROPERTIES = {
    Tensor: {
        "T": "The axes in reverse; of a matrix only a mark is set, which a matrix product consumes without a copy.",
        "device": "Where the memory lies, such as ``'cpu'``.",
        "dtype": "The element type.",
        "grad": "The gradient that backward left, None where there is none; assignment fills it, None empties it.",
        "grad_fn": "The op on the tape that the tensor is a result of, None for a leaf.",
        "is_leaf": "Whether the tensor is not a result on the tape.",
        "itemsize": "Bytes of an element.",
        "nbytes": "Bytes of all elements.",
        "ndim": "The number of axes.",
        "requires_grad": "Whether backward passes here; on a leaf it may be set.",
        "shape": "The extents, a tuple of integers.",
        "size": "The number of elements.",
    },
    DType: {
        "is_floating": "Whether it is one of the floating types.",
        "itemsize": "Bytes of an element.",
        "name": "The name, such as ``'float32'``.",
    },
}

_FUNCTIONS = [
    "abs",
    "adaptive_avg_pool2d",
    "all",
    "any",
    "argmax",
    "argmin",
    "argsort",
    "broadcast_to",
    "ceil",
    "clip",
    "cos",
    "cumsum",
    "erf",
    "exp",
    "expand_dims",
    "expm1",
    "flatten",
    "flip",
    "floor",
    "gather",
    "isinf",
    "isnan",
    "leaky_relu",
    "log",
    "log1p",
    "log_softmax",
    "masked_fill",
    "matmul",
    "max",
    "mean",
    "min",
    "moveaxis",
    "nonzero",
    "pad",
    "permute",
    "pow",
    "prod",
    "reciprocal",
    "relu",
    "reshape",
    "roll",
    "round",
    "rsqrt",
    "scatter_add",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "softmax",
    "softplus",
    "sort",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "std",
    "sum",
    "swapaxes",
    "take",
    "tanh",
    "topk",
    "tril",
    "triu",
    "trunc",
    "var",
]
_METHODS = [assign_, astype, backward, copy, copy_, detach, item, numpy, register_hook, requires_grad_, to, tolist]
_CONVERTERS = {
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "bfloat16": "bfloat16",
    "int": "int32",
    "long": "int64",
    "bool": "bool",
}


def _complete() -> None:
    attributes: dict[str, Any] = {name: getattr(f, name) for name in _FUNCTIONS}
    attributes.update({method.__name__: method for method in _METHODS})
    attributes.update({name: _converter(name, dtype) for name, dtype in _CONVERTERS.items()})
    attributes.update(
        transpose=f.swapaxes,
        view=f.reshape,
        unsqueeze=f.expand_dims,
        clone=copy,
        data=property(_get_data, _set_data, doc="The values off the tape; assignment writes into the same memory."),
        __init__=_from_tensor,
        __iter__=_iterate,
        __array__=_array,
        __copy__=_copy,
        __deepcopy__=_deepcopy,
        __contains__=_contains,
        __format__=_format,
        __repr__=_repr,
    )
    for name, value in attributes.items():
        setattr(Tensor, name, value)
    Tensor.__doc__, DType.__doc__ = _TENSOR, _DTYPE
    for owner, texts in _PROPERTIES.items():
        for name, text in texts.items():
            given = vars(owner)[name]
            setattr(owner, name, property(given.fget, given.fset, doc=text))


_complete()
