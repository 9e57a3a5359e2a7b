"""model.check(batch): the shape rules of a whole model on tensors without memory."""

import numpy as np
import pytest

import smelt
from smelt import _core, losses, nn, optim


def broken_chain():
    """Layers 0, 2 and 4 do not fit their inputs (or each other)."""
    return nn.Sequential(
        nn.Linear(8, 4), nn.ReLU(), nn.Linear(5, 2), nn.Linear(2, 3), nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    )


def test_all_errors_at_once_with_their_paths():
    assert broken_chain().check((16, 9)) == [
        "layer 0: linear: weight has 8 input features, input has 9 (input (16, 9), weight (4, 8))",
        "layer 2: linear: weight has 5 input features, input has 4 (input (16, 4), weight (2, 5))",
        "layer 4.0: linear: weight has 4 input features, input has 3 (input (16, 3), weight (4, 4))",
    ]


CONV = nn.Conv2d(1, 4, 3)


@pytest.mark.parametrize(
    "layers, batch, expected",
    [
        ([nn.Linear(8, 4)], (16, 8), []),
        ([nn.Linear(8, 4)], (0, 8), []),
        ([nn.Linear(8, 4)], (3, 5, 8), []),
        (
            [CONV],
            (128, 1, 28, 28),
            ["layer 0: conv2d: input has 28 channels, weight has 1; images are (N, H, W, C), got (128, 1, 28, 28): "
             "use smelt.to_nhwc(x)"],
        ),
        ([CONV], (8, 28, 28), [r"layer 0: conv2d: input must be (N, H, W, C), got shape (8, 28, 28)"]),
        (
            [CONV, nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(3, 2)],
            (2, 8, 8, 1),
            ["layer 1: batch_norm: weight has 5 channels, input has 4",
             "layer 4: linear: weight has 3 input features, input has 180 (input (2, 180), weight (2, 3))"],
        ),
        (
            [CONV, nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(31, 2)],
            (2, 8, 8, 1),
            ["layer 1: conv2d: weight has 3 input channels, input has 4",
             "layer 3: linear: weight has 31 input features, input has 32 (input (2, 32), weight (2, 31))"],
        ),
        ([CONV, nn.MaxPool2d(9)], (2, 8, 8, 1), ["layer 1: max_pool2d: kernel has 9 rows, the padded input has 6"]),
        ([nn.LayerNorm(5)], (2, 4), ["layer 0: layer_norm: "]),
    ],
    ids=str,
)  # fmt: skip
def test_messages(layers, batch, expected):
    messages = nn.Sequential(*layers).check(batch)
    assert len(messages) == len(expected), messages
    for got, start in zip(messages, expected):
        assert got.startswith(start)


def test_a_batch_is_shapes_arrays_or_tensors():
    model = nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 2))
    for batch in (np.zeros((2, 3), np.int64), smelt.zeros(2, 3, dtype="int64")):
        assert model.check(batch) == []
    told = "layer 0: embedding: indices must be integers, got float32"
    assert model.check((2, 3)) == [f"{told}; for indices give an integer array, not a shape"]
    assert model.check(np.zeros((2, 3), np.float32)) == [told]
    assert nn.Linear(8, 4).check(smelt.zeros(2, 8, dtype="int64"))[0].startswith("linear: input is int64, weight is")

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(2, 3), nn.Linear(4, 3)

        def forward(self, x, y):
            return losses.mse_loss(self.left(x), self.right(y))

    assert Two().check((5, 2), (5, 4)) == []
    assert [m.split(":")[0] for m in Two().check((5, 3), np.zeros((5, 3)))] == ["layer left", "layer right"]


def test_no_memory_is_taken_whatever_the_batch():
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 10))
    smelt.reset_peak_memory()
    before = smelt.memory_stats()
    assert model.check((1 << 40, 784)) == []
    after = smelt.memory_stats()
    assert after["peak_in_use"] == before["in_use"] == after["in_use"]
    assert after["allocations"] == before["allocations"], "no tensor of the walk has memory"


