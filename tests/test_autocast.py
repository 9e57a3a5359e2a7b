"""Mixed precision: which operations compute in bfloat16, float32 gradients of weights, the optimizer's bfloat16 copy."""

import threading

import numpy as np
import pytest

import smelt
from smelt import functions, kernels, losses, nn, optim
from tests.cases import UNIT
from tests.processes import python

LOW = UNIT["bfloat16"]
PICTURE = (2, 6, 6, 3)


def bf16(array):
    """The array rounded to bfloat16, as float64."""
    return smelt.from_numpy(np.asarray(array, np.float32)).to("bfloat16").to("float64").numpy()


def values(t):
    return t.detach().to("float64").numpy()


def floats(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


# ------------------------------------------------------------------------------------------------------------- policies

LOW_CALLS = {
    "linear": lambda x: functions.linear(x, smelt.ones(4, 3)),
    "matmul": lambda x: smelt.matmul(x, smelt.ones(3, 4)),
    "conv1d": lambda x: functions.conv1d(x[0], smelt.ones(4, 2, 3)),
    "conv2d": lambda x: functions.conv2d(x, smelt.ones(4, 2, 2, 3)),
    "conv_transpose1d": lambda x: functions.conv_transpose1d(x[0], smelt.ones(3, 2, 4)),
    "conv_transpose2d": lambda x: functions.conv_transpose2d(x, smelt.ones(3, 2, 2, 4)),
    "attention": lambda x: functions.attention(x, x, x),
    "attention_packed": lambda x: functions.attention_packed(x[0], 1),
}
WIDE_CALLS = {
    "sum": lambda x: x.sum(),
    "mean": lambda x: x.mean(axis=0),
    "prod": lambda x: smelt.prod(x, axis=0),
    "cumsum": lambda x: smelt.cumsum(x, 0),
    "cross_entropy": lambda x: losses.cross_entropy(x, smelt.zeros(2, 6, 6, dtype="int64")),
    "mse_loss": lambda x: losses.mse_loss(x, smelt.zeros(*PICTURE)),
    "l1_loss": lambda x: losses.l1_loss(x, smelt.zeros(*PICTURE)),
    "huber_loss": lambda x: losses.huber_loss(x, smelt.zeros(*PICTURE)),
    "binary_cross_entropy_with_logits": lambda x: losses.binary_cross_entropy_with_logits(x, smelt.zeros(*PICTURE)),
}
FOLLOWING = {
    "relu": smelt.relu,
    "exp": smelt.exp,
    "softmax": smelt.softmax,
    "max_pool2d": lambda x: smelt.max_pool2d(x, 2),
    "avg_pool2d": lambda x: smelt.avg_pool2d(x, 2),
    "dropout": lambda x: smelt.dropout(x, 0.5),
    "batch_norm": lambda x: nn.BatchNorm2d(3)(x),
    "layer_norm": lambda x: nn.LayerNorm(3)(x),
    "rms_norm": lambda x: nn.RMSNorm(3)(x),
    "group_norm": lambda x: nn.GroupNorm(3, 3)(x),
    "reshape": lambda x: x.reshape(-1, 3),
    "max": lambda x: smelt.max(x),
    "scalar": lambda x: 2.5 * x,
}


def test_every_policy_has_a_row_here():
    policies = smelt.autocast_policies()
    assert {name for name, policy in policies.items() if policy == "low"} == LOW_CALLS.keys()
    assert {name for name, policy in policies.items() if policy == "float32"} == WIDE_CALLS.keys()


@pytest.mark.parametrize("name", LOW_CALLS)
def test_low(name):
    x = smelt.ones(*PICTURE)
    call = LOW_CALLS[name]
    assert call(x).dtype == "float32"
    with smelt.autocast("bf16"):
        assert call(x).dtype == "bfloat16" and call(x.to("bfloat16")).dtype == "bfloat16"


@pytest.mark.parametrize("name", WIDE_CALLS)
def test_float32(name):
    x = smelt.ones(*PICTURE, dtype="bfloat16")
    with smelt.autocast("bf16"):
        assert WIDE_CALLS[name](x).dtype == "float32"


@pytest.mark.parametrize("name", ["var", "std"])
def test_statistics_made_of_sums(name):
    x = smelt.ones(*PICTURE, dtype="bfloat16")
    assert getattr(smelt, name)(x, 0).dtype == "bfloat16"
    with smelt.autocast("bf16"):
        assert getattr(smelt, name)(x, 0).dtype == "float32"


@pytest.mark.parametrize("name", FOLLOWING)
def test_others_follow(name):
    with smelt.autocast("bf16"):
        for dtype in ("float32", "bfloat16"):
            assert FOLLOWING[name](smelt.ones(*PICTURE, dtype=dtype)).dtype == dtype


def test_where_operands_differ_the_low_dtype_wins():
    a, b = smelt.ones(2, 3), smelt.ones(2, 3, dtype="bfloat16")
    calls = {
        "add": lambda: a + b,
        "where": lambda: smelt.where(a > 0, a, b),
        "concat": lambda: smelt.concat([a, b]),
        "matmul": lambda: smelt.matmul(a, b.T),
    }
    assert {name: str(call().dtype) for name, call in calls.items()} == dict.fromkeys(calls, "float32")
    with smelt.autocast("bf16"):
        assert {name: str(call().dtype) for name, call in calls.items()} == dict.fromkeys(calls, "bfloat16")
        residual = smelt.batch_norm(b, *(smelt.ones(3) for _ in range(4)), training=False, residual=a)
        assert residual.dtype == "bfloat16"
        other = smelt.batch_norm(a, *(smelt.ones(3) for _ in range(4)), training=False, residual=b)
        assert other.dtype == "bfloat16"
        assert (a + smelt.ones(2, 3, dtype="int64")).dtype == "float32"
        assert (a.to("float64") + b).dtype == "float64"  # as without autocast


def test_float64_and_integers_are_left_alone():
    with smelt.autocast("bf16"):
        assert smelt.matmul(smelt.ones(2, 2, dtype="float64"), smelt.ones(2, 2, dtype="float64")).dtype == "float64"
        assert smelt.matmul(smelt.ones(2, 2), smelt.ones(2, 2, dtype="int64")).dtype == "bfloat16"
        assert functions.linear(smelt.ones(2, 3, dtype="float64"), smelt.ones(4, 3, dtype="float64")).dtype == "float64"


def test_where_it_is_in_force():
    layer, x = nn.Linear(3, 4), smelt.ones(2, 3)
    seen = []

    @smelt.autocast("bf16")
    def forward():
        thread = threading.Thread(target=lambda: seen.append(str(layer(x).dtype)))
        thread.start()
        thread.join()
        with smelt.autocast("float32"):
            seen.append(str(layer(x).dtype))
        return str(layer(x).dtype)

    assert forward() == "bfloat16" and seen == ["float32", "float32"] and layer(x).dtype == "float32"
    with pytest.raises(ZeroDivisionError), smelt.autocast("bf16"):
        _ = 1 / 0
    assert layer(x).dtype == "float32"
    for given in ("fp16", "int8", 3):
        with pytest.raises(ValueError, match=f"autocast: precision must be 'bf16' or 'float32', got {given!r}"):
            smelt.autocast(given)


def test_errors_name_the_dtypes_that_were_given():
    with smelt.autocast("bf16"):
        with pytest.raises(TypeError, match="linear: input is float64, weight is float32: both must"):
            functions.linear(smelt.ones(2, 3, dtype="float64"), smelt.ones(4, 3))
        with pytest.raises(TypeError, match="conv2d: input is float16, weight is float32: both must"):
            functions.conv2d(smelt.ones(1, 3, 3, 3, dtype="float16"), smelt.ones(4, 3, 3, 3))


def test_generators_and_coroutines_are_refused():
    def generator():
        yield 1

    async def coroutine():
        pass

    for function in (generator, coroutine):
        for decorator in (smelt.autocast("bf16"), smelt.no_grad()):
            with pytest.raises(TypeError, match="must not be a generator or coroutine"):
                decorator(function)


def test_check_mode():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    with smelt.autocast("bf16"):
        assert model.check(smelt.ones(*PICTURE)) == []
        assert "linear" in str(model.check(smelt.ones(2, 7, 6, 3)))


# --------------------------------------------------------------------------------------------------- values and slopes


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_linear(rng, packed, bias):
    m, n, k = 37, 19, 300
    layer, x = nn.Linear(k, n, bias=bias), smelt.from_numpy(floats(rng, m, k))
    if packed:
        opt = optim.SGD(layer.parameters(), lr=0.0)
        layer(x).sum().backward()
        opt.step()
        opt.zero_grad()
    x.requires_grad = True
    with smelt.autocast("bf16"):
        y = layer(x)
    dy = floats(rng, m, n)
    (y * smelt.from_numpy(dy).to("bfloat16")).float().sum().backward()

    lx, lw, ldy = bf16(x.detach().numpy()), bf16(layer.weight.detach().numpy()), bf16(dy)
    b = bf16(layer.bias.detach().numpy()) if bias else 0
    sums = 4 * k * 2.0**-24 * (np.abs(lx) @ np.abs(lw.T) + np.abs(b))
    exact = lx @ lw.T + b
    assert np.all(np.abs(values(y) - exact) <= sums + LOW * (np.abs(exact) + sums))
    # The slopes come in float32: no rounding to bfloat16 behind the sum.
    for got, left, right in ((layer.weight.grad, ldy.T, lx), (x.grad, ldy, lw)):
        assert got.dtype == "float32"
        assert np.all(np.abs(values(got) - left @ right) <= 4 * max(m, n) * 2.0**-24 * (np.abs(left) @ np.abs(right)))
    if bias:
        assert layer.bias.grad.dtype == "float32"
        assert np.all(np.abs(values(layer.bias.grad) - ldy.sum(0)) <= m * 2.0**-24 * np.abs(ldy).sum(0))


def slopes(op, weights, *given):
    """The result of an op, and the slopes of its sum with weights, float64 as it is and float32 under autocast."""
    given = [smelt.from_numpy(t).requires_grad_() for t in given]
    with smelt.autocast("bf16"):
        y = op(*given)
    (y.to(given[0].dtype) * smelt.from_numpy(weights.astype(given[0].numpy().dtype))).sum().backward()
    return y, [t.grad for t in given]


@pytest.mark.parametrize(
    ("op", "shapes", "terms"),
    [
        (lambda x, w, b: functions.conv2d(x, w, b, padding=1), [(2, 8, 7, 4), (5, 3, 3, 4), (5,)], 2 * 8 * 7),
        (lambda x, w, b: functions.conv1d(x, w, b, stride=2), [(3, 9, 4), (6, 3, 4), (6,)], 24),
        (lambda a, b: smelt.matmul(a, b.swapaxes(-1, -2)), [(3, 5, 7), (1, 9, 7)], 27),
        (lambda a, b: smelt.matmul(a, b), [(2, 3, 40), (40, 6)], 40),
    ],
)
def test_low_operations_against_float64(rng, op, shapes, terms):
    given = [floats(rng, *shape) for shape in shapes]
    low = [bf16(t) for t in given]
    weights = bf16(floats(rng, *op(*map(smelt.from_numpy, given)).shape))
    y, got = slopes(op, weights, *given)
    exact, wanted = slopes(op, weights, *low)
    size, sizes = slopes(op, np.abs(weights), *map(np.abs, low))  # what the sums are made of
    assert y.dtype == "bfloat16" and exact.dtype == "float64"
    sums = terms * 2.0**-24 * values(size)
    assert np.all(np.abs(values(y) - values(exact)) <= sums + LOW * (np.abs(values(exact)) + sums))
    for g, want, of in zip(got, wanted, sizes):  # no rounding to bfloat16 behind the sum
        assert g.dtype == "float32"
        assert np.all(np.abs(values(g) - values(want)) <= terms * 2.0**-24 * values(of))


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
def test_activations_are_taken_of_what_would_be_stored(rng, activation):
    x, w = smelt.from_numpy(floats(rng, 9, 30)), smelt.from_numpy(floats(rng, 7, 30))
    with smelt.autocast("bf16"):
        y = functions.linear(x, w, activation=activation)
        z = functions.linear(x, w)
        np.testing.assert_array_equal(values(y), values(getattr(smelt, activation)(z)))


# ----------------------------------------------------------------------------------------------- the optimizer's mirror


def trained(kind=optim.AdamW, **options):
    """A layer after one step under autocast, its optimizer, and a batch."""
    layer, x = nn.Linear(40, 30), smelt.randn(8, 40)
    opt = kind(layer.parameters(), lr=0.1, **options)
    step(layer, opt, x)
    return layer, opt, x


def step(layer, opt, x):
    with smelt.autocast("bf16"):
        loss = layer(x).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()


def casts(layer, x):
    """Which casts a forward pass runs beside that of x; its result is that of weights that are rounded now."""
    with smelt.autocast("bf16"), kernels.trace() as names, smelt.no_grad():
        y = layer(x)
    low = [t.detach().to("bfloat16") for t in (x, layer.weight, layer.bias)]
    np.testing.assert_array_equal(values(y), values(functions.linear(*low)))
    return sum(name.endswith("cast") for name in names) - 1


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.AdamW])
def test_the_update_writes_the_mirror(kind):
    layer, opt, x = trained(kind)
    assert casts(layer, x) == 2  # packing moved the parameters: the new place has no mirror yet
    assert casts(layer, x) == 0
    for _ in range(3):
        step(layer, opt, x)
        assert casts(layer, x) == 0


