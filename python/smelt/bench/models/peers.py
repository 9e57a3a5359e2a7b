"""The same networks in PyTorch, with modules of the same names, channels first. Imported only where PyTorch is."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ... import nn
    from .networks import GPT


def build(model: nn.Module) -> Any:
    """The twin of a network, with the same weights."""
    torch: Any = importlib.import_module("torch")
    twin = _twin(torch, model)
    state, shape = {}, _before_flatten(model)
    for name, value in model.state_dict().items():
        array = value.numpy()
        if array.ndim == 4:
            array = array.transpose(0, 3, 1, 2)
        elif name in shape:  # the columns of a linear layer behind a flattening, (H, W, C) here and (C, H, W) there
            array = array.reshape(-1, *shape[name]).transpose(0, 3, 1, 2).reshape(array.shape)
        state[name.replace("batches", "num_batches_tracked")] = torch.from_numpy(array.copy())
    missing, unexpected = twin.load_state_dict(state, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing), (missing, unexpected)
    return twin


def _before_flatten(model: nn.Module) -> dict[str, tuple[int, int, int]]:
    """The (H, W, C) that the linear layer behind a Flatten sees; here that of the one network that has one."""
    names = [name for name, _ in model.named_modules()]
    kinds = [type(module).__name__ for module in model.modules()]
    if "Flatten" not in kinds:
        return {}
    return {f"{names[kinds.index('Flatten') + 1]}.weight": (7, 7, 64)}


def _twin(torch: Any, layer: Any) -> Any:
    """A module that does the same, with children of the same names."""
    t = torch.nn
    kind = type(layer).__name__
    if kind == "Sequential":
        return t.Sequential(*(_twin(torch, child) for child in layer))
    if kind == "Conv2d":
        size, stride, padding = layer.kernel_size, layer.stride, layer.padding
        return t.Conv2d(layer.in_channels, layer.out_channels, size, stride, padding, bias=layer.bias is not None)
    simple = {
        "BatchNorm2d": lambda: t.BatchNorm2d(layer.channels),
        "Linear": lambda: t.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None),
        "LayerNorm": lambda: t.LayerNorm(layer.features),
        "Embedding": lambda: t.Embedding(layer.rows, layer.features),
        "MaxPool2d": lambda: t.MaxPool2d(layer.kernel_size, layer.stride, layer.padding),
        "ReLU": t.ReLU,
        "GELU": t.GELU,
        "Flatten": t.Flatten,
        "Identity": t.Identity,
        "GlobalAvgPool2d": lambda: t.Sequential(t.AdaptiveAvgPool2d(1), t.Flatten()),
    }
    if kind in simple:
        return simple[kind]()
    forwards = {"Residual": _residual, "MultiHeadAttention": _attention, "GPT": _gpt}
    twin = t.Module()
    for name, child in layer.named_children():
        twin.add_module(name, _twin(torch, child))
    return _module(torch, twin, lambda self, x: forwards[kind](torch, layer, self, x))


def _module(torch: Any, parts: Any, forward: Any) -> Any:
    made = type("Twin", (torch.nn.Module,), {"forward": forward})()
    for name, child in parts.named_children():
        made.add_module(name, child)
    return made


def _residual(torch: Any, layer: Any, self: Any, x: Any) -> Any:
    y = self.body(x) + (x if layer.shortcut is None else self.shortcut(x))
    return torch.nn.functional.relu(y) if layer.activation else y


def _attention(torch: Any, layer: Any, self: Any, x: Any) -> Any:
    b, t, d = x.shape
    q, k, v = self.qkv(x).reshape(b, t, 3, layer.heads, d // layer.heads).permute(2, 0, 3, 1, 4)
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=layer.causal)
    return self.out(y.permute(0, 2, 1, 3).reshape(b, t, d))


def _gpt(torch: Any, layer: GPT, self: Any, tokens: Any) -> Any:
    x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
    return torch.nn.functional.linear(self.blocks(x), self.tokens.weight)
