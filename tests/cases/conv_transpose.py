"""conv_transpose1d and conv_transpose2d: stride, padding, output_padding, groups, dilation, bias, activation."""

import numpy as np

import smelt
from tests.cases import FLOATING, Case
from tests.reference import conv_transpose as reference
from tests.reference.conv import activate


def _pair(value):
    return value if isinstance(value, tuple) else (value, value)


def _bound(forward, activation):
    def bound(given, result, u):
        x, weight, *bias = given
        # An output is a sum of at most R S K / groups products and a bias, in any order.
        terms = int(np.prod(weight.shape[:3])) + 3
        size = terms * u * forward(np.abs(x), np.abs(weight), np.abs(bias[0]) if bias else None)
        if activation is None:
            return size
        z = forward(
            x, weight, bias[0] if bias else None
        )  # slopes of at most 1.13, factors within 8 units as for conv2d
        return 1.13 * size + 8 * u * np.maximum(np.abs(z), np.abs(result))

    return bound


def _case(x, w, stride=1, padding=0, extra=0, groups=1, dilation=1, bias=False, activation=None, dtypes=FLOATING):
    one = len(x) == 3
    options = (stride, padding, extra, groups, dilation)
    op = smelt.conv_transpose1d if one else smelt.conv_transpose2d

    def forward(image, weight, b):
        if one:
            return reference.conv_transpose1d(image, weight, b, *options)
        return reference.conv_transpose2d(
            image, weight, b, _pair(stride), _pair(padding), _pair(extra), groups, _pair(dilation)
        )

    name = "_".join(map(str, (x, w, *options, bias, activation)))
    return Case(
        name=f"conv_transpose{1 if one else 2}d[{name}]".replace(" ", ""),
        op=lambda i, k, *b: op(i, k, b[0] if b else None, *options, activation),
        reference=lambda i, k, *b: activate(forward(i, k, b[0] if b else None), activation),
        inputs=lambda rng: [
            rng.normal(size=x),
            rng.normal(size=w),
            *([rng.normal(size=w[-1] * groups)] if bias else []),
        ],
        bound=_bound(forward, activation),
        grad=(0, 1, 2) if bias else (0, 1),
        # Half sums are rounded before an activation, which only ReLU allows.
        dtypes=dtypes if activation in (None, "relu") else ("float32", "float64"),
    )


CASES = [
    # Channels around the vectors; one-channel pictures.
    *(
        _case((2, 4, 5, k), (k, 3, 3, c), padding=1, bias=True)
        for k, c in [(1, 1), (8, 1), (17, 3), (3, 8), (5, 17), (31, 33), (16, 64)]
    ),
    # The usual upsamplings: kernel and stride that fit each other, and those that overlap.
    _case((2, 4, 5, 6), (6, 2, 2, 3), stride=2, bias=True),
    _case((2, 4, 5, 6), (6, 4, 4, 3), stride=2, padding=1, bias=True, activation="relu"),
    _case((2, 3, 4, 5), (5, 3, 3, 4), stride=2, padding=1, extra=1, bias=True),
    _case((1, 3, 4, 3), (3, 5, 4, 2), stride=(3, 2), padding=(2, 1), extra=(2, 0), bias=True),
    # A stride beyond the kernel leaves pixels with the bias alone; the same with none.
    _case((2, 3, 2, 4), (4, 1, 2, 3), stride=(3, 4), bias=True),
    _case((1, 3, 2, 4), (4, 1, 1, 5), stride=2, extra=1),
    # Dilation, also with an output padding beyond the stride.
    _case((1, 4, 5, 3), (3, 3, 2, 4), dilation=2, bias=True),
    _case((2, 4, 3, 3), (3, 3, 3, 4), stride=2, padding=(2, 1), extra=(2, 1), dilation=(3, 2), bias=True),
    # Padding that cuts whole kernels away, down to one pixel.
    _case((1, 4, 5, 2), (2, 2, 2, 3), padding=2, bias=True),
    _case((2, 1, 1, 3), (3, 5, 3, 4), padding=(2, 1), bias=True),
    # Groups and depthwise.
    _case((2, 4, 3, 6), (6, 3, 3, 2), stride=2, groups=3, bias=True),
    _case((1, 5, 4, 34), (34, 3, 3, 1), stride=2, padding=1, extra=1, groups=17),
    _case((2, 6, 5, 17), (17, 3, 3, 1), stride=2, padding=1, groups=17, bias=True, activation="tanh"),
    # Winograd's shapes, and pictures of few channels.
    _case((1, 12, 13, 26), (26, 3, 3, 33), padding=1, bias=True, dtypes=("float32",)),
    _case((2, 9, 10, 64), (64, 4, 4, 3), stride=2, padding=1, bias=True, activation="relu", dtypes=("float32", "bfloat16")),
    *(_case((2, 3, 3, 3), (3, 3, 3, 5), stride=2, bias=b, activation=a)
      for b, a in [(True, "gelu"), (True, "silu"), (False, "gelu_tanh"), (False, "tanh")]),
    # Nothing: no image, no channel on either side.
    _case((0, 4, 5, 3), (3, 3, 3, 2), stride=2, bias=True),
    _case((2, 4, 5, 0), (0, 3, 3, 2), stride=2, bias=True),
    _case((2, 4, 5, 3), (3, 3, 3, 0), stride=2, bias=True),
    _case((2, 7, 3), (3, 4, 5), stride=2, padding=1, bias=True),
    _case((1, 6, 8), (8, 3, 2), stride=3, extra=2, groups=4, dilation=2, activation="relu", bias=True),
    _case((3, 1, 64), (64, 1, 3)),
    _case((0, 9, 3), (3, 3, 4), bias=True),
]  # fmt: skip