def test_other_writes_make_a_new_mirror():
    layer, opt, x = trained()
    casts(layer, x)
    with smelt.no_grad():
        layer.weight.copy_(layer.weight * 2)
    assert casts(layer, x) == 1 and casts(layer, x) == 0
    layer.load_state_dict({name: t * 3 for name, t in layer.state_dict().items()})
    assert casts(layer, x) == 2 and casts(layer, x) == 0
    view = layer.weight.detach().numpy()
    view[...] = 7
    assert casts(layer, x) == 1 and casts(layer, x) == 1  # while the view lives nobody knows
    view[0] = 8
    del view
    assert casts(layer, x) == 1 and casts(layer, x) == 0
    step(layer, opt, x)
    assert casts(layer, x) == 0
    opt.release()
    assert casts(layer, x) == 0


def test_memory_that_others_may_write_has_no_mirror(rng):
    array, x = floats(rng, 4, 4), smelt.ones(2, 4)
    weight = smelt.from_numpy(array).requires_grad_()
    with smelt.autocast("bf16"):
        assert np.abs(values(functions.linear(x, weight))).max() > 0
        array[...] = 0
        assert np.abs(values(functions.linear(x, weight))).max() == 0


def test_raw_kernels_that_write_a_parameter_are_seen():
    layer, _, x = trained()
    casts(layer, x)
    kernels.binary(layer.weight.detach().copy(), 2.0, "mul", out=layer.weight.detach())
    assert casts(layer, x) == 1
    x.requires_grad = True
    loss = layer(x).sum()
    kernels.fill(layer.weight.detach(), 0.0)
    with pytest.raises(RuntimeError, match="changed in place after it was used"):
        loss.backward()


