"""Wrong input of functions: one error that names op and values."""

import numpy as np
import pytest

import smelt

ONES = smelt.ones
IMAGE, KERNEL, HALF = ONES(1, 4, 4, 3), ONES(8, 3, 3, 3), ONES(1, 4, 4, 3).astype("bfloat16")


def index(*values):
    return smelt.tensor(list(values))


def leaf(*shape):
    return smelt.ones(shape).requires_grad_() * 2


CASES = [
    (ValueError,
     r"conv2d: input has 28 channels, weight has 1; images are .N, H, W, C., got .128, 1, 28, 28.: use smelt.to_nhwc.x.",
     lambda: smelt.conv2d(ONES(128, 1, 28, 28), ONES(8, 3, 3, 1))),
    (ValueError, r"conv2d: weight has 5 input channels, input has 3", lambda: smelt.conv2d(IMAGE, ONES(8, 3, 3, 5))),
    (ValueError, r"conv2d: kernel reaches over 5 rows, the padded input has 4",
     lambda: smelt.conv2d(IMAGE, ONES(8, 5, 3, 3))),
    (ValueError, r"conv2d: kernel reaches over 7 columns", lambda: smelt.conv2d(IMAGE, KERNEL, dilation=(1, 3))),
    (ValueError, r"conv2d: stride must be from 1 to 2147483647, got 0", lambda: smelt.conv2d(IMAGE, KERNEL, stride=0)),
    (ValueError, r"conv2d: stride: needs one number or a pair, got \(1, 2, 3\)",
     lambda: smelt.conv2d(IMAGE, KERNEL, stride=(1, 2, 3))),
    (ValueError, r"conv2d: padding must be from 0 to 2147483647, got -1", lambda: smelt.conv2d(IMAGE, KERNEL, padding=-1)),
    (ValueError, r"conv2d: padding must be .*'same'.*got 'full'", lambda: smelt.conv2d(IMAGE, KERNEL, padding="full")),
    (ValueError, r"conv2d: padding: needs one number or a pair, got 1.5",
     lambda: smelt.conv2d(IMAGE, KERNEL, padding=1.5)),
    (ValueError, r"conv1d: padding must be a number.*got \(1, 2\)",
     lambda: smelt.conv1d(ONES(1, 4, 1), ONES(1, 3, 1), padding=(1, 2))),
    (ValueError, r"conv2d: groups must be at least 1, got 0", lambda: smelt.conv2d(IMAGE, KERNEL, groups=0)),
    (ValueError, r"conv2d: groups must divide .* got 2 groups and 9",
     lambda: smelt.conv2d(ONES(1, 4, 4, 4), ONES(9, 3, 3, 2), groups=2)),
    (ValueError, r"^conv2d: activation must be .*'gelu'.* got 'swish'",
     lambda: smelt.conv2d(IMAGE, KERNEL, activation="swish")),
    (ValueError, r"^conv1d: activation must be", lambda: smelt.conv1d(ONES(1, 4, 1), ONES(1, 3, 1), activation="swish")),
    (ValueError, r"^conv_transpose2d: activation must be",
     lambda: smelt.conv_transpose2d(ONES(1, 4, 4, 8), KERNEL, activation="swish")),
    (ValueError, r"^conv_transpose1d: activation must be",
     lambda: smelt.conv_transpose1d(ONES(1, 4, 1), ONES(1, 3, 1), activation="swish")),
    (ValueError, r"^linear: activation must be", lambda: smelt.linear(ONES(2, 3), ONES(4, 3), activation="swish")),
    (ValueError, r"conv2d: bias must be \(8,\), got \(7,\)", lambda: smelt.conv2d(IMAGE, KERNEL, ONES(7))),
    (TypeError, r"conv2d: input is float64, weight is float32", lambda: smelt.conv2d(IMAGE.double(), KERNEL)),
    (ValueError, r"conv2d: input must be \(N, H, W, C\), got shape \(4, 4, 3\)",
     lambda: smelt.conv2d(ONES(4, 4, 3), KERNEL)),
    (ValueError, r"conv1d: input must be \(N, L, C\), got shape \(4, 3\)",
     lambda: smelt.conv1d(ONES(4, 3), ONES(1, 3, 3))),
    (TypeError, r"conv2d: input is bfloat16, weight is float32", lambda: smelt.conv2d(HALF, KERNEL)),
    (TypeError, r"layer_norm: weight must be float32 for an input of bfloat16, got bfloat16",
     lambda: smelt.layer_norm(HALF, HALF[0, 0, 0])),
    (TypeError, r"layer_norm: weight must be float32 for an input of float32, got float64",
     lambda: smelt.layer_norm(IMAGE, IMAGE[0, 0, 0].double())),
    (TypeError, r"optimizer: parameter '.*' must be float32 or float64, got bfloat16; smelt.autocast computes in",
     lambda: smelt.optim.SGD([smelt.nn.Parameter(HALF)])),
    (ValueError, r"max_pool2d: kernel has 5 rows, the padded input has 4", lambda: smelt.max_pool2d(IMAGE, 5)),
    (ValueError, r"max_pool2d: kernel_size must be from 1 to 2147483647, got 0", lambda: smelt.max_pool2d(IMAGE, 0)),
    (ValueError, r"avg_pool2d: stride must be from 1 to 2147483647, got 0", lambda: smelt.avg_pool2d(IMAGE, 2, 0)),
    (ValueError, r"max_pool2d: padding must be from 0 to half the kernel, got 2 for kernel 2",
     lambda: smelt.max_pool2d(IMAGE, 2, padding=2)),
    (ValueError, r"max_pool2d: images must have at least one pixel",
     lambda: smelt.max_pool2d(ONES(1, 0, 4, 3), 2, padding=1)),
    (ValueError, r"avg_pool1d: input must be \(N, L, C\), got shape \(1, 4\)", lambda: smelt.avg_pool1d(ONES(1, 4), 2)),
    (ValueError, r"adaptive_avg_pool2d: output size must be at least 1x1, got 0x2",
     lambda: smelt.adaptive_avg_pool2d(IMAGE, (0, 2))),
    (TypeError, r"max_pool2d: input must be floating, got int32", lambda: smelt.max_pool2d(IMAGE.astype("int32"), 2)),
    (ValueError, r"batch_norm: training needs more than 1 value a channel, got input \(1, 3\)",
     lambda: smelt.batch_norm(ONES(1, 3), *(ONES(3) for _ in range(4)), True)),
    (ValueError, r"batch_norm: running_mean has 4 channels, input has 3",
     lambda: smelt.batch_norm(ONES(5, 3), ONES(3), ONES(3), ONES(4), ONES(3), True)),
    (ValueError, r"batch_norm: eps must be positive, got 0",
     lambda: smelt.batch_norm(ONES(5, 3), *(ONES(3) for _ in range(4)), True, eps=0)),
    (ValueError, r"layer_norm: weight has 4 features, input has 3", lambda: smelt.layer_norm(ONES(5, 3), ONES(4))),
    (ValueError, r"layer_norm: eps must be positive, got nan", lambda: smelt.layer_norm(IMAGE, eps=float("nan"))),
    (ValueError, r"rms_norm: weight has 4 features, input has 3", lambda: smelt.rms_norm(ONES(5, 3), ONES(4))),
    (ValueError, r"rms_norm: eps must be positive, got 0", lambda: smelt.rms_norm(IMAGE, eps=0)),
    (TypeError, r"rms_norm: input must be floating, got int32", lambda: smelt.rms_norm(IMAGE.astype("int32"))),
    (ValueError, r"group_norm: groups must divide the channels, got 2 groups of 3 channels",
     lambda: smelt.group_norm(IMAGE, 2)),
    (ValueError, r"group_norm: groups must be at least 1, got 0", lambda: smelt.group_norm(IMAGE, 0)),
    (ValueError, r"group_norm: input must be \(N, ..., C\) with at least 2 axes, got shape \(3,\)",
     lambda: smelt.group_norm(ONES(3), 1)),
    (ValueError, r"group_norm: bias has 4 channels, input has 3", lambda: smelt.group_norm(IMAGE, 1, ONES(3), ONES(4))),
    (ValueError, r"add_layer_norm: residual must have the input's shape \(5, 3\), got \(3, 5\)",
     lambda: smelt.add_layer_norm(ONES(5, 3), ONES(3, 5))),
    (TypeError, r"add_rms_norm: residual is float64, input is float32",
     lambda: smelt.add_rms_norm(ONES(5, 3), ONES(5, 3).double())),
    (ValueError, r"attention: q must be \(batch, queries, heads, features\), got shape \(1, 4, 3\)",
     lambda: smelt.attention(ONES(1, 4, 3), IMAGE, IMAGE)),
    (ValueError, r"attention: heads of k must divide those of q, got 3 and 4",
     lambda: smelt.attention(IMAGE, ONES(1, 4, 3, 3), ONES(1, 4, 3, 3))),
    (ValueError, r"attention: q and k must have as many features, got 3 and 5",
     lambda: smelt.attention(IMAGE, ONES(1, 4, 4, 5), IMAGE)),
    (ValueError, r"attention: k and v must have as many keys and heads, got \(1, 4, 4, 3\) and \(1, 5, 4, 3\)",
     lambda: smelt.attention(IMAGE, IMAGE, ONES(1, 5, 4, 3))),
    (ValueError, r"attention: q, k and v must have one batch, got \(1, 4, 4, 3\), \(2, 4, 4, 3\)",
     lambda: smelt.attention(IMAGE, ONES(2, 4, 4, 3), ONES(2, 4, 4, 3))),
    (TypeError, r"attention: k is bfloat16, q is float32: both must have one dtype",
     lambda: smelt.attention(IMAGE, HALF, IMAGE)),
    (TypeError, r"attention: q must be floating, got int32", lambda: smelt.attention(*[IMAGE.astype("int32")] * 3)),
    (ValueError, r"attention: mask must be broadcastable to \(batch, heads, queries, keys\) = \(1, 4, 4, 4\), got \(4, 5\)",
     lambda: smelt.attention(IMAGE, IMAGE, IMAGE, mask=ONES(4, 5))),
    (TypeError, r"attention: mask must be bool or floating, got int64",
     lambda: smelt.attention(IMAGE, IMAGE, IMAGE, mask=smelt.tensor([[1]]))),
    (ValueError, r"attention: scale must be finite, got inf",
     lambda: smelt.attention(IMAGE, IMAGE, IMAGE, scale=float("inf"))),
    (ValueError, r"attention: lengths must be \(1,\), one for each sequence, got \(2,\)",
     lambda: smelt.attention(IMAGE, IMAGE, IMAGE, lengths=[1, 2])),
    (TypeError, r"attention: lengths must be integers, got float32",
     lambda: smelt.attention(IMAGE, IMAGE, IMAGE, lengths=[1.5])),
    (ValueError, r"k and v must have as many keys and heads, .*; operands are .*, x.permute\(0, 2, 1, 3\) of heads",
     lambda: smelt.attention(ONES(2, 4, 5, 8), ONES(2, 4, 7, 8), ONES(2, 4, 6, 8))),
    (ValueError, r"heads of k must divide those of q, got 7 and 5; operands are \(batch, time, heads, features\)",
     lambda: smelt.attention(ONES(2, 4, 5, 8), ONES(2, 4, 7, 8), ONES(2, 4, 7, 8))),
    (IndexError, r"attention: lengths must be from 0 to 4 \(the keys\), got 5 at position 0",
     lambda: smelt.attention(IMAGE, IMAGE, IMAGE, lengths=[5])),
    (ValueError, r"attention_packed: qkv must be \(batch, time, features\), got shape \(1, 4, 4, 3\)",
     lambda: smelt.attention_packed(IMAGE, 1)),
    (ValueError, r"attention_packed: qkv must have heads \+ 2 kv_heads = 6 parts of one size, got 3 features",
     lambda: smelt.attention_packed(IMAGE[0], 2)),
    (ValueError, r"attention_packed: kv_heads must divide heads, got 2 and 3",
     lambda: smelt.attention_packed(IMAGE[0], 3, 2)),
    (ValueError, r"attention_packed: heads must be at least 1, got 0", lambda: smelt.attention_packed(IMAGE[0], 0)),
    *((IndexError, rf"take: index must be in \[0, 3\), got {i} at position 1",
       lambda i=i: smelt.take(ONES(3), index(0, i)))
      for i in (3, -1, -2, 2**62)),
    (IndexError, r"take: index must be in \[0, 0\)", lambda: smelt.take(ONES(0, 3), index(0))),
    *((IndexError, rf"gather: index must be in \[0, 4\), got {i}",
       lambda i=i: smelt.gather(ONES(1, 4), smelt.tensor([[i]]), 1))
      for i in (4, -1)),
    *((IndexError, rf"scatter_add: index must be in \[0, 3\), got {i}",
       lambda i=i: smelt.scatter_add(ONES(3), index(i), ONES(1), 0))
      for i in (3, -1)),
    *((IndexError, rf"embedding: index must be in \[0, 3\), got {i}", lambda i=i: smelt.embedding(index(i), ONES(3, 2)))
      for i in (7, -1)),
    *((IndexError, rf"index must be in \[0, 3\), got {i}", lambda i=i: smelt.one_hot(index(i), 3)) for i in (3, -1)),
    (ValueError, r"embedding: padding_index must be from 0 to 2, got 3",
     lambda: smelt.embedding(index(0), ONES(3, 2), 3)),
    (TypeError, r"take: indices must be integers, got float32", lambda: smelt.take(ONES(3), ONES(1))),
    (ValueError, r"gather: index must have the shape of the tensor but for axis 1, got \(1, 1\) for \(3, 4\)",
     lambda: smelt.gather(ONES(3, 4), smelt.tensor([[0]]), 1)),
    (ValueError, r"scatter_add: index and values must have one shape, got \(1,\) and \(2,\)",
     lambda: smelt.scatter_add(ONES(3), index(0), ONES(2), 0)),
    (ValueError, r"topk: k must be from 0 to 3, got 4", lambda: smelt.topk(ONES(3), 4)),
    (ValueError, r"topk: axis must be in \[-1, 1\), got 1", lambda: smelt.topk(ONES(3), 2, axis=1)),
    (ValueError, r"sort: axis must be in \[-2, 2\), got 4", lambda: smelt.sort(ONES(3, 2), axis=4)),
    (ValueError, r"argsort: axis must be in \[-2, 2\), got -3", lambda: smelt.argsort(ONES(3, 2), axis=-3)),
    (ValueError, r"concat: needs at least one tensor", lambda: smelt.concat([])),
    (ValueError, r"concat: shapes must agree but for axis 0, got \(2, 3\) and \(2, 4\)",
     lambda: smelt.concat([ONES(2, 3), ONES(2, 4)])),
    (ValueError, r"stack: tensors must have one shape, got \(2,\) and \(3,\)", lambda: smelt.stack([ONES(2), ONES(3)])),
    (ValueError, r"pad: widths must not be negative", lambda: smelt.pad(ONES(2), [(-1, 0)])),
    (ValueError, r"pad: needs a \(before, after\) pair for each of 1 axes, got 2", lambda: smelt.pad(ONES(2), [1, 1])),
    (ValueError, r"reshape: .*\(6,\).*\(4, -1\)", lambda: smelt.reshape(ONES(6), 4, -1)),
    (ValueError, r"permute: axis 0 is named twice", lambda: smelt.permute(ONES(2, 3), 0, 0)),
    (ValueError, r"split: sizes must add up to 3, got \[1, 1\]", lambda: smelt.split(ONES(3), [1, 1])),
    (ValueError, r"split: sizes must not be negative, got \[1, -5, 7\]", lambda: smelt.split(ONES(3), [1, -5, 7])),
    (TypeError, r"split: sizes must be a whole number, got 1.5", lambda: smelt.split(ONES(3), 1.5)),
    (TypeError, r"split: a size must be a whole number, got 1.5", lambda: smelt.split(ONES(3), [1.5, 1.5])),
    *((ValueError, rf"arange: stop must be a finite number, got {v}$", lambda v=v: smelt.arange(0, v))
      for v in (float("nan"), float("inf"), True)),
    *((ValueError, r"arange: there must be fewer than 2\*\*63 numbers, got 0 to", lambda a=a: smelt.arange(*a))
      for a in ((0, 1e300), (0, 2**70), (0, 1, 1e-320))),
    (ValueError, r"arange: stop must be a finite number, got 1000", lambda: smelt.arange(0, 10**400, 0.5)),
    (TypeError, r"arange: start must be a number, got 'a'", lambda: smelt.arange("a", 3)),
    (TypeError, r"arange: step must be a number, got list", lambda: smelt.arange(0, 3, [1])),
    (TypeError, r"linspace: count must be a whole number, got 2.5", lambda: smelt.linspace(0, 1, 2.5)),
    (TypeError, r"eye: rows must be a whole number, got 2.5", lambda: smelt.eye(2.5)),
    (TypeError, r"randint: high must be a whole number, got 2.5", lambda: smelt.randint(0, 2.5, 3)),
    (TypeError, r"randperm: n must be a whole number, got '3'", lambda: smelt.randperm("3")),
    (TypeError, r"gather: index must be a tensor or array, got 0", lambda: smelt.gather(ONES(1, 1), 0, index(0))),
    (TypeError, r"gather: the third argument, axis, must be a whole number, got Tensor",
     lambda: smelt.gather(ONES(3), 0, index(0, 1))),
    (TypeError, r"scatter_add: values must be a tensor or array, got 1.0",
     lambda: smelt.scatter_add(ONES(3), index(0), 1.0, 0)),
    (TypeError, r"take: axis must be a whole number, got 'rows'", lambda: smelt.take(ONES(3), index(0), "rows")),
    (TypeError, r"embedding: weight must be a tensor or array, got 3", lambda: smelt.embedding(index(0), 3)),
    (TypeError, r"one_hot: index must be a tensor or array, got 3", lambda: smelt.one_hot(3, 4)),
    (ValueError, r"one_hot: classes must not be negative, got -1", lambda: smelt.one_hot(index(0), -1)),
    (TypeError, r"masked_fill: mask must be a tensor or array, got True", lambda: smelt.masked_fill(ONES(3), True, 0)),
    (TypeError, r"backward: grad must be a tensor or array, got 'a'", lambda: leaf(3).backward("a")),
    (ValueError, r"backward: the gradient must have shape \(3,\), got \(2,\)", lambda: leaf(3).backward([1.0, 2.0])),
    (TypeError, r"manual_seed: the seed must be a whole number, got 1.5", lambda: smelt.manual_seed(1.5)),
    (TypeError, r"manual_seed: the seed must be a whole number, got None", lambda: smelt.manual_seed(None)),
    (ValueError, r"set_rng_state: needs a dict with 'seed' and 'offset', got {}", lambda: smelt.set_rng_state({})),
    (ValueError, r"set_rng_state: offset must be from 0 to 2\*\*64 - 1, got -1",
     lambda: smelt.set_rng_state({"seed": 0, "offset": -1})),
    (TypeError, r"set_num_threads: the number must be a whole number, got 1.5", lambda: smelt.set_num_threads(1.5)),
    (ValueError, r"set_num_threads: the number must be from 1 to 256, got 1000000000000",
     lambda: smelt.set_num_threads(10**12)),
    (ValueError, r"roll: axis must be in", lambda: smelt.roll(ONES(2, 3), 1, 5)),
    (ValueError, r"tril: needs at least 2 axes, got shape \(3,\)", lambda: smelt.tril(ONES(3))),
    *((ValueError, rf"dropout: p must be in \[0, 1\), got {p:g}",
       lambda p=p: smelt.dropout(ONES(3), p)) for p in (1.0, -0.5)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "message", "call"), CASES, ids=[f"{i}-{m.split(':')[0]}" for i, (_, m, _) in enumerate(CASES)]
)
def test_one_clear_error(kind, message, call):
    with pytest.raises(kind, match=message) as caught:
        call()
    assert "incompatible function arguments" not in str(caught.value)


