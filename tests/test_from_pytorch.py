"""The page for those who come from PyTorch: its function for weights, on models of PyTorch where that is installed, and on
stand-ins for them everywhere."""

import re

import numpy as np
import pytest

import smelt
from smelt import nn
from tests.processes import ROOT


def from_torch(model, flattened=None):
    text = (ROOT / "docs" / "from-pytorch.md").read_text()
    namespace = {}
    exec(next(b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "def from_torch" in b), namespace)
    return namespace["from_torch"](model, flattened)


class Values:
    """What PyTorch's parameters offer here."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    cpu = detach

    def numpy(self):
        return self.array


def stand_in(kind, parameters, buffers=(), children=()):
    class Module:
        def named_parameters(self, recurse):
            return [(name, Values(array)) for name, array in parameters]

        def named_buffers(self, recurse):
            return [(name, Values(array)) for name, array in buffers]

        def named_modules(self):
            yield "", self
            for name, child in children:
                for path, module in child.named_modules():
                    yield f"{name}.{path}".rstrip("."), module

    Module.__name__ = kind
    return Module()


def test_weights_by_the_type_of_module(rng):
    conv, transposed, sequence = (
        rng.normal(size=(6, 3, 3, 3)),
        rng.normal(size=(6, 4, 2, 5)),
        rng.normal(size=(6, 2, 4)),
    )
    packed, linear, one = rng.normal(size=(24, 8)), rng.normal(size=(5, 12)), np.ones(6)
    attention = stand_in(
        "MultiheadAttention",
        [("in_proj_weight", packed), ("in_proj_bias", packed[:, 0])],
        children=[("out_proj", stand_in("Linear", [("weight", packed[:8]), ("bias", packed[0])]))],
    )
    model = stand_in("Net", [], children=[
        ("stem", stand_in("Conv2d", [("weight", conv), ("bias", one)])),
        ("up", stand_in("ConvTranspose2d", [("weight", transposed)])),
        ("along", stand_in("Conv1d", [("weight", sequence)])),
        ("norm", stand_in("BatchNorm2d", [("weight", one)], [("num_batches_tracked", np.array(3))])),
        ("attention", attention),
        ("head", stand_in("Linear", [("weight", linear)])),
        ("out_proj", stand_in("Linear", [("weight", linear)])),
    ])  # fmt: skip
    state = from_torch(model, {"head": (3, 2, 2)})
    want = {
        "stem.weight": conv.transpose(0, 2, 3, 1),
        "stem.bias": one,
        "up.weight": transposed.transpose(0, 2, 3, 1),
        "along.weight": sequence.transpose(0, 2, 1),
        "norm.weight": one,
        "norm.batches": np.array(3),
        "attention.qkv.weight": packed,
        "attention.qkv.bias": packed[:, 0],
        "attention.out.weight": packed[:8],
        "attention.out.bias": packed[0],
        "head.weight": linear.reshape(5, 3, 2, 2).transpose(0, 2, 3, 1).reshape(5, 12),
        "out_proj.weight": linear,
    }
    assert state.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_array_equal(state[name], value, err_msg=name)


def same(got, want):
    scale = np.abs(want).max()
    # Sums of at most a few thousand float32 terms, one after the other through some ten layers.
    np.testing.assert_allclose(got, want, rtol=0, atol=2048 * 2.0**-23 * scale)


def blocks(nn, residual):
    """A residual network of pictures, with a stem of 3x3x3 kernels, groups, a transposed convolution and a flattening."""

    class Block(nn.Module):
        def __init__(self, channels, out):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(out)
            self.conv2, self.bn2 = nn.Conv2d(out, out, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(out)
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride=2, bias=False), nn.BatchNorm2d(out))

        def forward(self, x):
            y = self.bn2(self.conv2(residual(self.bn1(self.conv1(x)))))
            return residual(y + self.shortcut(x))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2))
            self.blocks = nn.Sequential(Block(16, 32), Block(32, 64))
            self.up = nn.ConvTranspose2d(64, 24, 3, stride=2, padding=1, groups=2)
            self.norm, self.flatten = nn.GroupNorm(4, 24), nn.Flatten()
            self.head = nn.Linear(24 * 7 * 5, 10)

        def forward(self, x):
            return self.head(self.flatten(self.norm(self.up(self.blocks(self.stem(x))))))

    return Net()


def test_a_residual_network_of_pytorch(rng):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs, ours = blocks(torch.nn, torch.relu), blocks(nn, smelt.relu)
    x = rng.normal(size=(4, 3, 32, 24)).astype(np.float32)
    for _ in range(2):
        theirs(torch.tensor(x))  # running statistics that are not those of the beginning
    ours.load_state_dict(from_torch(theirs, {"head": (24, 7, 5)}))
    theirs.eval(), ours.eval()
    with torch.no_grad(), smelt.no_grad():
        same(ours(smelt.to_nhwc(smelt.tensor(x))).numpy(), theirs(torch.tensor(x)).numpy())
    assert ours.stem[1].batches.item() == 2


def test_a_transformer_of_pytorch(rng):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)

    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            t = torch.nn
            self.words, self.before = t.Embedding(50, 32), t.Conv1d(32, 32, 3, padding=1)
            self.norm, self.attention = t.LayerNorm(32), t.MultiheadAttention(32, 4, batch_first=True)
            self.mlp = t.Sequential(t.LayerNorm(32), t.Linear(32, 64), t.GELU(), t.Linear(64, 32))

        def forward(self, index, hidden, causal):
            x = self.before(self.words(index).transpose(1, 2)).transpose(1, 2)
            y = self.norm(x)
            future = torch.ones(index.shape[1], index.shape[1], dtype=torch.bool).triu(1) if causal else None
            x = x + self.attention(y, y, y, key_padding_mask=hidden, attn_mask=future, need_weights=False)[0]
            return x + self.mlp(x)

    class Ours(nn.Module):
        def __init__(self, causal):
            super().__init__()
            self.words, self.before = nn.Embedding(50, 32), nn.Conv1d(32, 32, 3, padding=1)
            self.norm, self.attention = nn.LayerNorm(32), nn.MultiHeadAttention(32, 4, causal=causal)
            self.mlp = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

        def forward(self, index, **options):
            x = self.before(self.words(index))
            x = x + self.attention(self.norm(x), **options)
            return x + self.mlp(x)

    theirs = Theirs().eval()
    index, lengths = rng.integers(0, 50, (3, 12)), np.array([12, 7, 1])
    hidden = np.arange(12) >= lengths[:, None]
    for causal in (False, True):
        ours = Ours(causal).eval()
        ours.load_state_dict(from_torch(theirs))
        with torch.no_grad(), smelt.no_grad():
            want = theirs(torch.tensor(index), torch.tensor(hidden), causal).numpy()
            same(ours(smelt.tensor(index), mask=smelt.tensor(~hidden[:, None, None, :])).numpy(), want)
            same(ours(smelt.tensor(index), lengths=lengths).numpy(), want)
