"""Configurations drawn at random: one clear error or the stated result, never a crash and never silence.

An error is a ValueError, TypeError, IndexError or MemoryError that begins with the op's name. Whether a configuration is
valid is decided here from the documentation alone.
"""

import os
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import smelt
from smelt import _core, losses, nn
from tests.processes import python
from tests.reference import conv as conv_reference
from tests.reference import conv_transpose as transposed_reference

ERRORS = (ValueError, TypeError, IndexError, MemoryError)
quick = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def outcome(op, call):
    """The result with the gradients of all inputs, or None where the op refused with an error of its own."""
    try:
        y = call()
    except ERRORS as error:
        message = str(error)
        assert message.startswith(f"{op}: ") and len(message) < 300, message
        return None
    return y


def floats(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def leaf(array):
    return smelt.from_numpy(array).requires_grad_()


EXTENT, OPTION = st.integers(0, 5), st.sampled_from([-1, 0, 1, 1, 1, 2, 3])
WINDOW = {
    "stride": st.integers(1, 3),
    "padding": st.integers(0, 3),
    "dilation": st.integers(1, 3),
    "extra": st.integers(0, 2),
}


@st.composite
def windows(draw):
    """Image, kernel and options of a convolution; in most of them one thing is at a border, or wrong."""
    groups, each = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    image = [draw(st.integers(0, 2)), draw(st.integers(1, 7)), draw(st.integers(1, 7)), each * groups]
    kernel = [draw(st.integers(1, 2)) * groups, draw(st.integers(1, 4)), draw(st.integers(1, 4)), each]
    c = {name: [draw(values), draw(values)] for name, values in WINDOW.items()}
    odd = draw(st.sampled_from([None, None, "image", "kernel", "groups", *WINDOW]))
    if odd == "groups":
        groups = draw(st.integers(-1, 5))
    elif odd == "image":
        image[draw(st.integers(1, 3))] = draw(st.integers(0, 4))
    elif odd == "kernel":
        kernel[draw(st.integers(0, 3))] = draw(st.integers(0, 9))
    elif odd is not None:
        c[odd][draw(st.integers(0, 1))] = draw(st.integers(-2, 5))
    return {"image": tuple(image), "kernel": tuple(kernel), "groups": groups, **{k: tuple(v) for k, v in c.items()}}


def convolution_is_valid(image, kernel, stride, padding, dilation, groups):
    if min(stride) < 1 or min(dilation) < 1 or min(padding) < 0 or groups < 1 or min(kernel[1:3]) < 1:
        return False
    if image[3] != kernel[3] * groups or kernel[0] % groups or groups > max(image[3], kernel[0], 1):
        return False
    return all(image[1 + i] + 2 * padding[i] >= dilation[i] * (kernel[1 + i] - 1) + 1 for i in (0, 1))


@quick
@given(windows(), st.booleans())
def test_convolutions(c, sequence):
    if sequence:
        c["image"], c["kernel"] = (c["image"][0], 1, *c["image"][2:]), (c["kernel"][0], 1, *c["kernel"][2:])
        c["stride"], c["padding"], c["dilation"] = (1, c["stride"][1]), (0, c["padding"][1]), (1, c["dilation"][1])
    arguments = [c["stride"], c["padding"], c["dilation"], c["groups"]]
    x, w, b = floats(1, *c["image"]), floats(2, *c["kernel"]), floats(3, c["kernel"][0])
    tensors = [leaf(x[:, 0] if sequence else x), leaf(w[:, 0] if sequence else w), leaf(b)]
    if sequence:
        y = outcome("conv1d", lambda: smelt.conv1d(*tensors, *(a[1] for a in arguments[:3]), c["groups"]))
    else:
        y = outcome("conv2d", lambda: smelt.conv2d(*tensors, *arguments))
    assert (y is not None) == convolution_is_valid(c["image"], c["kernel"], *arguments), c
    if y is None:
        return
    want = conv_reference.conv2d(x.astype(float), w.astype(float), b.astype(float), *arguments)
    want = want[:, 0] if sequence else want
    assert y.shape == want.shape
    size = conv_reference.conv2d(np.abs(x), np.abs(w), np.abs(b), *arguments)
    assert (np.abs(y.detach().numpy() - want) <= (w[0:1].size + 3) * 2.0**-23 * np.reshape(size, want.shape)).all()
    y.sum().backward()
    assert all(t.grad.shape == t.shape and np.isfinite(t.grad.numpy()).all() for t in tensors)


@quick
@given(windows())
def test_transposed_convolutions(c):
    n, p, q, _ = c["image"]
    _, r, s, each = c["kernel"]
    k = c["image"][3]
    arguments = [c["stride"], c["padding"], c["extra"], c["groups"], c["dilation"]]
    kernel = (k, r, s, each)
    x, w = floats(1, n, p, q, k), floats(2, *kernel)
    b = floats(3, max(each * c["groups"], 0))
    tensors = [leaf(x), leaf(w), leaf(b)]
    y = outcome("conv_transpose2d", lambda: smelt.conv_transpose2d(*tensors, *arguments))
    stride, padding, extra, groups, dilation = arguments
    valid = min(*stride, *dilation, groups, p, q, r, s) >= 1 and min(*padding, *extra) >= 0
    if valid:
        out = [
            (e - 1) * stride[i] - 2 * padding[i] + dilation[i] * ((r, s)[i] - 1) + extra[i] + 1
            for i, e in enumerate((p, q))
        ]
        valid = min(out) >= 1 and all(extra[i] < max(stride[i], dilation[i]) for i in (0, 1))
        valid = valid and k % groups == 0 and groups <= max(k, each, 1)
    assert (y is not None) == valid, c
    if y is None:
        return
    want = transposed_reference.conv_transpose2d(x.astype(float), w.astype(float), b.astype(float), *arguments)
    assert y.shape == want.shape
    size = transposed_reference.conv_transpose2d(np.abs(x), np.abs(w), np.abs(b), *arguments)
    assert (np.abs(y.detach().numpy() - want) <= (k * r * s + 3) * 2.0**-23 * size).all()
    y.sum().backward()
    assert all(t.grad.shape == t.shape and np.isfinite(t.grad.numpy()).all() for t in tensors)


@quick
@given(st.tuples(st.integers(0, 2), EXTENT, EXTENT, st.integers(0, 3)), st.tuples(OPTION, OPTION), st.tuples(OPTION, OPTION),
       st.tuples(st.integers(-1, 2), st.integers(-1, 2)), st.sampled_from(["max_pool2d", "avg_pool2d"]))  # fmt: skip
def test_pools(image, kernel, stride, padding, name):
    x = leaf(floats(1, *image))
    y = outcome(name, lambda: getattr(smelt, name)(x, kernel, stride, padding))
    valid = min(*kernel, *stride) >= 1 and min(padding) >= 0 and all(2 * padding[i] <= kernel[i] for i in (0, 1))
    valid = valid and all(image[1 + i] + 2 * padding[i] >= kernel[i] for i in (0, 1)) and min(image[1:3]) >= 1
    assert (y is not None) == valid, (image, kernel, stride, padding)
    if y is not None:
        rows, columns = ((image[1 + i] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in (0, 1))
        assert y.shape == (image[0], rows, columns, image[3])
        y.sum().backward()
        assert np.isfinite(y.detach().numpy()).all() and np.isfinite(x.grad.numpy()).all()


@quick
@given(st.integers(0, 2), st.integers(0, 4), st.integers(0, 4), st.sampled_from([(2, 2), (2, 1), (3, 2), (0, 0), (4, 2)]),
       st.sampled_from([0, 1, 3, 8]), st.sampled_from([0, 1, 5]), st.booleans(),
       st.sampled_from([None, "row", "full", "other", "int", "none seen", "-inf"]))  # fmt: skip
def test_attention(b, tq, tk, heads, d, dv, causal, mask):
    h, hkv = heads
    tensors = [leaf(floats(i, *shape)) for i, shape in enumerate([(b, tq, h, d), (b, tk, hkv, d), (b, tk, hkv, dv)])]
    masks = {
        None: lambda: None,
        "row": lambda: smelt.from_numpy(floats(5, tk) > 0),
        "full": lambda: smelt.from_numpy(floats(5, b, h, tq, tk)),
        "other": lambda: smelt.from_numpy(floats(5, tq + 2, tk)),
        "int": lambda: smelt.ones(tq, tk, dtype="int64"),
        "none seen": lambda: smelt.zeros(tq, tk, dtype="bool"),
        "-inf": lambda: smelt.full((tq, tk), -np.inf),
    }
    y = outcome("attention", lambda: smelt.attention(*tensors, causal=causal, mask=masks[mask]()))
    fits = (h % hkv == 0 if hkv else h == 0) and mask != "int" and (mask != "other" or tq + 2 == 1)
    assert (y is not None) == fits, (b, tq, tk, heads, d, dv, causal, mask)
    if y is None:
        return
    assert y.shape == (b, tq, h, dv)
    y.sum().backward()
    assert np.isfinite(y.detach().numpy()).all() and all(np.isfinite(t.grad.numpy()).all() for t in tensors)
    if mask in ("none seen", "-inf") or tk == 0:
        assert (y.detach().numpy() == 0).all() and all((t.grad.numpy() == 0).all() for t in tensors)


NORMS = {
    "layer_norm": lambda x, w, b, g: smelt.layer_norm(x, w, b),
    "rms_norm": lambda x, w, b, g: smelt.rms_norm(x, w),
    "group_norm": lambda x, w, b, g: smelt.group_norm(x, g, w, b),
    "batch_norm": lambda x, w, b, g: smelt.batch_norm(x, w, b, smelt.zeros(w.size), smelt.ones(w.size), True),
}


@quick
@given(st.sampled_from(sorted(NORMS)), st.lists(st.integers(0, 4), max_size=4), st.integers(0, 4), st.integers(-1, 4))
def test_norms(name, shape, features, groups):
    x, w, b = leaf(floats(1, *shape)), leaf(floats(2, features)), leaf(floats(3, features))
    y = outcome(name, lambda: NORMS[name](x, w, b, groups))
    valid = bool(shape) and shape[-1] == features
    if name == "group_norm":
        valid = valid and len(shape) >= 2 and groups >= 1 and features % groups == 0
    if name == "batch_norm":
        valid = valid and len(shape) >= 2 and (x.size == 0 or x.size // features > 1)
    assert (y is not None) == valid, (name, shape, features, groups)
    if y is not None:
        assert y.shape == x.shape
        y.sum().backward()
        assert np.isfinite(y.detach().numpy()).all()
        assert all(np.isfinite(t.grad.numpy()).all() for t in (x, w, *(() if name == "rms_norm" else (b,))))


@quick
@given(st.sampled_from(["softmax", "log_softmax"]), st.lists(st.integers(0, 4), max_size=3), st.integers(-4, 4))
def test_softmax(name, shape, axis):
    x = leaf(floats(1, *shape))
    y = outcome(name, lambda: getattr(smelt, name)(x, axis))
    assert (y is not None) == (-len(shape) <= axis < len(shape))
    if y is not None:
        y.sum().backward()
        assert y.shape == x.shape and np.isfinite(x.grad.numpy()).all()


@quick
@given(st.integers(0, 4), st.integers(0, 4), st.lists(st.integers(-2, 5), max_size=4), st.sampled_from([-100, -2, 0, 5]),
       st.sampled_from(["int64", "int32", "uint8", "float32", "bool"]))  # fmt: skip
def test_cross_entropy(rows, classes, labels, ignored, dtype):
    x = leaf(floats(1, rows, classes))
    if dtype in ("uint8", "bool"):
        labels = [abs(i) for i in labels]
    given_labels = smelt.tensor(np.array(labels, dtype=dtype))
    y = outcome("cross_entropy", lambda: losses.cross_entropy(x, given_labels, ignore_index=ignored, reduction="sum"))
    valid = classes >= 1 and len(labels) == rows and all(0 <= i < classes or i == ignored for i in labels)
    assert (y is not None) == (valid and dtype not in ("float32", "bool")), (rows, classes, labels, ignored, dtype)
    if y is not None:
        y.backward()
        assert np.isfinite(y.item()) and np.isfinite(x.grad.numpy()).all()
        for i, label in enumerate(labels):
            assert label != ignored or (x.grad.numpy()[i] == 0).all()


@quick
@given(st.lists(st.integers(-2, 5), max_size=4), st.integers(0, 5), st.integers(0, 3),
       st.sampled_from(["int64", "int32", "float32", "bool"]))  # fmt: skip
def test_embedding(index, rows, features, dtype):
    table = leaf(floats(1, rows, features))
    given_index = smelt.tensor(np.array(index, dtype=dtype))
    y = outcome("embedding", lambda: smelt.embedding(given_index, table))
    assert (y is not None) == (dtype in ("int64", "int32") and all(0 <= i < rows for i in index))
    if y is not None:
        y.sum().backward()
        np.testing.assert_array_equal(y.detach().numpy(), table.detach().numpy()[np.array(index, int)])


# ---------------------------------------------------------------------------------------------------- options as numbers

IMAGE, KERNEL, SEQUENCE = smelt.ones(1, 4, 4, 3), smelt.ones(8, 3, 3, 3), smelt.ones(1, 4, 3)
LABELS = smelt.tensor([0, 1])
TAPS = smelt.ones(3, 3, 3)
OPTIONS = {
    "conv2d stride": lambda v: smelt.conv2d(IMAGE, KERNEL, stride=v),
    "conv2d stride pair": lambda v: smelt.conv2d(IMAGE, KERNEL, stride=(v, 1)),
    "conv2d groups": lambda v: smelt.conv2d(IMAGE, KERNEL, groups=v),
    "conv1d stride": lambda v: smelt.conv1d(SEQUENCE, TAPS, stride=v),
    "conv1d dilation": lambda v: smelt.conv1d(SEQUENCE, TAPS, dilation=v),
    "conv1d groups": lambda v: smelt.conv1d(SEQUENCE, TAPS, groups=v),
    "conv_transpose2d output_padding": lambda v: smelt.conv_transpose2d(IMAGE, TAPS[:, None], output_padding=v),
    "conv_transpose1d padding": lambda v: smelt.conv_transpose1d(SEQUENCE, TAPS, padding=v),
    "max_pool2d kernel_size": lambda v: smelt.max_pool2d(IMAGE, v),
    "max_pool2d kernel_size pair": lambda v: smelt.max_pool2d(IMAGE, (1, v)),
    "max_pool1d kernel_size": lambda v: smelt.max_pool1d(SEQUENCE, v),
    "avg_pool1d stride": lambda v: smelt.avg_pool1d(SEQUENCE, 2, v),
    "adaptive_avg_pool2d output_size": lambda v: smelt.adaptive_avg_pool2d(IMAGE, v),
    "group_norm groups": lambda v: smelt.group_norm(IMAGE, v),
    "softmax axis": lambda v: smelt.softmax(IMAGE, v),
    "attention_packed heads": lambda v: smelt.attention_packed(SEQUENCE, v),
    "attention_packed kv_heads": lambda v: smelt.attention_packed(SEQUENCE, 1, v),
    "cross_entropy ignore_index": lambda v: losses.cross_entropy(SEQUENCE[0, :2], LABELS, ignore_index=v),
    "embedding padding_index": lambda v: smelt.embedding(LABELS, IMAGE[0, 0], v),
    "shape extents": lambda v: smelt.ones(v),
}


@pytest.mark.parametrize("value", [1.5, "2", 2**70, -(2**70), smelt.ones(2), float("nan")])
@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_are_no_whole_numbers(name, value):
    op, option, *_ = name.split()
    with pytest.raises((ValueError, TypeError), match=rf"^{op}: ({option}|axis)") as error:
        OPTIONS[name](value)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("value", [2, np.int64(2), np.uint8(2)])
def test_options_may_be_numbers_of_numpy(value):
    assert smelt.conv2d(IMAGE, KERNEL, stride=value).shape == (1, 1, 1, 8)
    assert smelt.max_pool2d(IMAGE, (value, 1)).shape == (1, 2, 4, 3)


@pytest.mark.parametrize("value", ["x", None, 1j, True])
def test_numbers_that_are_none(value):
    calls = {
        "layer_norm: eps": lambda: smelt.layer_norm(IMAGE, eps=value),
        "rms_norm: eps": lambda: smelt.rms_norm(IMAGE, eps=value),
        "group_norm: eps": lambda: smelt.group_norm(IMAGE, 1, eps=value),
        "batch_norm: momentum": lambda: smelt.batch_norm(
            IMAGE, *(smelt.ones(3) for _ in range(4)), True, momentum=value
        ),
        "dropout: p": lambda: smelt.dropout(IMAGE, value),
        "cross_entropy: label_smoothing": lambda: losses.cross_entropy(
            IMAGE[0, 0], smelt.zeros(4, dtype="int64"), None, value
        ),
        "attention: scale": lambda: value is None or smelt.attention(IMAGE, IMAGE, IMAGE, scale=value),
    }
    for what, call in calls.items():
        if what.endswith("scale") and value is None:
            continue
        with pytest.raises(TypeError, match=f"^{what} must be a number, got "):
            call()


@pytest.mark.parametrize("momentum", [-0.1, 1.5, float("nan")])
def test_a_momentum_beyond_0_and_1(momentum):
    with pytest.raises(ValueError, match="batch_norm: momentum must be from 0 to 1, got"):
        smelt.batch_norm(IMAGE, *(smelt.ones(3) for _ in range(4)), True, momentum=momentum)


def test_a_mask_may_be_a_list():
    q = smelt.randn(1, 2, 1, 3)
    seen = [[True, False], [True, True]]
    np.testing.assert_array_equal(
        smelt.attention(q, q, q, mask=seen).numpy(), smelt.attention(q, q, q, mask=smelt.tensor(seen)).numpy()
    )


def test_extents_without_an_element():
    """Nothing runs over what is not there, however long."""
    huge = 2**40
    for call in (
        lambda: smelt.conv2d(smelt.ones(1, 4, 4, 0), smelt.ones(0, 3, 3, 0), groups=2**40),
        lambda: smelt.conv2d(smelt.ones(1, 4, 4, 4), smelt.ones(0, 3, 3, 4), groups=2**62 + 1),
        lambda: smelt.conv_transpose2d(smelt.ones(1, 4, 4, 0), smelt.ones(0, 3, 3, 4), groups=2**62 + 1),
    ):
        with pytest.raises(ValueError, match="groups must"):
            call()
    with pytest.raises(ValueError, match="attention_packed: heads must be at most 2147483647, got 1099511627776"):
        smelt.attention_packed(smelt.ones(1, 4, 0), huge)


# ------------------------------------------------------------------------------------------------------- NaN and Inf

BAD = [np.nan, np.inf, -np.inf]


def _ones(x, *shape):
    return smelt.ones(*shape, dtype=x.dtype)


def _images(x):
    return x.reshape(-1, 4, 4, x.shape[1] // 16)


ROWS = {
    "layer_norm": lambda x: smelt.layer_norm(x, smelt.ones(x.shape[1])),
    "rms_norm": smelt.rms_norm,
    "group_norm": lambda x: smelt.group_norm(x.reshape(x.shape[0], 4, -1), 1),
    "softmax": smelt.softmax,
    "log_softmax": smelt.log_softmax,
    "cross_entropy": lambda x: losses.cross_entropy(x, smelt.zeros(x.shape[0], dtype="int64"), reduction="none"),
    "linear": lambda x: smelt.linear(x, _ones(x, 9, x.shape[1])),
    "attention": lambda x: smelt.attention(*(x.reshape(-1, 4, 2, x.shape[1] // 8),) * 3),
    "attention_packed": lambda x: smelt.attention_packed(x.reshape(-1, 2, x.shape[1] // 2), 1, causal=True),
    "conv2d": lambda x: smelt.conv2d(_images(x), _ones(x, 40, 3, 3, x.shape[1] // 16), padding=1),
    "conv2d of one channel": lambda x: smelt.conv2d(
        x.reshape(-1, 8, x.shape[1] // 8, 1), _ones(x, 16, 3, 3, 1), padding=1
    ),
    "depthwise": lambda x: smelt.conv2d(
        _images(x), _ones(x, x.shape[1] // 16, 3, 3, 1), padding=1, groups=x.shape[1] // 16
    ),
    "conv_transpose2d": lambda x: smelt.conv_transpose2d(
        _images(x), _ones(x, x.shape[1] // 16, 4, 4, 5), stride=2, padding=1
    ),
    "max_pool2d": lambda x: smelt.max_pool2d(_images(x), 2),
    "avg_pool2d": lambda x: smelt.avg_pool2d(_images(x), 2),
}


@pytest.mark.parametrize("width", [48, 16 * 33])
@pytest.mark.parametrize("name", ROWS)
def test_bad_numbers_stay_in_their_row(isa, rng, name, width):
    """Rows (pictures, sequences) beside one with a NaN or an infinity have the bits that they have without it."""
    clean = rng.normal(size=(5, width)).astype(np.float32)
    dirty = clean.copy()
    for column, bad in zip(rng.choice(width, 3, replace=False), BAD):
        dirty[2, column] = bad
    for dtype in ("float32", "bfloat16"):
        results = []
        for given_rows in (clean, dirty):
            x = smelt.from_numpy(given_rows).to(dtype).requires_grad_()
            y = ROWS[name](x)
            y.sum().backward()
            results.append([t.detach().float().numpy().reshape(5, -1) for t in (y, x.grad)])
        for (want, got), what in zip(zip(*results), ("output", "gradient")):
            others = [0, 1, 3, 4]
            np.testing.assert_array_equal(got[others], want[others], err_msg=f"{what} {dtype}")
        assert not np.isfinite(results[1][0][2]).all()


def test_bad_numbers_behind_a_mask_are_not_seen(isa, rng):
    q, k, v = (rng.normal(size=(2, 5, 2, 8)).astype(np.float32) for _ in range(3))
    k[1, 3:], v[1, 3:] = np.nan, np.inf
    y = smelt.attention(*(smelt.from_numpy(t) for t in (q, k, v)), lengths=[5, 3])
    assert np.isfinite(y.numpy()).all()


# ------------------------------------------------------------------------------- one tensor in several places of a call

TWICE = {  # a call with x in two places, and the same of ops that have it in one
    "batch_norm": (
        lambda x, w, b: smelt.batch_norm(x, w, b, smelt.zeros(8), smelt.ones(8), True, residual=x),
        lambda x, w, b: smelt.batch_norm(x, w, b, smelt.zeros(8), smelt.ones(8), True) + x,
    ),
    "batch_norm in evaluation": (
        lambda x, w, b: smelt.batch_norm(x, w, b, smelt.zeros(8), smelt.ones(8), False, residual=x, activation="relu"),
        lambda x, w, b: smelt.relu(smelt.batch_norm(x, w, b, smelt.zeros(8), smelt.ones(8), False) + x),
    ),
    "batch_norm of tied vectors": (
        lambda x, w, b: smelt.batch_norm(x, w * 2 + b, b, smelt.zeros(8), smelt.ones(8), True, residual=x),
        lambda x, w, b: smelt.batch_norm(x, w * 2 + b, b * 1, smelt.zeros(8), smelt.ones(8), True) + x,
    ),
    **{
        f"{name} of one vector": (
            lambda x, w, b, f=f: f(x, *(w * 2 + b,) * 2),
            lambda x, w, b, f=f: f(x, *((w * s + b) for s in (2, 2))),
        )
        for name, f in {
            "layer_norm": smelt.layer_norm,
            "add_layer_norm": lambda x, w, b: smelt.add_layer_norm(x, x * 2, w, b)[1],
            "group_norm": lambda x, w, b: smelt.group_norm(x, 2, w, b),
            "batch_norm": lambda x, w, b: smelt.batch_norm(x, w, b, smelt.zeros(8), smelt.ones(8), True),
        }.items()
    },
    "group_norm of one parameter": (
        lambda x, w, b: smelt.group_norm(x, 2, w, w) + b,
        lambda x, w, b: smelt.group_norm(x, 2, w * 1, w * 1) + b,
    ),
    "add_layer_norm": (
        lambda x, w, b: smelt.add_layer_norm(x, x, w, b)[1],
        lambda x, w, b: smelt.layer_norm(x + x, w, b),
    ),
    "attention": (
        lambda x, w, b: smelt.attention(*(x.reshape(5, 3, 2, 4),) * 3).reshape(15, 8) * w + b,
        lambda x, w, b: smelt.attention(*((x * s).reshape(5, 3, 2, 4) for s in (1, 1, 1))).reshape(15, 8) * w + b,
    ),
    "conv_transpose2d": (
        lambda x, w, b: smelt.conv_transpose2d(x.reshape(3, 5, 1, 8), x.reshape(8, 1, 3, 5)[..., :5]).sum() * w + b,
        lambda x, w, b: smelt.conv_transpose2d((x * 1).reshape(3, 5, 1, 8), (x * 1).reshape(8, 1, 3, 5)).sum() * w + b,
    ),
}


@pytest.mark.parametrize("on_tape", [False, True])
@pytest.mark.parametrize("name", TWICE)
def test_a_tensor_in_several_places(rng, name, on_tape):
    x, w, b = rng.normal(size=(15, 8)), rng.normal(size=8), rng.normal(size=8)
    seed = rng.normal(size=(15, 8)) if name != "conv_transpose2d" else rng.normal(size=8)
    results = []
    for call in TWICE[name]:
        leaves = [leaf(a.astype(np.float32)) for a in (x, w, b)]
        first = leaves[0] * 2 if on_tape else leaves[0]
        (call(first, *leaves[1:]) * smelt.tensor(seed, dtype="float32")).sum().backward()
        results.append([t.grad.numpy() for t in leaves])
    for got, want in zip(*results):
        assert np.abs(got - want).max() <= 64 * 2.0**-24 * np.abs(want).max()


# ------------------------------------------------------------------------------------------------- beyond the memory

BEYOND = [
    ("conv2d", "smelt.conv2d(smelt.ones(1, 4, 4, 3), smelt.ones(8, 3, 3, 3), padding=2**20)"),
    ("conv2d", "smelt.conv2d(smelt.ones(1, 4, 4, 3), smelt.ones(8, 3, 3, 3), padding=2**31 - 1)"),
    ("conv_transpose2d", "smelt.conv_transpose2d(smelt.ones(1, 4, 4, 3), smelt.ones(3, 3, 3, 8), stride=2**20)"),
    ("conv_transpose2d", "smelt.conv_transpose2d(smelt.ones(1, 4, 4, 3), smelt.ones(3, 3, 3, 8), stride=2**31 - 1)"),
    ("full", "smelt.ones(2**40, 2)"),
    ("full", "smelt.ones(2**62, 4)"),
    ("adaptive_avg_pool2d", "smelt.adaptive_avg_pool2d(smelt.ones(1, 4, 4, 3), 2**31 - 1)"),
    ("linear", "smelt.linear(smelt.ones(2**20, 1), smelt.ones(2**20, 1))"),
    ("matmul", "smelt.matmul(smelt.ones(2**20, 1), smelt.ones(1, 2**20))"),
    ("embedding", "smelt.embedding(smelt.zeros(2**20, dtype='int64'), smelt.ones(2, 2**20))"),
    ("add", "smelt.ones(2**20, 1) + smelt.ones(2**20)"),
]


@pytest.mark.parametrize("op, call", BEYOND)
def test_results_beyond_the_memory(op, call):
    with pytest.raises(MemoryError, match=r"^empty: cannot allocate 4398046511104 bytes on cpu"):
        _core.empty([2**40], "float32", "cpu")  # nothing writes there: what follows would fill the machine's memory
    with pytest.raises(MemoryError, match=rf"^{op}: (cannot allocate \d+ bytes on cpu|shape .* has more bytes)"):
        eval(call)


@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer owns the address space")
def test_a_workspace_beyond_the_memory_loses_nothing():
    """Under a limit of the process's addresses: one error with op and bytes, and everything goes on."""
    printed = python(
        "import resource, numpy as np, smelt\n"
        "x, w = smelt.ones(8, 64, 64, 32).requires_grad_(), smelt.ones(32, 3, 3, 32).requires_grad_()\n"
        "model = smelt.nn.Sequential(smelt.nn.Conv2d(32, 32, 3, padding=1))\n"
        "want = smelt.conv2d(x, w, padding=1).detach().numpy().copy()\n"
        "def step():\n"
        "    smelt.conv2d(x, w, padding=1).sum().backward()\n"
        "step()\n"
        "refused, before = [], smelt.memory_stats()['in_use']\n"
        "for room in range(1 << 20, 64 << 20, 3 << 20):\n"
        "    smelt.empty_cache()\n"
        "    used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (used + room, resource.RLIM_INFINITY))\n"
        "    for call in (step, lambda: model(x)):\n"
        "        try:\n"
        "            call()\n"
        "        except MemoryError as error:\n"
        "            refused.append(str(error))\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "assert smelt.memory_stats()['in_use'] == before\n"
        "y = smelt.conv2d(x, w, padding=1)\n"
        "assert (y.detach().numpy() == want).all()\n"
        "print(*refused, sep='\\n')\n"
    )
    refused = printed.splitlines()
    assert any(line.startswith("layer 0: conv2d: cannot allocate ") for line in refused), refused
    assert all(re.search(r"(^|: )(conv2d|backward): cannot allocate \d+ bytes on cpu$", line) for line in refused), (
        refused
    )


# --------------------------------------------------------------------------------------------------- where it happened


def test_errors_name_the_layer_with_its_path():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer3 = nn.Sequential(nn.ReLU(), nn.Residual(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1))))
            self.up = nn.ConvTranspose1d(3, 2, 2)

        def forward(self, x, y):
            return self.layer3(x), self.up(y)

    net = Net()
    with pytest.raises(ValueError, match=r"^layer layer3.1.body.0: conv2d: weight has 4 input channels, input has 3$"):
        net(smelt.ones(1, 5, 4, 3), smelt.ones(1, 4, 3))
    with pytest.raises(ValueError, match=r"^layer up: conv_transpose1d: weight has 3 input channels, input has 5$"):
        net(smelt.ones(1, 4, 4, 4), smelt.ones(1, 4, 5))
    with pytest.raises(IndexError, match=r"^layer 1: embedding: index must be in \[0, 3\), got 3"):
        nn.Sequential(nn.Identity(), nn.Embedding(3, 2))(smelt.tensor([3]))


FAR = [
    (1431655765, 2147483647, 10),
    (2**29, 2**29, 1),
    (1, 0, 2**31 - 1),
    (600, 1000, 3),
    (2**31 - 1, 2**31 - 1, 2**31 - 1),
]


@pytest.mark.parametrize("channels, filters, groups", [(1, 8, 1), (2, 2, 2), (4, 8, 2), (8, 8, 1), (32, 32, 1)])
@pytest.mark.parametrize("dilation, padding, stride", FAR)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_taps_far_from_the_picture(dtype, channels, filters, groups, dilation, padding, stride):
    """Products of such extents overflow: taps that meet no pixel add nothing, and nothing is as large as they reach."""
    x = smelt.full((1, 5, 5, channels), 1.0, dtype=dtype).requires_grad_()
    w = smelt.full((filters, 4, 4, channels // groups), 1.0, dtype=dtype).requires_grad_()

    def run():
        y = smelt.conv2d(x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)
        y.sum().backward()
        return y

    y = outcome("conv2d", run)
    beyond = 5 + 2 * padding - 3 * dilation - 1
    if y is None:  # a kernel beyond the picture, or a result beyond memory
        assert beyond < 0 or beyond // stride > 1000
        return
    met = [sum(0 <= i * stride - padding + t * dilation < 5 for t in range(4)) for i in range(y.shape[1])]
    wanted = np.outer(met, met)[None, :, :, None] * np.full(filters, channels // groups)
    np.testing.assert_array_equal(y.astype("float32").numpy(), wanted)
    assert float(x.grad.astype("float32").sum().item()) == wanted.sum() == float(w.grad.astype("float32").sum().item())