HUGE = 2**63 - 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: smelt.zeros(0).reshape(1 << 32, 1 << 32),
        lambda: smelt.zeros(4).reshape((1 << 62) + 1, 4),
        lambda: smelt.zeros(4).reshape(1 << 62, 1 << 2, -1),
        lambda: smelt.pad(smelt.ones(1000), [(HUGE, 9)]),
        lambda: smelt.pad(smelt.ones(2), [(1 << 62, 1 << 62)]),
        lambda: smelt.concat([smelt.zeros(0, 1 << 62), smelt.zeros(0, 1 << 62)], 1),
        lambda: smelt.conv2d(IMAGE, KERNEL, dilation=1 << 62),
        lambda: smelt.conv2d(IMAGE, KERNEL, stride=HUGE, padding="same"),
        lambda: smelt.conv2d(IMAGE, KERNEL, padding=1 << 62),
        lambda: smelt.max_pool2d(IMAGE, 2, HUGE),
        lambda: smelt.avg_pool2d(IMAGE, HUGE),
    ],
)
def test_extents_beyond_64_bits_are_errors(call):
    with pytest.raises((ValueError, MemoryError), match=r"^\w+: "):
        call()


def test_arrays_go_where_tensors_go():
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(smelt.relu(a - 2).numpy(), np.maximum(a - 2, 0))
    np.testing.assert_array_equal(smelt.concat([a, a]).numpy(), np.concatenate([a, a]))
    loss = smelt.losses.cross_entropy(smelt.from_numpy(a), np.array([0, 2]))
    assert loss.item() == smelt.losses.cross_entropy(smelt.from_numpy(a), smelt.tensor([0, 2])).item()
    with pytest.raises(TypeError, match="linear: input is float64, weight is float32"):
        smelt.linear(np.ones((1, 3)), smelt.ones(2, 3))
