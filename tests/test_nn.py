"""Modules: registration, state, modes, ties, layers against functions, initial values, printing, and where errors are."""

import copy
import inspect
import math

import numpy as np
import pytest

import smelt
from smelt import nn


class Block(nn.Module):
    def __init__(self, channels_in=4, channels_out=4):
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(channels_in, channels_out, 3, padding=1)

    def forward(self, x):
        return self.conv2(self.conv1(x))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(3, 3, bias=False)
        self.decode = nn.Linear(3, 3, bias=False)
        self.decode.weight = self.encode.weight

    def forward(self, x):
        return self.decode(self.encode(x))


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(smelt.ones(2))
        self.scratch = smelt.zeros(2)
        self.inner = nn.Linear(2, 2)
        self.register_buffer("count", smelt.zeros(1))
        self.absent = None


def small_net():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))


def values(module):
    return {name: t.numpy().copy() for name, t in module.state_dict().items()}


def assert_same_values(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


# -------------------------------------------------------------------------------------------------------- registration


def test_what_belongs_to_a_module():
    m = Plain()
    assert [n for n, _ in m.named_parameters()] == ["scale", "inner.weight", "inner.bias"]
    assert [n for n, _ in m.named_buffers()] == ["count"]
    assert sorted(m.state_dict()) == ["count", "inner.bias", "inner.weight", "scale"]
    assert [n for n, _ in m.named_children()] == ["inner"]
    assert [n for n, _ in m.named_modules()] == ["", "inner"]
    m.inner = nn.ReLU()
    assert [n for n, _ in m.named_parameters()] == ["scale"]
    del m.scale
    assert list(m.parameters()) == []
    assert not any(t.requires_grad for t in Plain().state_dict().values())


def test_a_module_needs_no_super_init_and_must_define_forward():
    class Bare(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(1, 1)

    assert len(list(Bare().parameters())) == 2
    with pytest.raises(TypeError, match="Bare: a derived class must define forward"):
        Bare()(smelt.ones(1, 1))


def test_shared_modules_are_listed_once():
    shared = nn.Linear(2, 2)
    m = nn.Sequential(shared, nn.ReLU(), shared)
    assert [n for n, _ in m.named_modules()] == ["", "0", "1"]
    assert len(list(m.parameters())) == 2
    x = smelt.randn(3, 2)
    np.testing.assert_array_equal(m(x).numpy(), shared(smelt.relu(shared(x))).numpy())


def test_containers():
    layers = [nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)]
    m = nn.Sequential(*layers)
    assert len(m) == 3 and list(m) == layers and m[-1] is layers[2] and m[1] is layers[1]
    assert isinstance(m[:2], nn.Sequential) and list(m[:2]) == layers[:2]
    x = smelt.randn(4, 2)
    np.testing.assert_array_equal(m(x).numpy(), layers[2](smelt.relu(layers[0](x))).numpy())
    m.append(nn.Sigmoid())
    assert [n for n, _ in m.named_children()] == ["0", "1", "2", "3"] and m(x).shape == (4, 1)
    assert nn.Sequential()(x) is x
    many = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    assert len(many) == 3 and len(list(many.parameters())) == 6 and isinstance(many[1:], nn.ModuleList)
    for bad in (lambda: m[9], lambda: many[3]):
        with pytest.raises(IndexError):
            bad()
    with pytest.raises(TypeError, match="Sequential: item 1 must be a Module, got function"):
        nn.Sequential(nn.ReLU(), smelt.relu)


def test_hooks_see_and_replace_and_can_be_removed():
    layer, seen = nn.Linear(2, 2), []
    remove_first = layer.register_forward_pre_hook(lambda module, inputs: inputs[0] * 0)
    remove_second = layer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].tolist()))
    remove_third = layer.register_forward_hook(lambda module, inputs, output: output + 1)
    x = smelt.ones(1, 2)
    np.testing.assert_array_equal(layer(x).numpy()[0], (layer.bias + 1).numpy())
    assert seen == [[[0.0, 0.0]]]
    for remove in (remove_first, remove_second, remove_third):
        remove()
        remove()  # a second time does nothing
    np.testing.assert_array_equal(layer(x).numpy(), smelt.linear(x, layer.weight, layer.bias).numpy())
    assert len(seen) == 1


