"""Modules made of modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .. import functions
from .._core import Tensor
from . import fusion
from .module import Module

__all__ = ["Identity", "ModuleList", "Residual", "Sequential"]


class _Numbered(Module):
    """Children named 0, 1, 2 ..."""

    def __init__(self, *modules: Module):
        super().__init__()
        for i, module in enumerate(modules):
            if not isinstance(module, Module):
                raise TypeError(f"{type(self).__name__}: item {i} must be a Module, got {type(module).__name__}")
            setattr(self, str(i), module)

    def _items(self) -> list[Module]:
        return [child for _, child in self.named_children()]

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[Module]:
        return iter(self._items())

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return (
                type(self)(*self._items()[index]) if isinstance(self, Sequential) else ModuleList(self._items()[index])
            )
        return self._items()[index]

    def append(self, module: Module) -> None:
        """Adds a module at the end.

        Args:
            module: the module.

        Example:
            >>> model = nn.Sequential(nn.ReLU())
            >>> model.append(nn.Flatten())
            >>> len(model)
            2
        """
        setattr(self, str(len(self)), module)


class Sequential(_Numbered):
    """Modules called one after the other, each with the output of the one before.

    Neighbours that smelt has one kernel for run as one, with the same bits; :meth:`Module.fusions` lists them.

    Args:
        modules: the modules, in order.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> model(smelt.ones(3, 4)).shape
        (3, 2)
    """

    def forward(self, x: Any) -> Any:
        return _run(self._items(), x)

    def _fusions(self) -> list[tuple[list[str], str, str]]:
        names, items = zip(*self.named_children(), strict=True) if len(self) else ((), ())
        return _found(names, items)

    def _architecture_arguments(self) -> list[Module]:
        return self._items()


class Residual(Module):
    """activation(body(x) + shortcut(x)): a block and the way around it (He et al., 2016).

    A batch norm at the end of `body` adds the shortcut and applies a ReLU in its own pass. In a `Sequential` a layer norm
    or RMS norm that follows, or that the next `Residual` begins with, adds up in its own pass.

    Args:
        body: the block; its output has the shape of the shortcut's.
        shortcut: a module for the way around, None for x itself.
        activation: None or ``"relu"``, of the sum.

    Raises:
        ValueError: body and shortcut give different shapes.

    Example:
        >>> block = nn.Residual(nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)))
        >>> block(smelt.ones(2, 4)).shape
        (2, 4)
    """

    def __init__(self, body: Module, shortcut: Module | None = None, activation: str | None = None):
        super().__init__()
        for name, module in (("body", body), ("shortcut", shortcut)):
            if not isinstance(module, Module) and (name == "body" or module is not None):
                raise TypeError(f"Residual: {name} must be a Module, got {type(module).__name__}")
        if activation not in (None, "relu"):
            raise ValueError(f"Residual: activation must be None or 'relu', got {activation!r}")
        self.body: Any = body
        self.shortcut, self.activation = shortcut, activation

    def forward(self, x: Tensor) -> Tensor:
        last = self._last()
        if last is None or not fusion.is_on():
            return self._sum(self.body(x), self._around(x))
        y = _run(self.body._items()[:-1], x)
        around = self._around(x)
        if y.dtype != around.dtype or y.shape != around.shape:
            return self._sum(last(y), around)
        total: Tensor = last._call(last._ending, y, self.activation, around)
        return total

    def _around(self, x: Tensor) -> Tensor:
        return x if self.shortcut is None else self.shortcut(x)

    def _sum(self, y: Tensor, around: Tensor) -> Tensor:
        total = _added(y, around)
        return functions.relu(total) if self.activation else total

    def _last(self) -> Any:
        """The batch norm at the body's end, where it can add the shortcut."""
        body = self.body
        if type(body) is not Sequential or not fusion.is_plain(body) or not len(body):
            return None
        return body[-1] if fusion.takes_residual(body[-1]) else None

    def _branch(self) -> bool:
        """Whether its sum can be left to the layer behind it."""
        return self.activation is None and self.shortcut is None and fusion.is_plain(self) and self._last() is None

    def _norm(self) -> Any:
        """The norm that the body begins with, where it can add up what comes in."""
        body = self.body
        if self.shortcut is not None or not fusion.is_plain(self) or self._last() is not None:
            return None
        if type(body) is not Sequential or not fusion.is_plain(body) or not len(body):
            return None
        return body[0] if fusion.takes_sum(body[0]) else None

    def _behind_norm(self, x: Tensor) -> Tensor:
        y: Tensor = _run(self.body._items()[1:], x)
        return y

    def _fusions(self) -> list[tuple[list[str], str, str]]:
        last = self._last()
        if last is None:
            return []
        tail = ", activation='relu'" if self.activation else ""
        names = [name for name, _ in self.body.named_children()]
        return [([f"body.{names[-1]}", "shortcut"], f"{type(last).__name__} + sum", f"batch_norm(residual{tail})")]

    def extra_repr(self) -> str:
        return f"activation={self.activation!r}" if self.activation else ""


