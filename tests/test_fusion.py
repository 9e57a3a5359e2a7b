"""Sequential and Residual run neighbours as one: which, with the bits of the parts, and what keeps them apart."""

import numpy as np
import pytest

import smelt
from smelt import kernels, nn, optim


def block(channels=8, activation="relu"):
    body = nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels),
    )  # fmt: skip
    return nn.Residual(body, activation=activation)


def down():
    body = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12))
    return nn.Residual(body, nn.Sequential(nn.Conv2d(8, 12, 1, stride=2), nn.BatchNorm2d(12)), "relu")


def transformer(norm=nn.LayerNorm):
    layers = [
        layer
        for _ in range(2)
        for layer in (
            nn.Residual(nn.Sequential(norm(8), nn.MultiHeadAttention(8, 2))),
            nn.Residual(nn.Sequential(norm(8), nn.Linear(8, 16), nn.GELU("tanh"), nn.Linear(16, 8), nn.Dropout(0.2))),
        )
    ]
    return nn.Sequential(nn.Linear(8, 8), *layers, norm(8), nn.Linear(8, 3), nn.Softplus())


MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 7), nn.GELU(), nn.Linear(7, 3), nn.SiLU()),
            (5, 8)),
    "cnn": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
            (2, 9, 9, 3)),
    "pooled": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(8),
                                     nn.MaxPool2d((3, 2)), nn.BatchNorm2d(8, activation="relu"), nn.MaxPool2d(1, stride=1),
                                     nn.Flatten()), (3, 16, 17, 3)),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(3, 8, 3), nn.Sigmoid(), nn.BatchNorm1d(8), nn.ReLU()), (2, 9, 3)),
    "resnet": (lambda: nn.Sequential(block(), block(activation=None), down(), nn.GlobalAvgPool2d()), (2, 8, 8, 8)),
    "layer norm": (transformer, (2, 5, 8)),
    "rms norm": (lambda: transformer(nn.RMSNorm), (2, 5, 8)),
}  # fmt: skip


def results(model, x, weights, fused, training, precision):
    model.load_state_dict(weights)
    model.train(training).zero_grad()
    smelt.manual_seed(4)
    x = smelt.tensor(x, requires_grad=True)
    with smelt.autocast(precision):
        if fused:
            y = model(x)
        else:
            with nn.unfused():
                y = model(x)
        y = y.astype("float32")
    (y * smelt.arange(float(y.size)).reshape(y.shape)).sum().backward()
    state = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    return [y.numpy(), x.grad.numpy(), *(p.grad.numpy().copy() for p in model.parameters()), *state.values()]


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_fused_and_unfused_give_the_same_bits(name, training, precision):
    make, shape = MODELS[name]
    model, x = make(), smelt.randn(*shape).numpy()
    weights = {k: v.numpy().copy() for k, v in model.state_dict().items()}
    weights = {k: smelt.tensor(v) for k, v in weights.items()}
    assert len(model.fusions()) >= 2
    got = [results(model, x, weights, fused, training, precision) for fused in (True, False)]
    for fused, unfused in zip(*got, strict=True):
        np.testing.assert_array_equal(fused, unfused)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_fewer_kernels_run(precision):
    for make, shape in MODELS.values():
        model, x = make(), smelt.randn(*shape)
        with smelt.no_grad(), smelt.autocast(precision):
            model(x)  # casts the weights once
        counts = []
        for context in (smelt.no_grad, nn.unfused):
            with smelt.no_grad(), smelt.autocast(precision), context(), kernels.trace() as names:
                model(x)
            counts.append(len(names))
        assert counts[0] <= counts[1] - len(model.fusions())