def test_deepcopy_is_independent():
    m = small_net()
    other = copy.deepcopy(m)
    assert_same_values(values(m), values(other))
    before = values(m)
    for p in other.parameters():
        assert isinstance(p, nn.Parameter) and p.requires_grad
        nn.init.constant_(p, 7)
    assert_same_values(values(m), before)


# --------------------------------------------------------------------------------------------------------------- state


def test_state_dict_round_trip_and_memory():
    a, b = small_net(), small_net()
    a(smelt.randn(16, 4))  # moves the running statistics
    b.load_state_dict(a.state_dict())
    assert_same_values(values(a), values(b))
    a.state_dict()["0.weight"][0] = 3  # the module's own memory
    assert (a[0].weight[0] == 3).all().item() and not (b[0].weight[0] == 3).any().item()
    given = values(a)  # NumPy arrays are taken as well, and copied
    b.load_state_dict(given)
    given["0.weight"][...] = 0
    np.testing.assert_array_equal(b[0].weight.numpy(), a[0].weight.numpy())
    wide = {name: v.astype(np.float64) if v.dtype == np.float32 else v for name, v in values(a).items()}
    b.load_state_dict(wide)
    assert b[0].weight.dtype == "float32"
    assert_same_values(values(a), values(b))


def test_load_state_dict_lists_all_problems_and_changes_nothing():
    m = small_net()
    before = values(m)
    state = {name: v + 1 for name, v in before.items()}
    del state["0.bias"], state["1.running_var"]
    state["9.weight"] = np.zeros(1, np.float32)
    state["4.weight"] = np.zeros((8, 2), np.float32)
    with pytest.raises(ValueError) as caught:
        m.load_state_dict(state)
    assert str(caught.value) == (
        "load_state_dict: '0.bias' is missing; '1.running_var' is missing; '9.weight' is unknown; "
        "'4.weight' must have shape (2, 8), got (8, 2)"
    )
    assert_same_values(values(m), before)
    with pytest.raises(ValueError, match=r"^load_state_dict: '4.weight' must have shape \(2, 8\), got \(8, 2\)$"):
        m.load_state_dict(state, strict=False)  # a wrong shape is never let through
    assert_same_values(values(m), before)
    del state["4.weight"]
    m.load_state_dict(state, strict=False)
    after = values(m)
    for name in before:
        expected = before[name] + 1 if name in state else before[name]
        np.testing.assert_array_equal(after[name], expected, err_msg=name)


def test_to_keeps_parameter_objects_and_ties():
    m, tied = small_net(), Tied()
    before = list(m.parameters())
    assert m.double() is m
    assert all(p is q for p, q in zip(m.parameters(), before))
    assert {t.dtype.name for n, t in m.state_dict().items() if n != "1.batches"} == {"float64"}
    assert m[1].batches.dtype == "int64"
    assert m(smelt.randn(4, 4).double()).dtype == "float64"
    assert m.float()[0].weight.dtype == "float32"
    tied.double()
    assert tied.encode.weight is tied.decode.weight and tied.encode.weight.dtype == "float64"
    with pytest.raises(TypeError, match=r"Module\.to: parameters must be floating, got int32"):
        m.to("int32")
    assert m[0].weight.dtype == "float32"


def test_tied_parameters_are_one():
    m = Tied()
    assert [n for n, _ in m.named_parameters()] == ["encode.weight"]
    assert sorted(m.state_dict()) == ["decode.weight", "encode.weight"]
    x = smelt.randn(5, 3)
    m(x).sum().backward()
    a, b = (smelt.tensor(m.encode.weight.detach().numpy(), requires_grad=True) for _ in range(2))
    smelt.linear(smelt.linear(x, a), b).sum().backward()
    total = a.grad.numpy().astype(np.float64) + b.grad.numpy()
    # One more rounding where the second part is added to the first: half an ulp of the sum.
    np.testing.assert_allclose(m.encode.weight.grad.numpy(), total, rtol=2.0**-23, atol=0)