def test_a_mirror_that_nobody_asks_for_is_not_written():
    layer, opt, x = trained()
    casts(layer, x)
    for _ in range(2):  # the first step after a use still writes it, the second does not
        layer(x).sum().backward()
        opt.step()
    assert casts(layer, x) == 2


THREADS = """
import threading
import smelt
from smelt import nn, optim

smelt.set_num_threads(1)
def work(models):
    for model in models:
        opt = optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            with smelt.autocast("bf16"):
                loss = model(smelt.ones(2, 1024)).float().sum()
            loss.backward()
            opt.step()
models = [nn.Linear(1024, 1024) for _ in range(4)]
shared = nn.Sequential(*[nn.Linear(1024, 1024) for _ in range(4)])
def infer():
    with smelt.no_grad(), smelt.autocast("bf16"):
        results.append(shared(smelt.ones(1, 1024)).float().numpy().tobytes())
results = []
for jobs in ([lambda: work(models[:2]), lambda: work(models[2:])], [infer] * 4):
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
        assert not t.is_alive(), "threads wait for each other"
assert len(set(results)) == 1 and len(results) == 4
"""


def test_threads_do_not_wait_for_each_other():
    python(THREADS)


def test_frozen_parameters_and_new_layouts():
    model, x = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), smelt.randn(3, 4)
    opt = optim.SGD(model.parameters(), lr=0.1)
    step(model, opt, x)
    step(model, opt, x)
    smelt.freeze(model[0])
    step(model, opt, x)
    step(model, opt, x)
    for layer in model:
        casts(layer, x)
    smelt.unfreeze(model[0])
    step(model, opt, x)
    for layer in model:
        casts(layer, x)


