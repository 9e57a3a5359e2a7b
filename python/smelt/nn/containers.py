"""Modules made of modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from .._core import Tensor
from .module import Module

__all__ = ["Identity", "ModuleList", "Sequential"]


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

    Args:
        modules: the modules, in order.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> model(smelt.ones(3, 4)).shape
        (3, 2)
    """

    def forward(self, x: Any) -> Any:
        for module in self._items():
            x = module(x)
        return x

    def _architecture_arguments(self) -> list[Module]:
        return self._items()


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