class Reads(nn.Module):
    """Reads a value after its first layer."""

    def __init__(self, read):
        super().__init__()
        self.first, self.second, self.read = nn.Linear(5, 4), nn.Linear(3, 2), read

    def forward(self, x):
        x = self.first(x)
        self.read(x)
        return self.second(x)


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: x.numpy(),
        lambda x: float(x.mean()),
        lambda x: bool((x > 0).any()),
        lambda x: int(x.argmax()),
        lambda x: x.tolist(),
        lambda x: x[x > 0],
        lambda x: np.from_dlpack(x.detach()),
        lambda x: np.asarray(x),
    ],
)
def test_reading_a_value_ends_the_walk_with_a_sentence(read):
    """What was found before it is reported, what comes after it is not reached."""
    messages = Reads(read).check((2, 8))
    assert len(messages) == 2, messages
    assert messages[0].startswith("layer first: linear: weight has 5 input features, input has 8")
    assert messages[1] == "check: a value was read, tensors have none here"
    assert not _core.dry_run_active()
    assert len(Reads(lambda x: (x.shape, len(x), x.dtype, repr(x))).check((2, 5))) == 1, "a shape may be read"


def test_an_error_of_ones_own_ends_the_walk():
    def fail(x):
        raise ValueError(f"needs 3 columns, got {x.shape[1]}")

    messages = Reads(fail).check((2, 8))
    assert len(messages) == 2 and messages[1].endswith("needs 3 columns, got 4")

    def interrupt(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Reads(interrupt).check((2, 5))
    assert not _core.dry_run_active()
    assert (smelt.ones(2) + 1).tolist() == [2, 2]
    assert Reads(lambda x: None).check((2, 5))[0].startswith("layer second"), "no note is left over"


def test_functions_without_a_weight_are_checked_too():
    class Net(nn.Module):
        def forward(self, x):
            return (x @ smelt.ones(5, 5)) + x[:, :2]

    (message,) = Net().check((3, 5))
    assert message == "add: shapes must be equal or broadcast to each other, got (3, 5) and (3, 2)"


def test_checking_changes_nothing():
    """Neither running statistics, gradients, random numbers and hooks, nor the result of the next forward."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 2))
    x = smelt.rand(3, 4, 4, 1)
    model(x).sum().backward()
    state = {name: value.copy() for name, value in model.state_dict().items()}
    grads = [p.grad.copy() for p in model.parameters()]
    generator = smelt.get_rng_state()
    assert model.check((7, 4, 4, 1)) == [] and model.check((7, 9, 9, 1)) != []
    assert model.training and smelt.get_rng_state() == generator
    for name, value in model.state_dict().items():
        assert (value == state[name]).all(), name
    for p, grad in zip(model.parameters(), grads):
        assert (p.grad == grad).all() and p.requires_grad
    smelt.set_rng_state(generator)
    after_check = model(x).numpy()
    smelt.set_rng_state(generator)
    model.load_state_dict(state)
    np.testing.assert_array_equal(after_check, model(x).numpy())


def test_a_checked_model_trains_and_a_trained_one_can_be_checked():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))
    assert model.check((8, 4)) == []
    optimizer = optim.AdamW(model.parameters(), lr=0.1)
    before = model[0].weight.copy()
    losses.cross_entropy(model(smelt.rand(8, 4)), smelt.zeros(8, dtype="int64")).backward()
    optimizer.step()
    assert model.check((8, 4)) == [] and not (model[0].weight == before).all()


def test_the_same_errors_name_the_layer_in_a_real_forward():
    model = nn.Sequential(nn.Linear(8, 4), nn.Sequential(nn.ReLU(), nn.Linear(5, 2)))
    expected = "layer 1.1: linear: weight has 5 input features, input has 4 (input (16, 4), weight (2, 5))"
    assert model.check((16, 8)) == [expected]
    with pytest.raises(ValueError) as caught:
        model(smelt.ones(16, 8))
    assert str(caught.value).endswith(expected)


def test_one_layer_used_twice_is_reported_for_each_use():
    layer = nn.Linear(4, 4)
    assert nn.Sequential(layer, layer).check((2, 4)) == []
    messages = nn.Sequential(layer, nn.Linear(4, 3), layer).check((2, 4))
    assert len(messages) == 1 and "weight has 4 input features, input has 3" in messages[0]