def test_a_parameter_without_a_gradient_keeps_its_mirror():
    used, other, x = nn.Linear(4, 4), nn.Linear(4, 4), smelt.randn(3, 4)
    opt = optim.AdamW([*used.parameters(), *other.parameters()], lr=0.1)
    with smelt.autocast("bf16"):
        (used(x) + other(x)).sum().backward()
    opt.step()
    casts(used, x), casts(other, x)
    step(used, opt, x)
    assert casts(used, x) == 0 and casts(other, x) == 0


def test_a_skipped_step_keeps_the_mirror():
    layer, opt, x = trained(clip_norm=1.0)
    casts(layer, x)
    before = values(layer.weight)
    layer(x * float("inf")).sum().backward()
    opt.step()
    assert opt.skipped_steps == 1 and casts(layer, x) == 0
    np.testing.assert_array_equal(values(layer.weight), before)


def test_a_weight_that_is_written_before_backward_is_found():
    for packed in (False, True):
        layer, x = nn.Linear(4, 4), smelt.randn(3, 4)
        if packed:
            layer, _, x = trained()
        x.requires_grad = True
        with smelt.autocast("bf16"):
            loss = layer(x).sum()
        with smelt.no_grad():
            layer.weight.copy_(layer.weight * 2)
        with pytest.raises(RuntimeError, match="changed in place after it was used"):
            loss.backward()


