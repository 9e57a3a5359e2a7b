"""Attention beyond its case records: what a query does not see, accumulation, packing, recording, many configurations."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import smelt
from smelt import kernels, nn, optim
from tests.conftest import devices, isa_levels
from tests.reference import attention as reference

F32 = np.float32


def floats(rng, *shape):
    return rng.normal(size=shape).astype(F32)


def run(arrays, dy, dtype="float32", device="cpu", **options):
    """Result and gradients, as float64."""
    leaves = [smelt.from_numpy(a).to(dtype).to(device).requires_grad_() for a in arrays]
    options = {k: smelt.from_numpy(v).to(device) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    y = smelt.attention(*leaves, **options)
    y.backward(smelt.from_numpy(dy).to(dtype).to(device))
    return [t.astype("float64").numpy() for t in (y.detach(), *(leaf.grad for leaf in leaves))]


def operands(rng, b=2, tq=70, tk=70, h=2, hkv=1, d=16):
    return (floats(rng, b, tq, h, d), floats(rng, b, tk, hkv, d), floats(rng, b, tk, hkv, d)), floats(rng, b, tq, h, d)


# ------------------------------------------------------------------------------------------------- what is not seen


@pytest.mark.parametrize("level", isa_levels())
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_a_query_does_not_see_has_no_part_in_it(rng, level, dtype, bad):
    """Causal: from the first bad step on, and nothing before it, forward and backward."""
    arrays, dy = operands(rng)
    first = 41
    with kernels.isa(level):
        clean = run(arrays, dy, dtype, causal=True)
        for position in range(3):
            given_arrays = [a.copy() for a in arrays]
            given_arrays[position][0, first] = bad
            y, dq, *_ = run(given_arrays, dy, dtype, causal=True)
            # A blocked product and one of single rows differ by rounding, of p where that is a half.
            size = 2.0**-7 if dtype == "bfloat16" else 2.0**-20
            for got, want in ((y, clean[0]), (dq, clean[1])):
                assert np.isfinite(got[0, :first]).all() and np.isfinite(got[1]).all()
                assert np.abs(got[0, :first] - want[0, :first]).max() <= size * 8 * np.abs(want).max()
                np.testing.assert_array_equal(got[1], want[1])
            if position == 0:  # a query's own: no other query, before or behind it
                rest = np.arange(70) != first
                assert np.isnan(y[0, first]).all() and np.isfinite(y[0, rest]).all()
            elif np.isnan(bad):
                assert np.isnan(y[0, first:]).all()


@pytest.mark.parametrize("level", isa_levels())
def test_gradients_of_keys_that_a_bad_query_does_not_see(rng, level):
    arrays, dy = operands(rng)
    arrays[0][0, 20] = np.nan
    with kernels.isa(level):
        _, dq, dk, dv = run(arrays, dy, causal=True)
        dy[0, 30] = np.inf
        _, _, dk2, dv2 = run((arrays[0] * 0 + 1, *arrays[1:]), dy, causal=True)
    assert np.isnan(dk[0, :21]).all() and np.isnan(dv[0, :21]).all()
    assert np.isfinite(dk[0, 21:]).all() and np.isfinite(dv[0, 21:]).all()
    assert np.isfinite(dq[0, np.arange(70) != 20]).all()
    assert np.isfinite(dv2[0, 31:]).all() and not np.isfinite(dv2[0, :21]).any() and dk2.shape == dk.shape


@pytest.mark.parametrize("level", isa_levels())
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_keys_behind_the_length_are_not_read(rng, level, dtype):
    arrays, dy = operands(rng, b=3, tk=150)
    lengths = [150, 97, 0]
    with kernels.isa(level):
        clean = run(arrays, dy, dtype, lengths=lengths)
        for i, n in enumerate(lengths):
            arrays[1][i, n:] = np.nan
            arrays[2][i, n:] = np.inf
        got = run(arrays, dy, dtype, lengths=lengths)
    for a, b in zip(got, clean):
        np.testing.assert_array_equal(a, b)
    assert not got[0][2].any() and not got[1][2].any()
    for grad in got[2:]:
        assert not grad[1, 97:].any() and not grad[2].any() and grad[1, :97].any()


@pytest.mark.parametrize("level", isa_levels())
@pytest.mark.parametrize("scale", [1e3, 1e5, 1e9])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_large_scores_choose_one_key(level, rng, dtype, scale):
    q, k, v = (
        smelt.from_numpy(rng.normal(size=(1, 33, 2, 32)).astype(np.float32) * m).to(dtype) for m in (scale, scale, 1)
    )
    wide = [t.to("float64").numpy().transpose(0, 2, 1, 3) for t in (q, k, v)]
    best = (wide[0] @ wide[1].swapaxes(-1, -2)).argmax(-1)
    wanted = np.take_along_axis(wide[2], best[..., None], 2).transpose(0, 2, 1, 3)
    leaves = [t.requires_grad_() for t in (q, k, v)]
    with kernels.isa(level):
        y = smelt.attention(*leaves)
        y.sum().backward()
    # Nearly all rows have one largest score by far; none is lost, and gradients stay finite.
    got = y.to("float64").numpy()
    assert np.isfinite(got).all() and (np.abs(got - wanted).max(-1) == 0).mean() > 0.9
    assert (got != 0).any(-1).all()
    assert all(np.isfinite(t.grad.to("float64").numpy()).all() for t in leaves)
    np.testing.assert_allclose(v.grad.to("float64").numpy().sum(), y.size, rtol=0.02)


@pytest.mark.parametrize("device", ["cpu", *devices()])
def test_rows_that_are_masked_whole_give_zeros(rng, device):
    arrays, dy = operands(rng)
    for nothing in (np.zeros((70, 70), bool), np.full((70, 70), -np.inf, F32)):
        for result in run(arrays, dy, device=device, mask=nothing):
            assert not result.any()
    mask = rng.random((70, 70)) > 0.5
    mask[::3] = False
    y, dq, *_ = run(arrays, dy, device=device, mask=mask)
    assert not y[:, ::3].any() and not dq[:, ::3].any() and np.isfinite(y).all() and np.isfinite(dq).all()


# ------------------------------------------------------------------------------------------------ forms of one call


@pytest.mark.parametrize("level", isa_levels())
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("hkv", [4, 2, 1])
def test_packed_gives_the_bits_of_three_tensors(rng, level, dtype, hkv):
    b, t, h, d = 2, 90, 4, 24
    packed = smelt.from_numpy(floats(rng, b, t, (h + 2 * hkv) * d)).to(dtype)
    dy = smelt.from_numpy(floats(rng, b, t, h * d)).to(dtype)
    parts = [
        p.reshape(b, t, n, d) for p, n in zip(smelt.split(packed, [h * d, hkv * d, hkv * d], axis=2), (h, hkv, hkv))
    ]
    with kernels.isa(level):
        leaves = [p.detach().requires_grad_() for p in parts]
        separate = smelt.attention(*leaves, causal=True)
        separate.backward(dy.reshape(b, t, h, d))
        packed.requires_grad = True
        together = smelt.attention_packed(packed, h, hkv, causal=True)
        together.backward(dy)
    np.testing.assert_array_equal(
        together.detach().float().numpy(), separate.detach().reshape(b, t, h * d).float().numpy()
    )
    grads = smelt.concat([leaf.grad.reshape(b, t, -1) for leaf in leaves], axis=2)
    np.testing.assert_array_equal(packed.grad.float().numpy(), grads.float().numpy())


@pytest.mark.parametrize("device", ["cpu", *devices()])
def test_one_tensor_as_queries_keys_and_values(rng, device):
    """Its gradient is the sum of the three."""
    x, dy = floats(rng, 2, 40, 2, 8), floats(rng, 2, 40, 2, 8)
    grads = run((x, x, x), dy, device=device)[1:]
    for make in (lambda t: t, lambda t: t * 1):
        leaf = smelt.from_numpy(x).to(device).requires_grad_()
        inner = make(leaf)
        smelt.attention(inner, inner, inner).backward(smelt.from_numpy(dy).to(device))
        np.testing.assert_allclose(
            leaf.grad.numpy(), sum(grads), rtol=0, atol=4 * 2.0**-24 * np.abs(grads).sum(0).max()
        )


def test_gradients_are_added_to_those_that_are_there(rng):
    arrays, dy = operands(rng)
    leaves = [smelt.from_numpy(a).requires_grad_() for a in arrays]
    for _ in range(2):
        smelt.attention(*leaves, causal=True).backward(smelt.from_numpy(dy))
    for leaf, once in zip(leaves, run(arrays, dy, causal=True)[1:]):
        np.testing.assert_array_equal(leaf.grad.numpy(), (2 * once).astype(F32))


def test_only_what_needs_a_gradient_gets_one(rng):
    arrays, dy = operands(rng)
    full = run(arrays, dy, causal=True)[1:]
    for wanted in range(3):
        tensors = [smelt.from_numpy(a) for a in arrays]
        tensors[wanted].requires_grad = True
        smelt.attention(*tensors, causal=True).backward(smelt.from_numpy(dy))
        np.testing.assert_array_equal(tensors[wanted].grad.numpy(), full[wanted].astype(F32))
        assert all(t.grad is None for i, t in enumerate(tensors) if i != wanted)


def test_raw_kernels_give_the_bits_of_the_op(rng):
    (q, k, v), dy = operands(rng, tk=90, h=4, hkv=2)
    mask, lengths = rng.random((2, 1, 70, 90)) > 0.2, np.array([90, 33])
    y, dq, dk, dv = run((q, k, v), dy, mask=mask, lengths=lengths, causal=True, scale=0.3)
    options = {"mask": mask, "lengths": lengths, "causal": True, "scale": 0.3}
    got, lse = kernels.attention(q, k, v, **options)
    np.testing.assert_array_equal(got, y.astype(F32))
    grads = kernels.attention_backward(q, k, v, got, lse, dy, **options)
    for mine, want in zip(grads, (dq, dk, dv)):
        np.testing.assert_array_equal(mine, want.astype(F32))
    twice = [g.copy() for g in grads]
    kernels.attention_backward(q, k, v, got, lse, dy, **options, accumulate=True, out=twice)
    for mine, once in zip(twice, grads):
        np.testing.assert_array_equal(mine, 2 * once)
    low = [smelt.from_numpy(a).to("bfloat16") for a in (q, k, v)]
    got, lse = kernels.attention(*low)
    wide = [smelt.zeros(*a.shape) for a in (q, k, v)]
    kernels.attention_backward(*low, got, lse, smelt.from_numpy(dy).to("bfloat16"), out=wide)
    narrow = kernels.attention_backward(*low, got, lse, smelt.from_numpy(dy).to("bfloat16"))
    for a, b in zip(wide, narrow):
        np.testing.assert_array_equal(a.to("bfloat16").float().numpy(), b.float().numpy())


@pytest.mark.parametrize(
    ("error", "text", "change"),
    [
        (ValueError, "mask must be .B, H, Tq, Tk. = .*got .70, 70.", {"mask": np.ones((70, 70), bool)}),
        (ValueError, "scale must be finite, got nan", {"scale": float("nan")}),
        (IndexError, r"lengths must be (in|from)", {"lengths": np.array([3, 71])}),
        (TypeError, "mask must be bool or .*got int64", {"mask": np.ones((1, 1, 1, 1), np.int64)}),
    ],
)
def test_raw_kernels_refuse(rng, error, text, change):
    (q, k, v), _ = operands(rng)
    with pytest.raises(error, match="attention: " + text):
        kernels.attention(q, k, v, **change)


def test_raw_kernels_refuse_heads_that_do_not_divide(rng):
    with pytest.raises(ValueError, match="attention: heads of k must divide those of q, got 2 and 3"):
        kernels.attention(floats(rng, 1, 2, 3, 4), floats(rng, 1, 2, 2, 4), floats(rng, 1, 2, 2, 4))
    (q, k, v), dy = operands(rng)
    y, lse = kernels.attention(q, k, v)
    with pytest.raises(ValueError, match="attention_backward: out must be dq, dk and dv, got 1 arrays"):
        kernels.attention_backward(q, k, v, y, lse, dy, out=[q])


# ---------------------------------------------------------------------------------------------------- the layer


def test_layer(rng):
    layer = nn.MultiHeadAttention(24, 4, kv_heads=2, causal=True)
    assert layer.qkv.weight.shape == (48, 24) and layer.out.weight.shape == (24, 24)
    assert repr(layer).startswith("MultiHeadAttention(24, 4, kv_heads=2, causal=True")
    x = smelt.from_numpy(floats(rng, 3, 10, 24))
    lengths = smelt.tensor([10, 4, 1])
    y = layer(x, lengths=lengths)
    qkv = (x.numpy() @ layer.qkv.weight.detach().numpy().T + layer.qkv.bias.detach().numpy()).astype(np.float64)
    inner = reference.attention_packed(qkv, 4, 2, causal=True, lengths=[10, 4, 1])
    want = inner @ layer.out.weight.detach().numpy().T + layer.out.bias.detach().numpy()
    np.testing.assert_allclose(y.detach().numpy(), want, rtol=0, atol=200 * 2.0**-24 * 4)
    mask = smelt.from_numpy(rng.random((3, 1, 1, 10)) > 0.3)
    assert layer(x, mask=mask).shape == (3, 10, 24)
    assert layer.check(x) == []
    assert "linear: weight has 24 input features, input has 23" in str(layer.check(smelt.ones(3, 10, 23)))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, 4), "width must be a whole number of at least 1, got 0"),
        ((24, 5), "heads must divide the width of 24, got 5"),
        ((24, 4, 3), "kv_heads must divide the 4 heads, got 3"),
        ((24, 4, 0), "kv_heads must be a whole number of at least 1, got 0"),
    ],
)
def test_layer_refuses(arguments, text):
    with pytest.raises(ValueError, match="MultiHeadAttention: " + text):
        nn.MultiHeadAttention(*arguments)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_recorded_steps_give_the_bits_of_eager_ones(precision, threads):
    smelt.set_num_threads(threads)

    def train(record):
        smelt.manual_seed(3)
        model = nn.Sequential(
            nn.MultiHeadAttention(32, 4, causal=True), nn.LayerNorm(32), nn.MultiHeadAttention(32, 2, 1)
        )
        optimizer = optim.SGD(model.parameters(), lr=0.1)

        def step(x):
            with smelt.autocast(precision):
                loss = (model(x).float() ** 2).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss

        run_step = smelt.capture(step) if record else step
        rng = np.random.default_rng(0)
        losses = [run_step(smelt.from_numpy(floats(rng, 2, 75, 32))).item() for _ in range(6)]
        return losses, [p.detach().numpy().tobytes() for p in model.parameters()]

    assert train(True) == train(False)


# ---------------------------------------------------------------------------------------------- any configuration


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_configuration(data):
    """Values and gradients in float32 and bfloat16 at a drawn instruction set against float64 at the lowest one."""
    draw = data.draw
    b, hkv, group = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    tq, tk = draw(st.integers(1, 150)), draw(st.integers(1, 280))
    d, dv = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    level, dtype = draw(st.sampled_from(isa_levels())), draw(st.sampled_from(["float32", "bfloat16", "float16"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    arrays = [floats(rng, *s) for s in ((b, tq, hkv * group, d), (b, tk, hkv, d), (b, tk, hkv, dv))]
    dy = floats(rng, b, tq, hkv * group, dv)
    options = {"causal": draw(st.booleans())}
    kind = draw(st.sampled_from(["none", "bool", "added"]))
    if kind != "none":
        shape = [n if draw(st.booleans()) else 1 for n in (b, hkv * group, tq, tk)]
        options["mask"] = rng.random(shape) > 0.3 if kind == "bool" else floats(rng, *shape)
    if draw(st.booleans()):
        options["lengths"] = rng.integers(0, tk + 1, b)
    rounded = [smelt.from_numpy(a).to(dtype).astype("float64").numpy() for a in (*arrays, dy)]
    with kernels.isa("portable"):
        exact = run(rounded[:3], rounded[3], "float64", **options)
    want = reference.attention(*rounded[:3], **options)
    np.testing.assert_allclose(exact[0], want, rtol=0, atol=(tk + d + 64) * 2.0**-52 * max(np.abs(rounded[2]).max(), 1))
    with kernels.isa(level):
        got = run(arrays, dy, dtype, **options)
    # A score is a sum of d products of some size; p and ds, its errors in them, are summed over keys or queries. Halves round
    # p, ds, y and what they store.
    size = (
        np.abs(np.einsum("bihd,bjhd->bhij", np.abs(rounded[0]), np.repeat(np.abs(rounded[1]), group, 2))).max()
        * d**-0.5
    )
    half = {"bfloat16": 2.0**-8, "float16": 2.0**-11}.get(dtype, 0)
    units = ((d + 8) * (size + 4) + group * (tq + tk) + dv + 64) * 2.0**-24 + 6 * half
    least = tk * 2.0**-126 + (2.0**-25 if dtype == "float16" else 0)  # half of the step between the smallest numbers
    for mine, theirs, terms in zip(got, exact, reference.sizes(*rounded, **options)):
        assert np.isfinite(mine).all()
        assert (np.abs(mine - theirs) <= units * terms + half * np.abs(theirs) + least).all()


def test_layer_takes_one_sequence_and_the_rest_by_name(rng):
    layer, x = nn.MultiHeadAttention(16, 2), smelt.randn(2, 5, 16)
    for others in ((x,), (x, x)):
        with pytest.raises(
            TypeError, match=f"it takes one sequence, which attends to itself, got {1 + len(others)}; mask and"
        ):
            layer(x, *others)
    there = np.arange(5) < np.array([[5], [2]])
    by_mask, by_lengths = layer(x, mask=smelt.tensor(there[:, None, None, :])), layer(x, lengths=[5, 2])
    scale = np.abs(by_lengths.numpy()).max()
    np.testing.assert_allclose(by_mask.numpy(), by_lengths.numpy(), rtol=0, atol=16 * 2.0**-23 * scale)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64"])
def test_lengths_of_any_integers(dtype):
    q = smelt.randn(2, 5, 2, 4)
    want = smelt.attention(q, q, q, lengths=[5, 2])
    given = np.array([5, 2], dtype)
    np.testing.assert_array_equal(smelt.attention(q, q, q, lengths=given).numpy(), want.numpy())
    if dtype in ("uint8", "int32"):
        np.testing.assert_array_equal(smelt.attention(q, q, q, lengths=smelt.from_numpy(given)).numpy(), want.numpy())
    for refused in ("float32", "bool"):
        with pytest.raises(TypeError, match=f"attention: lengths must be integers, got {refused}"):
            smelt.attention(q, q, q, lengths=given.astype(refused))
