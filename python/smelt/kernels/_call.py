"""One call of one kernel on arrays: shapes by letters, dtypes, overlap, memory for the results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._core import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable

_FLOATING = ("float32", "float64", "bfloat16", "float16")
_HALF = ("bfloat16", "float16")


class Call:
    """Collects the arguments of a kernel. Shapes are letters such as ``"N H W C"``; ``"*rows D"`` takes any leading axes as
    rows, ``"*n"`` any shape. A letter has one value throughout a call; ``size[letter]`` is it."""

    def __init__(self, slot: str, impl: str | None = None) -> None:
        self.slot = slot
        self.impl = impl or ""
        self.size: dict[str, int] = {}
        self.dtype: str | None = None  # of the first array
        self.device = ""  # of all arrays
        self.fields: dict[str, Any] = {}
        self._leading: dict[str, tuple[int, ...]] = {}
        self._read: list[tuple[str, Tensor]] = []
        self._written: list[tuple[str, Tensor]] = []
        self._numpy: bool | None = None  # the first array is NumPy's, and so are the results
        self._results: list[Any] = []

    def error(self, text: str) -> ValueError:
        return ValueError(f"{self.slot}: {text}")

    # ------------------------------------------------------------------------------------------------------ arguments

    def input(
        self, name: str, array: Any, shape: str, dtype: str | Sequence[str] | None = None, written: bool = False
    ) -> None:
        """An array that is read, or also written: of `dtype`, or of one floating dtype that all of a call share."""
        tensor = self._share(name, array, reading=not written)
        self._check_dtype(name, tensor, dtype)
        self._bind(name, tuple(tensor.shape), shape)
        if self._numpy is None:
            self._numpy = not isinstance(array, Tensor)
        (self._written if written else self._read).append((name, tensor))
        self.fields[name] = tensor

    def optional(self, name: str, array: Any, shape: str, dtype: str | None = None, written: bool = False) -> None:
        """An array that may be left out."""
        if array is None:
            self.fields[name] = None
        else:
            self.input(name, array, shape, dtype, written)

    def output(
        self, name: str, given: Any, shape: str, dtype: str | None = None, accumulate: bool = False, flag: str = ""
    ) -> None:
        """An array that is written: the caller's, or a new one. With `accumulate` its content is added to."""
        dtype = dtype or self.dtype
        assert dtype is not None
        if flag:
            self.fields[flag] = bool(accumulate)
        if given is None:
            if accumulate:
                raise self.error(f"accumulate needs {name}, to whose content it adds, got None")
            result, tensor = self._new(name, self._shape(shape), dtype)
        else:
            result, tensor = given, self._share(name, given)
            self._check_dtype(name, tensor, dtype)
            self._bind(name, tuple(tensor.shape), shape)
        self._written.append((name, tensor))
        self._results.append(result)
        self.fields[name] = tensor

    @property
    def statistics(self) -> str:
        """The dtype of parameters and statistics: float32 beside halves."""
        assert self.dtype is not None
        return "float32" if self.dtype in _HALF else self.dtype

    def sums(self, name: str, given: Any) -> str:
        """The dtype of a result that may also have that of the sums: the given array's, where it does."""
        assert self.dtype is not None
        wide = self.dtype in _HALF and given is not None and self._share(name, given).dtype.name == "float32"
        return "float32" if wide else self.dtype

    def dtype_of(self, name: str, array: Any, allowed: Sequence[str]) -> str:
        """The dtype of an array that is only written."""
        tensor = self._share(name, array)
        self._check_dtype(name, tensor, allowed)
        self._numpy = not isinstance(array, Tensor)
        return tensor.dtype.name

    def check_index(self, name: str, low: int, high: int, ignore: int | None = None) -> None:
        """IndexError unless every element of an index array is in [low, high) or `ignore`."""
        index = self.fields[name]
        if index is not None:
            ignored = low if ignore is None else ignore
            fields = {"index": index, "n": math.prod(index.shape), "low": low, "high": high, "ignore": ignored}
            try:
                _core.call_slot("check_index", {**fields, "dtype": index.dtype.name}, "", self.device, self.slot)
            except IndexError as error:
                problem = str(error).split(": index ", 1)[-1]
                raise IndexError(f"{self.slot}: {name} {problem}") from None

    def from_host(self, name: str, array: np.ndarray) -> Tensor:
        """Numbers of the call's own, moved to where its arrays are."""
        tensor = _core.from_numpy(array, False)
        if self.device not in ("", "cpu"):
            tensor = tensor.to(self.device)
        self.fields[name] = tensor
        return tensor

    def run(self, **fields: Any) -> Any:
        """Runs the kernel; gives what was written, in the order of the outputs."""
        self._check_overlap()
        if not isinstance(self.impl, str):
            raise TypeError(f"{self.slot}: impl must be a name, got {self.impl!r}")
        device = self.device or "cpu"
        if self.impl and not any(_core.fits_impl(name, self.impl) for name in _core.impls(self.slot, device)):
            raise self.error(f"impl must be one of {', '.join(_core.impls(self.slot, device))}, got {self.impl!r}")
        _core.call_slot(self.slot, {**self.fields, **fields}, self.impl, device)
        return self._results[0] if len(self._results) == 1 else tuple(self._results)

    # --------------------------------------------------------------------------------------------------------- checks

    def _share(self, name: str, array: Any, reading: bool = False) -> Tensor:
        """A tensor on the memory of an array, which may be read-only if it is only read; on the device of the others."""
        tensor = self._share_anywhere(name, array, reading)
        self.device = self.device or tensor.device
        if tensor.device != self.device:
            raise self.error(f"{name} must be on {self.device} as what comes before it, got {tensor.device}")
        return tensor

    def _share_anywhere(self, name: str, array: Any, reading: bool) -> Tensor:
        if isinstance(array, Tensor):
            if array.requires_grad:
                raise self.error(f"{name} must be off the tape; use x.detach()")
            return array
        if not reading and type(array).__module__.partition(".")[0] in ("jax", "jaxlib"):
            raise self.error(f"{name} cannot be written: arrays of JAX never change")
        if isinstance(array, np.ma.MaskedArray):
            raise self.error(f"{name} has a mask, which kernels do not know; pass {name}.filled(...)")
        try:
            if isinstance(array, np.ndarray):
                return _core.from_numpy(array, False, reading)
            if hasattr(array, "__dlpack__"):
                return _core.from_dlpack(array, False, reading)
        except (ValueError, TypeError, BufferError) as error:
            reason = str(error).split(": ", 1)[-1].split(";")[0]
            numpy = "; use np.ascontiguousarray" if isinstance(array, np.ndarray) else "; make it contiguous"
            hint = numpy if "row-major" in reason else ""
            raise self.error(f"{name} cannot be used where it lies: {reason}{hint}") from None
        raise TypeError(f"{self.slot}: {name} must be a NumPy array or have __dlpack__, got {type(array).__name__}")

    def _check_dtype(self, name: str, tensor: Tensor, dtype: str | Sequence[str] | None) -> None:
        got = tensor.dtype.name
        wanted = (dtype,) if isinstance(dtype, str) else dtype or ((self.dtype,) if self.dtype else _FLOATING)
        if got not in wanted:
            raise TypeError(f"{self.slot}: {name} must be {' or '.join(wanted)}, got {got}")
        if dtype is None or self.dtype is None:
            self.dtype = self.dtype or got

    def _bind(self, name: str, shape: tuple[int, ...], letters: str) -> None:
        wanted = letters.split()
        got: tuple[int, ...] = shape
        if wanted and wanted[0].startswith("*"):
            wanted = [wanted[0][1:], *wanted[1:]]
            leading = shape[: len(shape) - (len(wanted) - 1)]
            if len(shape) < len(wanted) - 1:
                raise self.error(f"{name} must have at least {len(wanted) - 1} axes {self._text(wanted)}, got {shape}")
            known = self._leading.setdefault(wanted[0], leading)
            got = (math.prod(leading), *shape[len(leading) :])
            if wanted[0] in self.size and known != leading:
                raise self.error(f"{name} must be {self._wanted(wanted, letters)}, got {shape}")
        if len(got) != len(wanted) or any(self.size.get(w, n) != n for w, n in zip(wanted, got)):
            raise self.error(f"{name} must be {self._wanted(wanted, letters)}, got {shape}")
        for letter, n in zip(wanted, got):
            if letter.isdigit():
                if int(letter) != n:
                    raise self.error(f"{name} must be {self._text(wanted)}, got {shape}")
            else:
                self.size[letter] = n

    @staticmethod
    def _text(letters: Iterable[str]) -> str:
        return "(" + ", ".join(letters) + ")"

    def _wanted(self, wanted: list[str], letters: str) -> str:
        """The letters, and the extents where some are known."""
        text, expected = self._text(wanted), self._expected(letters)
        return text if text == expected else f"{text} = {expected}"

    def _expected(self, letters: str) -> str:
        parts: list[str] = []
        for letter in letters.split():
            if letter.startswith("*"):
                parts += map(str, self._leading.get(letter[1:], ("...",)))
            else:
                parts.append(str(self.size.get(letter, letter)))
        return self._text(parts)

    def _shape(self, letters: str) -> tuple[int, ...]:
        shape: list[int] = []
        for letter in letters.split():
            if letter.startswith("*"):
                shape += self._leading[letter[1:]]
            else:
                shape.append(int(letter) if letter.isdigit() else self.size[letter])
        return tuple(shape)

    def _new(self, name: str, shape: tuple[int, ...], dtype: str) -> tuple[Any, Tensor]:
        size = _core.dtypes[dtype].itemsize
        if math.prod(n for n in shape if n) * size >= 2**62:
            raise self.error(f"{name} would have shape {shape}, more bytes than there are addresses")
        if self._numpy and dtype != "bfloat16":
            import numpy as np

            array = np.empty(shape, dtype)
            return array, _core.from_numpy(array, False)
        tensor = _core.full(list(shape), 0, dtype, self.device or "cpu")
        return tensor, tensor

    def _check_overlap(self) -> None:
        ranges = [(n, t._address(), t.nbytes) for n, t in (*self._written, *self._read)]
        for i, (name, begin, length) in enumerate(ranges[: len(self._written)]):
            for other, other_begin, other_length in ranges[i + 1 :]:
                if length and other_length and begin < other_begin + other_length and other_begin < begin + length:
                    raise self.error(f"{name} must not overlap {other}: {length} and {other_length} bytes share memory")


def choose(slot: str, what: str, value: str, table: Any) -> int:
    """The number of a name in an enumeration."""
    names = table if isinstance(table, dict) else {n: i for i, n in enumerate(table)}
    if value not in names:
        raise ValueError(f"{slot}: {what} must be one of {', '.join(names)}, got {value!r}")
    return int(names[value])


ACTIVATIONS = ("none", "relu", "tanh", "sigmoid", "gelu", "gelu_tanh", "silu")
REDUCTIONS = ("none", "mean", "sum")


def activation(slot: str, name: str | None) -> int:
    return choose(slot, "activation", name or "none", ACTIVATIONS)


def strides(shape: Sequence[int]) -> list[int]:
    """Elements from one index of each axis to the next, of a dense array."""
    out, step = [], 1
    for n in reversed(shape):
        out.append(step)
        step *= n
    return out[::-1]