@pytest.mark.parametrize("slot", ["sgd", "adam"])
def test_raw_update_with_mirror(rng, slot):
    p, g = floats(rng, 1000), floats(rng, 1000)
    mirror = smelt.zeros(1000, dtype="bfloat16")
    if slot == "sgd":
        kernels.sgd(p, g, lr=0.1, mirror=mirror)
    else:
        kernels.adam(p, g, np.zeros_like(p), np.zeros_like(p), lr=0.1, step=1, mirror=mirror)
    np.testing.assert_array_equal(values(mirror), bf16(p))
    with pytest.raises(ValueError, match="mirror needs float32 parameters, got float64"):
        kernels.sgd(p.astype(float), g.astype(float), lr=0.1, mirror=mirror)
    with pytest.raises(TypeError, match="mirror must be bfloat16, got float32"):
        kernels.sgd(p, g, lr=0.1, mirror=smelt.zeros(1000))


# ------------------------------------------------------------------------------------------------------------- training


def net(seed=0):
    smelt.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.1), nn.Flatten(),
        nn.Linear(8 * 16, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 3),
    )  # fmt: skip


def data(rng, n=96):
    y = rng.integers(0, 3, n)
    return (floats(rng, n, 8, 8, 1) + y[:, None, None, None]).astype(np.float32), y