# --------------------------------------------------------------------------------------------------------------- modes


def test_train_eval_reach_every_module():
    m = nn.Sequential(Block(), nn.Sequential(nn.Dropout(0.5)))
    assert all(part.training for part in m.modules())
    assert m.eval() is m and not any(part.training for part in m.modules())
    assert m.train() is m and all(part.training for part in m.modules())
    x = smelt.ones(64)
    assert m[1].eval()(x).tolist() == x.tolist()
    assert 0 < (m[1].train()(x) == 0).sum().item() < 64


def test_batch_norm_state_follows_the_mode():
    bn = nn.BatchNorm1d(3)
    x = smelt.randn(32, 3) * 5 + 2
    bn(x)
    bn(x[:0])  # nothing to count
    assert bn.batches.item() == 1
    exact = x.numpy().astype(np.float64)
    # Sums of 32 float32 numbers, then momentum times the result: (32 + 4) roundings at most.
    tolerance = 36 * 2.0**-24 * np.abs(exact).mean(0)
    assert (np.abs(bn.running_mean.numpy() - 0.1 * exact.mean(0)) <= tolerance).all()
    # The same for squares of numbers up to 5 deviations from the mean: 25 times the variance bounds each of the terms.
    variance = exact.var(0, ddof=1)
    tolerance = 36 * 2.0**-24 * 25 * (variance + 1)
    assert (np.abs(bn.running_var.numpy() - (0.9 + 0.1 * variance)) <= tolerance).all()
    before = values(bn)
    with_statistics = bn.eval()(x)
    assert_same_values(values(bn), before)
    own = smelt.batch_norm(x, bn.weight, bn.bias, bn.running_mean, bn.running_var, False, 0.1, 1e-5)
    np.testing.assert_array_equal(with_statistics.numpy(), own.numpy())


def test_freeze_holds_batch_norm_and_dropout_in_evaluation():
    m = small_net()
    assert nn.freeze(m[:4]) is not None
    m.train()
    assert [part.training for part in m] == [False] * 4 + [True]
    assert [n for n, p in m.named_parameters() if p.requires_grad] == ["4.weight", "4.bias"]
    x = smelt.randn(16, 4)
    before = values(m)
    first, second = m(x), m(x)  # neither batch statistics nor dropout
    np.testing.assert_array_equal(first.numpy(), second.numpy())
    assert_same_values(values(m), before)
    first.sum().backward()
    assert m[0].weight.grad is None and m[4].weight.grad is not None
    nn.unfreeze(m)
    m.train()
    assert all(part.training for part in m) and all(p.requires_grad for p in m.parameters())
    m(x).sum().backward()
    assert m[1].batches.item() == 1 and m[0].weight.grad is not None
    m.eval()
    assert not any(part.training for part in m.modules())


def test_requires_grad_and_zero_grad():
    m = nn.Linear(2, 1)
    m(smelt.ones(1, 2)).sum().backward()
    assert m.weight.grad is not None
    m.zero_grad()
    assert all(p.grad is None for p in m.parameters())
    assert m.requires_grad_(False) is m
    assert not m(smelt.ones(1, 2)).requires_grad


# -------------------------------------------------------------------------------------------------------------- layers

