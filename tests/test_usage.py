"""What one may get wrong when calling from Python: one sentence with the op, what it needs and what it got."""

import numpy as np
import pytest

import smelt
from smelt import nn, optim

X = smelt.ones(2, 2)
LEAF = smelt.tensor([1.0, 2.0], dtype="float64", requires_grad=True)
AXES = ["sum", "mean", "var", "std", "prod", "max", "min", "any", "all", "argmax", "argmin", "cumsum", "softmax",
        "log_softmax", "sort", "argsort", "flip", "squeeze", "expand_dims"]  # fmt: skip

MISTAKES = [
    (TypeError, "Tensor: data must be a tensor, got list; use smelt.tensor", lambda: smelt.Tensor([1, 2])),
    (TypeError, "Parameter: data must be a tensor, got ndarray; use smelt.tensor", lambda: nn.Parameter(np.ones(2))),
    *((TypeError, f"{name}: axis must be an integer, got 'a'", lambda name=name: getattr(smelt, name)(X, axis="a"))
      for name in AXES if name != "std"),
    (TypeError, "var: axis must be an integer, got 'a'", lambda: smelt.std(X, axis="a")),
    (TypeError, r"sum: axis must be an integer, got 1\.5", lambda: X.sum(axis=1.5)),
    (TypeError, "mean: axis must be an integer, got None", lambda: X.mean(axis=[0, None])),
    *((TypeError, f"{name}: axis must be an integer, got 'a'", lambda f=f: f("a"))
      for name, f in {"take": lambda a: smelt.take(X, [0], a), "concat": lambda a: smelt.concat([X], a),
                      "gather": lambda a: smelt.gather(X, X.int(), a), "roll": lambda a: smelt.roll(X, 1, a),
                      "scatter_add": lambda a: smelt.scatter_add(X, X.int(), X, a),
                      "split": lambda a: smelt.split(X, 1, a), "swapaxes": lambda a: X.swapaxes(a, 0),
                      "flatten": lambda a: X.flatten(a)}.items() ),
    (TypeError, "stack: needs a sequence of tensors, got int", lambda: smelt.stack([1, 2])),
    (TypeError, "stack: needs a sequence of tensors, got int", lambda: smelt.stack(1)),
    (TypeError, "concat: needs a sequence of tensors, got str", lambda: smelt.concat([X, "a"])),
    (TypeError, "pad: widths must be a sequence with a number or a pair for each axis, got 1", lambda: smelt.pad(X, 1)),
    (ValueError, "pad: widths: needs one number or a pair, got 'a'", lambda: smelt.pad(X, ["a", 0])),
    (TypeError, "topk: k must be an integer, got 'a'", lambda: smelt.topk(X, "a")),
    (TypeError, "arange: start must be a number, got 'a'", lambda: smelt.arange("a")),
    (TypeError, "arange: step must be a number, got None", lambda: smelt.arange(0, 3, None)),
    (TypeError, "save: model must be a Module, got dict", lambda: smelt.save({"a": X}, "never-written")),
    (TypeError, "gradcheck: input 0 must be a tensor, got ndarray; use smelt.tensor",
     lambda: smelt.gradcheck(smelt.exp, [np.ones(2)])),
    (TypeError, "gradcheck: the function must return a tensor, got float", lambda: smelt.gradcheck(lambda x: 1.0, LEAF)),
    (ValueError, "gradcheck: an input must require a gradient, none does; use requires_grad=True",
     lambda: smelt.gradcheck(smelt.exp, [LEAF.detach()])),
    *((TypeError, f"{f.__name__}: parameters must be several tensors, got Linear; pass model.parameters()",
       lambda f=f: f(nn.Linear(2, 2), lr=0.1)) for f in (optim.SGD, optim.Adam, optim.AdamW)),
    (TypeError, "SGD: parameters must be several tensors, got Linear; pass model.parameters()",
     lambda: optim.SGD([{"params": nn.Linear(2, 2)}], lr=0.1)),
    (TypeError, "SGD: parameters must be several tensors, got Tensor; pass a list of them",
     lambda: optim.SGD(LEAF, lr=0.1)),
    (ValueError, "SGD: parameter 0 must be a leaf that requires a gradient, got requires_grad=False",
     lambda: optim.SGD([X], lr=0.1)),
    (ValueError, "Adam: w must be a leaf that requires a gradient, got a result of mul",
     lambda: optim.Adam([("w", LEAF * 2)], lr=0.1)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "message", "call"), MISTAKES, ids=[m.split(" ")[0] for _, m, _ in MISTAKES])
def test_a_mistake_is_answered_by_a_sentence(kind, message, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=f"^{message}"):
        call()
    assert not list(tmp_path.iterdir())


def test_integers_and_arrays_of_numpy_are_axes_and_widths():
    x = smelt.arange(6).reshape(2, 3)
    assert x.sum(axis=np.int64(1)).tolist() == [3, 12] and x.sum(axis=np.array([0, 1])).item() == 15
    assert smelt.squeeze(x[None], np.int64(0)).shape == (2, 3) and smelt.flip(x, (0, 1)).tolist() == [
        [5, 4, 3],
        [2, 1, 0],
    ]
    assert smelt.pad(x, np.array([[1, 0], [0, 2]])).shape == (3, 5)
    assert smelt.concat([x, x.numpy()]).shape == (4, 3) and smelt.stack([x.numpy(), x]).shape == (2, 2, 3)


def test_gradcheck_takes_one_tensor():
    assert smelt.gradcheck(lambda x: x.exp(), LEAF)
    with pytest.raises(ValueError, match="gradient of input 0"):
        smelt.gradcheck(lambda x: x.detach() * x, LEAF)


def test_a_frozen_parameter_may_be_in_an_optimizer():
    layer = nn.freeze(nn.Linear(2, 1))
    optimizer = optim.SGD(layer.parameters(), lr=0.5)
    nn.unfreeze(layer)
    before = layer.bias.tolist()
    layer(X).sum().backward()
    optimizer.step()
    assert layer.bias.tolist() == [before[0] - 1.0]
