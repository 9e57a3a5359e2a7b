"""Parts of a model that do not train."""

from __future__ import annotations

from typing import TypeVar

from .module import Module

__all__ = ["freeze", "unfreeze"]

M = TypeVar("M", bound=Module)


def freeze(module: M) -> M:
    """Excludes a module from training: no gradients, and batch norm and dropout stay in evaluation mode.

    Args:
        module: the module, with all below it.

    Returns:
        The module itself.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        >>> nn.freeze(model).train().training
        False
    """
    for part in module.modules():
        if not part._frozen:
            part._thawed = part.training
        part._frozen = True
        part.training = False
    return module.requires_grad_(False)


def unfreeze(module: M) -> M:
    """Undoes :func:`freeze`: gradients again, and the mode from before, or what ``train`` and ``eval`` asked for since.

    Args:
        module: the module, with all below it.

    Returns:
        The module itself.

    Example:
        >>> layer = nn.unfreeze(nn.freeze(nn.Linear(2, 2)))
        >>> layer.weight.requires_grad and layer.training
        True
    """
    for part in module.modules():
        if part._frozen:
            part.training = part._thawed
        part._frozen = False
    return module.requires_grad_(True)