def _added(branch: Tensor, around: Tensor) -> Tensor:
    if branch.shape != around.shape:
        raise ValueError(f"Residual: body and shortcut must give one shape, got {branch.shape} and {around.shape}")
    return branch + around


def _leaves_sum(module: Any, follower: Any) -> bool:
    """Whether a Residual's sum is left to the module behind it."""
    if type(module) is not Residual or follower is None or not module._branch():
        return False
    return fusion.takes_sum(follower) or (type(follower) is Residual and follower._norm() is not None)


def _covers(x: Any, windows: tuple[int, int]) -> bool:
    """Whether images have a window at all; the pooling itself tells what it thinks of others."""
    return len(x.shape) == 4 and x.shape[1] >= windows[0] and x.shape[2] >= windows[1]


def _run(items: Sequence[Any], x: Any) -> Any:
    if not fusion.is_on():
        for module in items:
            x = module(x)
        return x
    parts: tuple[Any, Any] | None = None  # of a Residual, whose sum is x
    at = 0
    while at < len(items):
        module, follower = items[at], items[at + 1] if at + 1 < len(items) else None
        at += 1
        around = None  # of this module, where its body's norm has added up
        if parts is not None and (parts[0].dtype != parts[1].dtype or parts[0].shape != parts[1].shape):
            x, parts = _added(*parts), None
        if parts is not None:
            norm = module if fusion.takes_sum(module) else module._norm()
            around, x = norm._call(norm._after_sum, *parts)
            parts = None
            if norm is module:
                continue
        if _leaves_sum(module, follower):
            parts = (module.body(x), x) if around is None else (module._behind_norm(x), around)
        elif around is not None:
            x = module._sum(module._behind_norm(x), around)
        elif (found := fusion.pooled(module, items[at : at + 2])) and _covers(x, found[1]):
            name, windows, taken = found
            x = module._call(module._ending, x, name, None, windows)
            at += taken
        elif follower is not None and (name := fusion.ending(module, follower)):
            x = module._call(module._ending, x, name)
            at += 1
        else:
            x = module(x)
    return x


def _found(names: Any, items: Any) -> list[tuple[list[str], str, str]]:
    """What `_run` fuses of some modules: names, layers, the call."""
    rows = []
    at = 0
    while at < len(items):
        module, follower = items[at], items[at + 1] if at + 1 < len(items) else None
        at += 1
        if follower is None:
            continue
        if _leaves_sum(module, follower):
            inner = fusion.takes_sum(follower)
            norm = follower if inner else follower._norm()
            path = names[at] if inner else f"{names[at]}.body.{next(iter(follower.body.named_children()))[0]}"
            call = "add_layer_norm" if type(norm).__name__ == "LayerNorm" else "add_rms_norm"
            rows.append(([names[at - 1], path], f"sum + {type(norm).__name__}", f"{call}()"))
            continue
        pooled = fusion.pooled(module, items[at : at + 2])
        if pooled is not None:
            name, windows, taken = pooled
            kinds = " + ".join(type(item).__name__ for item in items[at - 1 : at + taken])
            tail = f"activation='{name}', " if name else ""
            rows.append((list(names[at - 1 : at + taken]), kinds, f"batch_norm({tail}max_pool={windows})"))
            at += taken
            continue
        name = fusion.ending(module, follower)
        if name is not None:
            call = {"Linear": "linear", "Conv1d": "conv1d", "Conv2d": "conv2d"}.get(type(module).__name__, "batch_norm")
            kinds = f"{type(module).__name__} + {type(follower).__name__}"
            rows.append(([names[at - 1], names[at]], kinds, f"{call}(activation='{name}')"))
            at += 1
    return rows


class ModuleList(_Numbered):
    """A list of modules that are part of the model; a forward calls them as it likes.

    Args:
        modules: the modules, in order.

    Example:
        >>> layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])
        >>> len(layers)
        3
    """

    def __init__(self, modules: Iterable[Module] = ()):
        super().__init__(*modules)

    def _architecture_arguments(self) -> list[list[Module]]:
        return [self._items()]


class Identity(Module):
    """Returns its input.

    Example:
        >>> nn.Identity()(smelt.ones(2))
        tensor([1., 1.])
    """

    def forward(self, x: Tensor) -> Tensor:
        return x