def test_the_table():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), block(), nn.Flatten(), nn.Linear(8, 4), nn.GELU()
    )
    assert str(model.fusions()) == "\n".join([
        "1 + 2                  BatchNorm2d + ReLU  batch_norm(activation='relu')",
        "5 + 6                  Linear + GELU       linear(activation='gelu')",
        "3.body.4 + 3.shortcut  BatchNorm2d + sum   batch_norm(residual, activation='relu')",
        "3.body.1 + 3.body.2    BatchNorm2d + ReLU  batch_norm(activation='relu')",
    ])  # fmt: skip
    rows = transformer().fusions()
    assert [row[0] for row in rows if "sum" in row[1]] == ["1 + 2.body.0", "2 + 3.body.0", "3 + 4.body.0", "4 + 5"]
    assert str(nn.Linear(2, 2).fusions()) == str(nn.Sequential(nn.Linear(2, 2)).fusions()) == "no layers are fused"


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_a_batch_norm_that_pools_gives_the_bits_of_its_parts(rng, dtype, training, activation):
    for shape, size in [
        ((3, 7, 9, 21), (2, 2)),
        ((2, 9, 8, 5), (3, 2)),
        ((1, 6, 5, 130), (6, 1)),
        ((2, 20, 20, 3), (17, 17)),
    ]:
        c = shape[-1]
        x = rng.integers(-3, 4, size=shape).astype(float)  # ties
        if not training:
            x[rng.random(shape) < 0.1] = np.nan  # also several to a window
        given = [rng.normal(size=c), rng.normal(size=c), rng.normal(size=c), rng.uniform(0.5, 2, size=c)]
        half = dtype in ("bfloat16", "float16")
        made = [smelt.tensor(g).astype("float32" if half else dtype) for g in given]
        results = []
        for fused in (True, False):
            t, w, b = (v.detach().copy().requires_grad_() for v in (smelt.tensor(x).astype(dtype), *made[:2]))
            m, v = made[2].copy(), made[3].copy()
            if fused:
                y = smelt.batch_norm(t, w, b, m, v, training, activation=activation, max_pool=size)
            else:
                y = smelt.max_pool2d(smelt.batch_norm(t, w, b, m, v, training, activation=activation), size)
            (y.astype("float32") * smelt.arange(float(y.size)).reshape(y.shape)).sum().backward()
            results.append([a.astype("float64").numpy() for a in (y.detach(), t.grad, w.grad, b.grad, m, v)])
        for one, other in zip(*results, strict=True):
            np.testing.assert_array_equal(one, other)


def test_what_pools_otherwise_stays_apart():
    def found(*layers):
        return [row[2] for row in nn.Sequential(nn.Conv2d(3, 4, 3), *layers).fusions()]

    norm, relu = nn.BatchNorm2d(4), nn.ReLU()
    assert found(norm, relu, nn.MaxPool2d(2)) == ["batch_norm(activation='relu', max_pool=(2, 2))"]
    assert found(norm, nn.MaxPool2d(3, (3, 3))) == ["batch_norm(max_pool=(3, 3))"]
    for pool in (nn.MaxPool2d(2, 1), nn.MaxPool2d(2, 2, 1), nn.AvgPool2d(2), nn.GlobalMaxPool2d()):
        assert found(norm, relu, pool) == ["batch_norm(activation='relu')"]
    heard = nn.MaxPool2d(2)
    heard.register_forward_hook(lambda m, inputs, output: None)
    assert found(norm, relu, heard) == ["batch_norm(activation='relu')"]
    model = nn.Sequential(norm, relu, nn.MaxPool2d(5))
    with pytest.raises(ValueError, match=r"^layer 2: max_pool2d: kernel has 5 rows, the padded input has 4$"):
        model(smelt.randn(2, 4, 6, 4))
    with pytest.raises(ValueError, match=r"^layer 0: BatchNorm2d: input must have 4 axes, got shape \(2, 4\)$"):
        model(smelt.randn(2, 4))
    with pytest.raises(ValueError, match=r"^batch_norm: kernel has 5 rows, the padded input has 4$"):
        zero, one = smelt.zeros(4), smelt.ones(4)
        smelt.batch_norm(smelt.randn(2, 4, 6, 4), one, zero, zero, one, True, max_pool=5)
    with pytest.raises(ValueError, match=r"^batch_norm: max_pool must have at least 1 row and 1 column, got \(0, 2\)$"):
        smelt.batch_norm(smelt.randn(2, 4, 6, 4), one, zero, zero, one, True, max_pool=(0, 2))
    with pytest.raises(ValueError, match=r"^batch_norm: activation must be None or 'relu', got 'gelu'$"):
        smelt.batch_norm(smelt.randn(2, 4), one, zero, zero, one, True, activation="gelu")