IMAGE, SEQUENCE, ROWS = (2, 7, 6, 4), (2, 9, 4), (5, 4)
LAYERS = {
    "Linear": (lambda: nn.Linear(4, 3), ROWS, lambda m, x: smelt.linear(x, m.weight, m.bias)),
    "Linear activation": (
        lambda: nn.Linear(4, 3, bias=False, activation="relu"),
        SEQUENCE,
        lambda m, x: smelt.linear(x, m.weight, None, "relu"),
    ),
    "Conv2d": (
        lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2, activation="relu"),
        IMAGE,
        lambda m, x: smelt.conv2d(x, m.weight, m.bias, (2, 1), (1, 0), (1, 2), 2, "relu"),
    ),
    "Conv2d same": (
        lambda: nn.Conv2d(4, 2, 3, padding="same", bias=False),
        IMAGE,
        lambda m, x: smelt.conv2d(x, m.weight, None, padding="same"),
    ),
    "Conv1d": (
        lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2),
        SEQUENCE,
        lambda m, x: smelt.conv1d(x, m.weight, m.bias, 2, 1, 2, 2),
    ),
    "ConvTranspose2d": (
        lambda: nn.ConvTranspose2d(
            4, 6, (3, 2), stride=(2, 3), padding=(1, 0), output_padding=1, groups=2, activation="relu"
        ),
        IMAGE,
        lambda m, x: smelt.conv_transpose2d(x, m.weight, m.bias, (2, 3), (1, 0), 1, 2, 1, "relu"),
    ),
    "ConvTranspose1d": (
        lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2),
        SEQUENCE,
        lambda m, x: smelt.conv_transpose1d(x, m.weight, m.bias, 2, 1, 0, 2, 2),
    ),
    "BatchNorm2d": (
        lambda: nn.BatchNorm2d(4, eps=1e-3, momentum=0.2, activation="relu").eval(),
        IMAGE,
        lambda m, x: smelt.batch_norm(
            x, m.weight, m.bias, m.running_mean, m.running_var, False, 0.2, 1e-3, activation="relu"
        ),
    ),
    "BatchNorm1d": (
        lambda: nn.BatchNorm1d(4),
        SEQUENCE,
        lambda m, x: smelt.batch_norm(x, m.weight, m.bias, smelt.zeros(4), smelt.ones(4), True, 0.1, 1e-5),
    ),
    "RMSNorm": (lambda: nn.RMSNorm(4, eps=1e-3), IMAGE, lambda m, x: smelt.rms_norm(x, m.weight, 1e-3)),
    "GroupNorm": (
        lambda: nn.GroupNorm(2, 4, eps=1e-3),
        IMAGE,
        lambda m, x: smelt.group_norm(x, 2, m.weight, m.bias, 1e-3),
    ),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(4), IMAGE, lambda m, x: smelt.group_norm(x, 4)),
    "LayerNorm": (lambda: nn.LayerNorm(4, eps=1e-3), IMAGE, lambda m, x: smelt.layer_norm(x, m.weight, m.bias, 1e-3)),
    "Flatten": (nn.Flatten, IMAGE, lambda m, x: x.reshape(2, -1)),
    "Flatten axes": (lambda: nn.Flatten(1, 2), IMAGE, lambda m, x: x.reshape(2, 42, 4)),
    "MaxPool2d": (lambda: nn.MaxPool2d(3, 2, 1), IMAGE, lambda m, x: smelt.max_pool2d(x, 3, 2, 1)),
    "AvgPool2d": (
        lambda: nn.AvgPool2d((3, 2), 1, 1, count_include_pad=False),
        IMAGE,
        lambda m, x: smelt.avg_pool2d(x, (3, 2), 1, 1, False),
    ),
    "MaxPool1d": (lambda: nn.MaxPool1d(2), SEQUENCE, lambda m, x: smelt.max_pool1d(x, 2)),
    "AvgPool1d": (lambda: nn.AvgPool1d(3, 2, 1), SEQUENCE, lambda m, x: smelt.avg_pool1d(x, 3, 2, 1)),
    "AdaptiveAvgPool2d": (lambda: nn.AdaptiveAvgPool2d(3), IMAGE, lambda m, x: smelt.adaptive_avg_pool2d(x, 3)),
    "AdaptiveMaxPool2d": (
        lambda: nn.AdaptiveMaxPool2d((2, 3)),
        IMAGE,
        lambda m, x: smelt.adaptive_max_pool2d(x, (2, 3)),
    ),
    "GlobalAvgPool2d": (nn.GlobalAvgPool2d, IMAGE, lambda m, x: smelt.global_avg_pool2d(x)),
    "GlobalMaxPool2d": (nn.GlobalMaxPool2d, IMAGE, lambda m, x: smelt.global_max_pool2d(x)),
    "ReLU": (nn.ReLU, ROWS, lambda m, x: smelt.relu(x)),
    "LeakyReLU": (lambda: nn.LeakyReLU(0.2), ROWS, lambda m, x: smelt.leaky_relu(x, 0.2)),
    "ELU": (lambda: nn.ELU(0.5), ROWS, lambda m, x: smelt.elu(x, 0.5)),
    "GELU": (nn.GELU, ROWS, lambda m, x: smelt.gelu(x)),
    "GELU tanh": (lambda: nn.GELU("tanh"), ROWS, lambda m, x: smelt.gelu(x, "tanh")),
    "SiLU": (nn.SiLU, ROWS, lambda m, x: smelt.silu(x)),
    "Sigmoid": (nn.Sigmoid, ROWS, lambda m, x: smelt.sigmoid(x)),
    "Tanh": (nn.Tanh, ROWS, lambda m, x: smelt.tanh(x)),
    "Softplus": (nn.Softplus, ROWS, lambda m, x: smelt.softplus(x)),
    "Softmax": (lambda: nn.Softmax(0), ROWS, lambda m, x: smelt.softmax(x, 0)),
    "LogSoftmax": (nn.LogSoftmax, ROWS, lambda m, x: smelt.log_softmax(x, -1)),
    "Identity": (nn.Identity, ROWS, lambda m, x: x),
    "Residual": (
        lambda: nn.Residual(nn.Linear(4, 4), activation="relu"),
        ROWS,
        lambda m, x: smelt.relu(smelt.linear(x, m.body.weight, m.body.bias) + x),
    ),
    "MultiHeadAttention": (
        lambda: nn.MultiHeadAttention(4, 2, 1, causal=True),
        SEQUENCE,
        lambda m, x: smelt.linear(
            smelt.attention_packed(smelt.linear(x, m.qkv.weight, m.qkv.bias), 2, 1, causal=True),
            m.out.weight,
            m.out.bias,
        ),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_is_its_function(name):
    """Bits of output, input gradient and parameter gradients."""
    make, shape, function = LAYERS[name]
    layer = make()
    for p in layer.parameters():  # normalisation layers start from ones and zeros, which would hide a mix-up
        nn.init.uniform_(p, -1, 1)
    start = smelt.randn(*shape).numpy()
    results = []
    for call in (layer, lambda x: function(layer, x)):
        x = smelt.tensor(start, requires_grad=True)
        layer.zero_grad()
        y = call(x)
        (y * smelt.arange(y.size, dtype="float32").reshape(y.shape)).sum().backward()
        results.append([y.numpy(), x.grad.numpy()] + [p.grad.numpy().copy() for p in layer.parameters()])
    for mine, own in zip(*results):
        np.testing.assert_array_equal(mine, own)


def test_every_layer_is_compared():
    layers = {n for n in nn.__all__ if isinstance(getattr(nn, n), type) and issubclass(getattr(nn, n), nn.Module)}
    losses = {n for n in layers if n.endswith("Loss")}
    apart = {"Module", "Sequential", "ModuleList", "Dropout", "Embedding"}
    assert layers - losses - apart == {name.split()[0] for name in LAYERS}


def test_embedding_and_dropout_layers():
    table = nn.Embedding(6, 3, padding_index=2)
    assert table.weight[2].tolist() == [0, 0, 0]
    index = smelt.tensor([[2, 5], [5, 0]])
    y = table(index)
    np.testing.assert_array_equal(y.numpy(), table.weight.detach().numpy()[index.numpy()])
    y.sum().backward()
    assert table.weight.grad.numpy()[:, 0].tolist() == [1, 0, 0, 0, 0, 2]
    x = smelt.ones(40, 50)
    smelt.manual_seed(3)
    mine = nn.Dropout(0.25)(x)
    smelt.manual_seed(3)
    np.testing.assert_array_equal(mine.numpy(), smelt.dropout(x, 0.25, True).numpy())


# ------------------------------------------------------------------------------------------------------ initial values


def assert_uniform(x, bound):
    """Range to its ends, mean and variance of a uniform distribution over (-bound, bound), within 5 standard errors."""
    x = x.detach().numpy().astype(np.float64).ravel()
    # Of n numbers none lies in the outermost 30 / n of the range with probability exp(-30).
    assert bound * (1 - 30 / x.size) <= np.abs(x).max() <= bound * (1 + 2.0**-23)
    assert abs(x.mean()) <= 5 * bound / math.sqrt(3 * x.size)
    # Of x^2: mean bound^2 / 3, standard deviation bound^2 sqrt(4 / 45).
    assert abs((x**2).mean() - bound**2 / 3) <= 5 * bound**2 * math.sqrt(4 / 45 / x.size)


def assert_normal(x, std):
    """Mean, variance and tail of a normal distribution, within 5 standard errors."""
    x = x.detach().numpy().astype(np.float64).ravel()
    assert abs(x.mean()) <= 5 * std / math.sqrt(x.size)
    assert abs((x**2).mean() - std**2) <= 5 * std**2 * math.sqrt(2 / x.size)
    tail = 0.3173  # outside one standard deviation
    assert abs((np.abs(x) > std).mean() - tail) <= 5 * math.sqrt(tail * (1 - tail) / x.size)


@pytest.mark.parametrize(
    ("make", "fan_in"),
    [(lambda: nn.Linear(100, 400), 100), (lambda: nn.Conv2d(32, 64, 3, groups=2), 144), (lambda: nn.Conv1d(16, 99, 5), 80)],
)  # fmt: skip
def test_default_weights(make, fan_in):
    layer = make()
    assert nn.init.fan_in(layer.weight) == fan_in
    assert_uniform(layer.weight, 1 / math.sqrt(fan_in))
    assert_uniform(layer.bias, 1 / math.sqrt(fan_in))
    smelt.manual_seed(11)
    again = make()
    smelt.manual_seed(11)
    np.testing.assert_array_equal(again.weight.numpy(), make().weight.numpy())
    assert (again.weight != layer.weight).any().item()


def test_initial_value_functions():
    shape, fan_in, fan_out = (80, 3, 3, 20), 180, 720
    cases = {
        "kaiming_uniform_": (assert_uniform, math.sqrt(2 * 3 / fan_in)),
        "kaiming_normal_": (assert_normal, math.sqrt(2 / fan_in)),
        "xavier_uniform_": (assert_uniform, math.sqrt(6 / (fan_in + fan_out))),
        "xavier_normal_": (assert_normal, math.sqrt(2 / (fan_in + fan_out))),
    }
    for name, (check, scale) in cases.items():
        p = nn.Parameter(smelt.zeros(shape))
        assert getattr(nn.init, name)(p) is p and p.requires_grad
        check(p, scale)
        check(getattr(nn.init, name)(p, gain=3 * (math.sqrt(2) if "kaiming" in name else 1)), 3 * scale)
    assert_normal(nn.Embedding(500, 40).weight, 1.0)
    assert_normal(nn.init.normal_(smelt.zeros(9000), 2.0, 0.5) - 2.0, 0.5)
    x = nn.init.uniform_(smelt.zeros(9000), 1.0, 3.0)
    assert x.min().item() >= 1 and x.max().item() < 3
    assert_uniform(x - 2.0, 1.0)
    norm = nn.BatchNorm2d(3)
    assert norm.weight.tolist() == [1] * 3 == norm.running_var.tolist()
    assert norm.bias.tolist() == [0] * 3 == norm.running_mean.tolist()


def test_initial_values_do_not_depend_on_threads():
    expected = None
    for threads in (1, 2, 3):
        smelt.set_num_threads(threads)
        smelt.manual_seed(5)
        got = nn.Linear(300, 400).weight.numpy()
        expected = got if expected is None else expected
        np.testing.assert_array_equal(got, expected)


# ---------------------------------------------------------------------------------------------- printing, where errors are


def test_repr():
    m = nn.Sequential(Block(), nn.BatchNorm2d(4), nn.Dropout(0.1), nn.Linear(4, 2, activation="relu"))
    assert repr(m) == (
        "Sequential(\n"
        "  (0): Block(\n"
        "    (conv1): Conv2d(4, 4, kernel_size=(3, 3), stride=1, padding=1, dilation=1, groups=1, bias=True)\n"
        "    (conv2): Conv2d(4, 4, kernel_size=(3, 3), stride=1, padding=1, dilation=1, groups=1, bias=True)\n"
        "  )\n"
        "  (1): BatchNorm2d(4, eps=1e-05, momentum=0.1)\n"
        "  (2): Dropout(0.1)\n"
        "  (3): Linear(4, 2, bias=True, activation='relu')\n"
        ")"
    )
    assert repr(nn.Embedding(5, 2)) == "Embedding(5, 2)" and repr(nn.ReLU()) == "ReLU()"
    assert repr(nn.Conv1d(2, 4, 3)) == "Conv1d(2, 4, kernel_size=3, bias=True)"
    assert (
        repr(nn.CrossEntropyLoss(smelt.ones(3), ignore_index=0))
        == "CrossEntropyLoss(weight=Tensor(3,), ignore_index=0)"
    )


# Options of each layer, none at its default.
OPTIONS = {
    nn.Linear: ((2, 4), {"bias": False, "activation": "relu"}),
    nn.Conv1d: (
        (2, 4, 3),
        {"stride": 2, "padding": 1, "dilation": 2, "groups": 2, "bias": False, "activation": "relu"},
    ),
    nn.Conv2d: (
        (2, 4, 3),
        {"stride": 2, "padding": 1, "dilation": 2, "groups": 2, "bias": False, "activation": "relu"},
    ),
    nn.ConvTranspose1d: ((2, 4, 3), {"padding": 1, "dilation": 2, "groups": 2, "bias": False, "activation": "relu"}),
    nn.ConvTranspose2d: ((2, 4, 3), {"padding": 1, "dilation": 2, "groups": 2, "bias": False, "activation": "relu"}),
    nn.BatchNorm1d: ((3,), {"eps": 0.5, "momentum": 0.5, "activation": "relu"}),
    nn.BatchNorm2d: ((3,), {"eps": 0.5, "momentum": 0.5, "activation": "relu"}),
    nn.LayerNorm: ((3,), {"eps": 0.5}),
    nn.RMSNorm: ((3,), {"eps": 0.5}),
    nn.GroupNorm: ((3, 6), {"eps": 0.5}),
    nn.InstanceNorm2d: ((3,), {"eps": 0.5}),
    nn.Embedding: ((5, 2), {"padding_index": 0}),
    nn.Dropout: ((), {"p": 0.25}),
    nn.Flatten: ((), {"start_axis": 2, "end_axis": 3}),
    nn.MultiHeadAttention: ((8, 4), {"kv_heads": 2, "causal": True, "bias": False}),
    nn.Residual: ((nn.ReLU(),), {"activation": "relu"}),
    nn.MaxPool1d: ((2,), {"stride": 1, "padding": 1}),
    nn.MaxPool2d: ((2,), {"stride": 1, "padding": 1}),
    nn.AvgPool1d: ((2,), {"stride": 1, "padding": 1}),
    nn.AvgPool2d: ((2,), {"stride": 1, "padding": 1, "count_include_pad": False}),
    nn.LeakyReLU: ((), {"slope": 0.5}),
    nn.ELU: ((), {"alpha": 0.5}),
    nn.GELU: ((), {"approximate": "tanh"}),
    nn.Softmax: ((), {"axis": 0}),
    nn.LogSoftmax: ((), {"axis": 0}),
    nn.CrossEntropyLoss: ((), {"weight": smelt.ones(2), "label_smoothing": 0.5, "ignore_index": 0, "reduction": "sum"}),
    nn.BCEWithLogitsLoss: ((), {"pos_weight": smelt.ones(2), "reduction": "sum"}),
    nn.MSELoss: ((), {"reduction": "sum"}),
    nn.L1Loss: ((), {"reduction": "sum"}),
    nn.HuberLoss: ((), {"delta": 0.5, "reduction": "sum"}),
}


@pytest.mark.parametrize("layer", OPTIONS, ids=lambda layer: layer.__name__)
def test_what_is_printed_has_every_option(layer):
    given, options = OPTIONS[layer]
    for name, value in options.items():
        assert repr(layer(*given, **{name: value})) != repr(layer(*given)), name
    optional = [p for p in inspect.signature(layer).parameters.values() if p.default is not p.empty]
    covered = {*options, "stride", "output_padding", "shortcut"} | ({"p"} if layer is nn.Dropout else set())
    assert {p.name for p in optional} <= covered


@pytest.mark.parametrize("layer", [nn.BatchNorm1d, nn.BatchNorm2d, nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d])
def test_an_unknown_option_is_an_error_of_the_layer(layer):
    with pytest.raises(TypeError, match=rf"^{layer.__name__}.__init__\(\) got an unexpected keyword argument 'affine'"):
        layer(4, affine=False)


CHANNELS_FIRST = (
    "conv2d: input has 28 channels, weight has 1; images are (N, H, W, C), got (128, 1, 28, 28): use smelt.to_nhwc(x)"
)


def test_channels_first_images():
    layer, x = nn.Conv2d(1, 32, 3), smelt.zeros(128, 1, 28, 28)
    with pytest.raises(ValueError) as caught:
        layer(x)
    assert str(caught.value) == CHANNELS_FIRST
    assert nn.Sequential(layer).check(x) == [f"layer 0: {CHANNELS_FIRST}"]
    assert layer(smelt.to_nhwc(x)).shape == (128, 26, 26, 32)


def test_errors_name_the_layer():
    m = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), Block(channels_in=3), nn.Flatten())
    x, message = smelt.zeros(2, 8, 8, 1), "layer 3.conv2: conv2d: weight has 3 input channels, input has 4"
    with pytest.raises(ValueError) as caught:
        m(x)
    assert str(caught.value) == message
    with pytest.raises(ValueError) as caught:
        nn.Sequential(nn.Identity(), m)(x)
    assert str(caught.value) == message.replace("3.conv2", "1.3.conv2")
    before = values(m[0])
    with pytest.raises(ValueError) as caught:
        smelt.Trainer(m).step(x, smelt.zeros(2, dtype="int64"))
    assert str(caught.value) == f"Trainer: {message}"
    assert_same_values(values(m[0]), before)
    with pytest.raises(ValueError) as caught:
        nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4))(smelt.zeros(3, 4))
    assert str(caught.value) == "layer 1: BatchNorm2d: input must have 4 axes, got shape (3, 4)"