def test_trainer(rng):
    x, y = data(rng)
    trainer = smelt.Trainer(net(), lr=5e-3, metrics=["accuracy"], precision="bf16")
    trainer.fit((x, y), epochs=8, batch_size=16)
    assert trainer.evaluate((x, y))["accuracy"] > 0.9
    assert trainer.predict(x).dtype == "float32"
    assert all(t.dtype != "bfloat16" for t in trainer.model.state_dict().values())
    with pytest.raises(ValueError, match="Trainer: precision must be 'bf16' or 'float32', got 'int4'"):
        smelt.Trainer(net(), precision="int4")


def test_same_bits_for_any_number_of_threads(rng):
    x, y = data(rng, 320)
    weights = []
    threads = smelt.get_num_threads()
    try:
        for n in (1, 2, 3, 5):
            smelt.set_num_threads(n)
            trainer = smelt.Trainer(net(), precision="bf16", seed=1)
            trainer.fit((x, y), epochs=1, batch_size=160)  # products that threads share
            weights.append({name: values(t) for name, t in trainer.model.state_dict().items()})
    finally:
        smelt.set_num_threads(threads)
    for other in weights[1:]:
        for name, value in weights[0].items():
            np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_resume_gives_the_same_bits_and_keeps_to_the_precision(rng, tmp_path):
    x, y = data(rng)

    def run(folder, epochs_now, precision="bf16", resume=False):
        trainer = smelt.Trainer(net(), precision=precision, seed=1)

        class Stop(smelt.train.Callback):
            def on_epoch_end(self, trainer, row):
                trainer.stop = row["epoch"] == epochs_now

        trainer.fit((x, y), epochs=4, batch_size=32, out=folder, resume=resume, callbacks=[Stop()])
        return {name: values(t) for name, t in trainer.model.state_dict().items()}

    whole = run(tmp_path / "whole", 4)
    run(tmp_path / "parts", 2)
    with pytest.raises(ValueError, match="resume: precision must be that of the checkpoint, bfloat16, got float32"):
        run(tmp_path / "parts", 4, "float32", resume=True)
    parts = run(tmp_path / "parts", 4, resume=True)
    for name, value in whole.items():
        np.testing.assert_array_equal(value, parts[name], err_msg=name)


# -------------------------------------------------------------------------------------------------------- attention


def test_attention_of_mixed_operands(rng):
    """Under autocast each gradient comes in the dtype of its operand, one call for each dtype."""
    arrays = [floats(rng, 2, 20, 2, 8) for _ in range(4)]
    q, k, v, dy = (smelt.from_numpy(a) for a in arrays)
    leaves = [q.requires_grad_(), k.to("bfloat16").requires_grad_(), v.requires_grad_()]
    with smelt.autocast("bf16"):
        y = smelt.attention(*leaves, causal=True)
    y.backward(dy.to("bfloat16"))
    low = [smelt.from_numpy(a).to("bfloat16").requires_grad_() for a in arrays[:3]]
    wanted = smelt.attention(*low, causal=True)
    wanted.backward(dy.to("bfloat16"))
    np.testing.assert_array_equal(y.detach().float().numpy(), wanted.detach().float().numpy())
    assert [t.grad.dtype for t in leaves] == ["float32", "bfloat16", "float32"]
    for mine, theirs in zip(leaves, low):
        np.testing.assert_array_equal(mine.grad.to("bfloat16").float().numpy(), theirs.grad.float().numpy())