def test_a_check_goes_on_behind_a_wrong_norm_that_pools():
    class Model(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.norm, self.last = nn.BatchNorm2d(channels), nn.Linear(16, 3)

        def forward(self, x):
            norm = self.norm
            y = smelt.batch_norm(
                x, norm.weight, norm.bias, norm.running_mean, norm.running_var, True, activation="relu", max_pool=2
            )
            return self.last(y.reshape(len(y), -1))

    assert Model(4).check((2, 4, 4, 4)) == []
    told = Model(5).check((2, 4, 4, 4))
    assert "batch_norm: weight has 5 channels, input has 4" in told[0]
    assert "weight has 16 input features, input has 20" in told[1]  # of 2x2 pixels of 5 channels
    told = Model(4).check((2, 1, 4, 4))
    assert "batch_norm: kernel has 2 rows, the padded input has 1" in told[0]
    assert "weight has 16 input features, input has 4" in told[1]  # of a pixel


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_what_a_half_rounds_to_zero_has_no_gradient(dtype):
    least = {"bfloat16": 2.0**-133, "float16": 2.0**-24}[dtype]
    bias = smelt.tensor(
        [least / 2, least / 2 * 1.0625, least, -least]
    )  # the first is stored as 0, the second as the least
    x = smelt.zeros(2, 4).astype(dtype).requires_grad_()
    weight = smelt.zeros(4).requires_grad_()
    grads = []
    for fused in (True, False):
        b = bias.copy().requires_grad_()
        y = smelt.batch_norm(x, weight, b, smelt.zeros(4), smelt.ones(4), True, activation="relu" if fused else None)
        (y if fused else smelt.relu(y)).sum().backward()
        grads.append(b.grad.numpy())
    np.testing.assert_array_equal(grads[0], [0, 2, 2, 0])
    np.testing.assert_array_equal(*grads)


def test_what_is_listened_to_stays_apart():
    seen = []
    for i in range(2):
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        away = model[i].register_forward_hook(lambda m, inputs, output: seen.append(type(m).__name__))
        assert model.fusions() == []
        model(smelt.ones(1, 4))
        away()
        assert len(model.fusions()) == 1
    assert seen == ["Linear", "ReLU"]
    model = nn.Sequential(block())
    model[0].body[4].register_forward_pre_hook(lambda m, inputs: seen.append("norm"))
    model(smelt.randn(1, 4, 4, 8))
    assert seen[-1] == "norm" and [row[0] for row in model.fusions()] == ["0.body.1 + 0.body.2"]


def test_own_layers_and_layers_with_activations_stay_apart():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    for layers in (
        [Doubled(4, 4), nn.ReLU()],
        [nn.Linear(4, 4, activation="tanh"), nn.ReLU()],
        [nn.BatchNorm1d(4), nn.Tanh()],
        [nn.ReLU(), nn.Linear(4, 4)],
        [nn.Linear(4, 4), nn.Softplus()],
    ):
        assert nn.Sequential(*layers).fusions() == []
    assert (nn.Sequential(*[Doubled(4, 4), nn.ReLU()])(smelt.ones(2, 4)).numpy() >= 0).all()


def test_errors_name_the_layer():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(5, 4), nn.ReLU())
    with pytest.raises(ValueError, match=r"^layer 2: linear: weight has 5 input features, input has 4"):
        model(smelt.ones(1, 4))
    wrong = nn.Sequential(nn.Residual(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))))
    with pytest.raises(ValueError, match=r"Residual: body and shortcut must give one shape, got \(2, 3\) and \(2, 4\)"):
        wrong(smelt.ones(2, 4))
    wrong = nn.Sequential(nn.Residual(nn.Linear(4, 1)), nn.LayerNorm(4))
    with pytest.raises(ValueError, match=r"Residual: body and shortcut must give one shape, got \(2, 1\) and \(2, 4\)"):
        wrong(smelt.ones(2, 4))
    with pytest.raises(TypeError, match="Residual: body must be a Module, got int"):
        nn.Residual(3)
    with pytest.raises(TypeError, match="Residual: shortcut must be a Module, got str"):
        nn.Residual(nn.ReLU(), "x")
    with pytest.raises(ValueError, match="Residual: activation must be None or 'relu', got 'gelu'"):
        nn.Residual(nn.ReLU(), activation="gelu")


def test_a_residual_is_saved_trained_and_recorded(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), block(), down(), nn.GlobalAvgPool2d(), nn.Linear(12, 4))
    trainer = smelt.Trainer(model, loss="cross_entropy", optimizer=optim.SGD(model.parameters(), lr=0.1))
    x, y = smelt.randn(4, 8, 8, 3), smelt.tensor([0, 1, 2, 3])
    losses = [float(trainer.step(x, y)) for _ in range(8)]
    assert losses[-1] < losses[0]
    model.eval()
    smelt.save(model, tmp_path / "m.safetensors")
    again = smelt.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(again(x).numpy(), model(x).numpy())
    assert again.fusions() == model.fusions()