def test_check_finds_all_errors_and_touches_nothing():
    m = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), Block(channels_in=3), nn.Flatten(), nn.Dropout(0.5),
        nn.Linear(99, 8), nn.ReLU(), nn.Linear(9, 10),
    )  # fmt: skip
    before, state = values(m), smelt.get_rng_state()
    for batch in ((64, 8, 8, 1), np.zeros((64, 8, 8, 1), np.float32), smelt.zeros(64, 8, 8, 1)):
        messages = m.check(batch)
        assert messages == [
            "layer 2.conv2: conv2d: weight has 3 input channels, input has 4",
            "layer 5: linear: weight has 99 input features, input has 256 (input (64, 256), weight (8, 99))",
            "layer 7: linear: weight has 9 input features, input has 8 (input (64, 8), weight (10, 9))",
        ]
    assert_same_values(values(m), before)
    assert smelt.get_rng_state() == state
    assert m.training and not any(part._post_hooks for part in m.modules())
    good = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2))
    assert good.check((1 << 40, 8, 8, 1)) == []  # a batch that no memory could hold


def test_check_ends_where_a_value_is_read():
    class Reads(nn.Module):
        def forward(self, x):
            return x * x.sum().item()

    messages = nn.Sequential(nn.Linear(3, 2), Reads(), nn.Linear(2, 2)).check((4, 4))
    assert messages[0].startswith("layer 0: linear: weight has 3 input features, input has 4")
    assert len(messages) == 2 and messages[1].startswith("layer 1: ")
    assert smelt.ones(2).sum().item() == 2  # values can be read again
