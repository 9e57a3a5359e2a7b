"""What one may get wrong when calling from Python: one sentence with the op, what it needs and what it got."""

import numpy as np
import pytest

import smelt
from smelt import data, losses, metrics, nn, optim

X = smelt.ones(2, 2)
ROWS, CLASSES = np.ones((8, 3), np.float32), np.zeros(8, np.int64)
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
      for name, f in {"concat": lambda a: smelt.concat([X], a), "roll": lambda a: smelt.roll(X, 1, a),
                      "split": lambda a: smelt.split(X, 1, a), "swapaxes": lambda a: X.swapaxes(a, 0),
                      "flatten": lambda a: X.flatten(a)}.items()),
    (TypeError, "stack: needs a sequence of tensors, got int", lambda: smelt.stack([1, 2])),
    (TypeError, "stack: needs a sequence of tensors, got int", lambda: smelt.stack(1)),
    (TypeError, "concat: needs a sequence of tensors, got str", lambda: smelt.concat([X, "a"])),
    (TypeError, "pad: widths must be a sequence with a number or a pair for each axis, got 1", lambda: smelt.pad(X, 1)),
    (ValueError, "pad: widths: needs one number or a pair, got 'a'", lambda: smelt.pad(X, ["a", 0])),
    (TypeError, "topk: k must be an integer, got 'a'", lambda: smelt.topk(X, "a")),
    (TypeError, "save: model must be a Module, got dict", lambda: smelt.save({"a": X}, "never-written")),
    (TypeError, "gradcheck: input 0 must be a tensor, got ndarray; use smelt.tensor",
     lambda: smelt.gradcheck(smelt.exp, [np.ones(2)])),
    (TypeError, "gradcheck: the function must return a tensor, got float", lambda: smelt.gradcheck(lambda x: 1.0, LEAF)),
    (ValueError, "gradcheck: an input must require a gradient, none does; use requires_grad=True",
     lambda: smelt.gradcheck(smelt.exp, [LEAF.detach()])),
    *((TypeError, rf"{f.__name__}: parameters must be a list of tensors, such as model.parameters\(\), got Linear",
       lambda f=f: f(nn.Linear(2, 2), lr=0.1)) for f in (optim.SGD, optim.Adam, optim.AdamW)),
    (TypeError, r"SGD: parameters must be a list of tensors, such as model.parameters\(\), got Linear",
     lambda: optim.SGD([{"params": nn.Linear(2, 2)}], lr=0.1)),
    (TypeError, r"SGD: parameters must be a list of tensors, such as model.parameters\(\), got Tensor",
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


def test_a_tensor_does_not_replace_a_parameter():
    layer = nn.Linear(2, 2)
    weight = layer.weight
    message = r"^Linear: weight is a parameter, got a plain tensor; .*nn\.Parameter.*smelt\.no_grad\(\).*weight\.copy_"
    with pytest.raises(TypeError, match=message):
        layer.weight = smelt.ones(2, 2)
    assert layer.weight is weight and list(layer.state_dict()) == ["weight", "bias"]
    layer.weight = nn.Parameter(smelt.ones(2, 2))
    with smelt.no_grad():
        layer.weight.copy_(smelt.zeros(2, 2))
    layer.bias = None
    assert list(layer.state_dict()) == ["weight"] and layer.weight.sum().item() == 0
    norm = nn.BatchNorm1d(2)
    norm.running_mean = smelt.ones(2)  # a buffer is a tensor
    assert norm.state_dict()["running_mean"].tolist() == [1, 1]


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


# ----------------------------------------------------------------------------------------------------------- training


def trainer(loss="cross_entropy", outputs=2, **options):
    return smelt.Trainer(nn.Linear(3, outputs), loss=loss, lr=0.1, **options)


def other_model():
    return smelt.Trainer(nn.Linear(3, 2), optimizer=optim.SGD(nn.Linear(3, 2).named_parameters(), lr=0.1))


SOURCES = r"must be a dataset, a Loader or a pair \(x, y\), got"
TRAINING = {
    "fit": (TypeError, rf"Trainer: train {SOURCES} ndarray", lambda: trainer().fit(ROWS, CLASSES)),
    "fit of three": (TypeError, rf"Trainer: train {SOURCES} tuple of 3", lambda: trainer().fit((ROWS, CLASSES, 0))),
    "validation": (TypeError, rf"Trainer: validation {SOURCES} ndarray", lambda: trainer().fit((ROWS, CLASSES), ROWS)),
    "evaluate": (TypeError, rf"Trainer: dataset {SOURCES} ndarray", lambda: trainer().evaluate(ROWS)),
    "split": (TypeError, r"split: dataset must be a dataset or a pair \(x, y\), got ndarray", lambda: data.split(ROWS, 0.5)),
    "loader": (TypeError, r"Loader: dataset must be a dataset or a pair \(x, y\), got int", lambda: data.Loader(3, 2)),
    "schedule": (ValueError, "schedule: must be constant, .*, got 'nonsense'", lambda: trainer(schedule="nonsense")),
    "loss": (ValueError, r"loss: must be one of .* or a function, got \['mse'\]", lambda: trainer(["mse"])),
    "optimizer": (ValueError, "Trainer: the optimizer must have parameters of the model, it has weight, bias .* of another",
                  other_model),
    "labels": (ValueError, "ArrayDataset: labels must name every class, got 2 names and class 2",
               lambda: data.ArrayDataset(ROWS, np.arange(8) % 3, ["a", "b"])),
    "columns": (ValueError, r"Trainer: mse_loss: input and target must have one shape, got \(8, 1\) and \(8,\); "
                r"use y\[:, None\]", lambda: trainer("mse", 1).fit((ROWS, ROWS[:, 0]))),
    "integers": (TypeError, r"Trainer: huber_loss: targets must be float32 as the predictions, got int64; "
                 r'use y\.astype\("float32"\)', lambda: trainer("huber", 1).fit((ROWS, CLASSES[:, None]))),
    "bytes": (TypeError, r'Trainer: linear: .*uint8.*; the inputs are uint8: use x\.astype\("float32"\), or a preprocess',
              lambda: trainer().fit((ROWS.astype(np.uint8), CLASSES))),
    "one row": (ValueError, r"Trainer: layer 1: batch_norm: .*\(1, 4\); .*drop_last=True", lambda: smelt.Trainer(
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))).fit((ROWS[:5], CLASSES[:5]), batch_size=2)),
}  # fmt: skip


@pytest.mark.parametrize("name", TRAINING)
def test_a_mistake_in_training_is_answered_by_a_sentence(name):
    kind, message, call = TRAINING[name]
    with pytest.raises(kind, match=f"^{message}"):
        call()


def test_names_and_pairs_that_are_accepted():
    assert [losses.get(name) for name in ("mse_loss", "l1_loss", "huber_loss", "mse")] == [
        losses.mse_loss, losses.l1_loss, losses.huber_loss, losses.mse_loss,
    ]  # fmt: skip
    one = trainer(metrics="accuracy")
    assert [type(m) for m in one.metrics] == [metrics.Accuracy]
    big, small = data.split((np.arange(10.0), np.array([0, 1] * 5)), 0.2)
    assert len(big) == 8 and sorted(small.y.tolist()) == [0, 1]
    assert [y.tolist() for _, y in data.Loader((ROWS, CLASSES), 5)] == [[0] * 5, [0] * 3]
    whole = data.ArrayDataset(ROWS, CLASSES + 1, ["a", "b", "c"])  # a name may be without rows
    assert whole.rows([0]).labels == ["a", "b", "c"]
    one.fit(whole.rows([0, 1]), [ROWS, CLASSES], epochs=1)


def test_trainers_loaders_and_histories_show_themselves():
    one = trainer(metrics="accuracy", schedule="cosine")
    assert repr(one) == (
        "Trainer(Linear with 8 parameters, loss=cross_entropy, optimizer=AdamW(" + repr(one.optimizer)[6:] + ", "
        "metrics=['accuracy'], schedule='cosine', device='cpu', 0 steps)"
    )
    loader = data.Loader((ROWS, CLASSES), 3)
    next(iter(loader))
    assert repr(loader) == (
        "Loader(ArrayDataset(x=float32(8, 3), y=int64(8,)), batch_size=3, shuffle=False, seed=0, drop_last=False: "
        "3 batches, at epoch 0, batch 1)"
    )
    history = one.fit((ROWS, CLASSES), epochs=2)
    assert history[-1] is history.rows[-1] and history[-1]["epoch"] == 2 and len(history[:1]) == 1
    with pytest.raises(KeyError, match=r"history: must be one of epoch, .*'val_loss'"):
        history["val_loss"]


def test_dir_of_the_package_has_what_it_offers_and_nothing_else():
    names = {name for name in dir(smelt) if not name.startswith("__")}
    assert names == {name for name in smelt.__all__ if not name.startswith("__")} and "__version__" in dir(smelt)
