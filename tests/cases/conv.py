"""conv1d and conv2d: stride, padding, dilation, groups, bias, activation; channels and extents around the tiles."""

import numpy as np

import smelt
from tests.cases import FLOATING, Case
from tests.reference import conv as reference


def _pair(value):
    return value if value is None or isinstance(value, tuple) else (value, value)


def _bound(forward, activation):
    def bound(given, result, u):
        x, weight, *bias = given
        # A sum of D products and a bias in any order: at most D + 3 units of the sum of their absolute values.
        terms = int(np.prod(weight.shape[1:])) + 3
        size = terms * u * forward(np.abs(x), np.abs(weight), np.abs(bias[0]) if bias else None)
        if activation is None:
            return size
        # The activations have slopes of at most 1.13. Each is a factor within 8 units of its own size, or 8 units of
        # 1 where it is 1 plus something (gelu), times at most |z|, or 1.
        z = forward(x, weight, bias[0] if bias else None)
        return 1.13 * size + 8 * u * np.maximum(np.abs(z), np.abs(result))

    return bound


def _conv2d(x, w, stride=1, padding=0, dilation=1, groups=1, bias=False, activation=None, grad=True, what=""):
    pads = None if padding == "same" else _pair(padding)

    def forward(image, weight, b):
        return reference.conv2d(image, weight, b, _pair(stride), pads, _pair(dilation), groups)

    options = [f"{n}{v}" for n, v in [("s", stride), ("p", padding), ("d", dilation), ("g", groups)] if v not in (0, 1)]
    name = "_".join(
        ["x".join(map(str, x)), "x".join(map(str, w)), *options, *(["bias"] if bias else []), activation or ""]
    )
    return Case(
        name=f"conv2d[{what}{name.rstrip('_')}]".replace(" ", ""),
        op=lambda i, k, *b: smelt.conv2d(i, k, b[0] if b else None, stride, padding, dilation, groups, activation),
        reference=lambda i, k, *b: reference.activate(forward(i, k, b[0] if b else None), activation),
        inputs=lambda rng: [rng.normal(size=x), rng.normal(size=w), *([rng.normal(size=w[0])] if bias else [])],
        bound=_bound(forward, activation),
        grad=((0, 1, 2) if bias else (0, 1)) if grad else (),
    )


def _conv1d(x, w, stride=1, padding=0, dilation=1, groups=1, bias=False, activation=None):
    pads = None if padding == "same" else padding

    def forward(sequence, weight, b):
        return reference.conv1d(sequence, weight, b, stride, pads, dilation, groups)

    return Case(
        name=f"conv1d[{x}_{w}_{stride}_{padding}_{dilation}_{groups}_{bias}_{activation}]".replace(" ", ""),
        op=lambda i, k, *b: smelt.conv1d(i, k, b[0] if b else None, stride, padding, dilation, groups, activation),
        reference=lambda i, k, *b: reference.activate(forward(i, k, b[0] if b else None), activation),
        inputs=lambda rng: [rng.normal(size=x), rng.normal(size=w), *([rng.normal(size=w[0])] if bias else [])],
        bound=_bound(forward, activation),
        grad=(0, 1, 2) if bias else (0, 1),
        dtypes=FLOATING,
    )


CASES = [
    # Channels around the vectors, rows of pixels around the tiles, one-channel first layers.
    *(
        _conv2d((2, 5, 7, c), (k, 3, 3, c), padding=1, bias=True)
        for c, k in [(1, 1), (1, 8), (3, 17), (8, 3), (17, 5), (33, 31), (64, 16)]
    ),
    *(_conv2d((1, h, w, 3), (4, 3, 3, 3), padding=1) for h, w in [(1, 1), (1, 29), (13, 1), (8, 8), (3, 31)]),
    _conv2d((1, 6, 6, 64), (64, 1, 1, 64)),  # a plain product
    _conv2d((1, 4, 5, 130), (9, 3, 3, 130), padding=1),  # a depth beyond every block
    _conv2d((2, 3, 2, 270), (3, 3, 3, 270), padding=1),  # a kernel row whose runs are longer than most
    # The weight gradient's sum over pixels is cut in parts from 2 * kBlockK pixels on.
    _conv2d((3, 31, 29, 2), (3, 3, 3, 2), padding=1, bias=True),
    # Strides with and without a rest; a stride beyond the kernel leaves pixels out.
    _conv2d((2, 7, 9, 3), (4, 3, 3, 3), stride=2),
    _conv2d((2, 8, 8, 3), (4, 3, 3, 3), stride=2, padding=1, bias=True),
    _conv2d((2, 9, 11, 3), (4, 2, 3, 3), stride=(3, 2), padding=(0, 1)),
    _conv2d((1, 11, 10, 2), (3, 2, 1, 2), stride=(4, 3)),
    _conv2d((2, 8, 8, 5), (7, 1, 1, 5), stride=2),
    # Padding wider than the kernel: outputs of zeros alone; "same" with an odd zero, which goes after.
    _conv2d((1, 3, 4, 2), (3, 2, 2, 2), padding=3, bias=True),
    _conv2d((1, 5, 6, 3), (2, 3, 3, 3), padding=(2, 0)),
    _conv2d((2, 5, 6, 3), (4, 2, 4, 3), padding="same"),
    _conv2d((2, 7, 8, 3), (4, 3, 5, 3), stride=(2, 3), padding="same", bias=True),
    _conv2d((1, 6, 7, 3), (4, 3, 2, 3), padding="same", dilation=(2, 3)),
    _conv2d((1, 9, 9, 2), (3, 1, 1, 2), stride=3, padding="same"),
    # Dilation.
    _conv2d((1, 9, 10, 3), (4, 3, 3, 3), dilation=2),
    _conv2d((1, 9, 10, 3), (4, 3, 2, 3), dilation=(1, 3), padding=1, bias=True),
    _conv2d((2, 9, 8, 3), (4, 3, 3, 3), stride=2, padding=2, dilation=(2, 3)),
    # Few channels: rows of pixels beyond whole tiles, kernels wider than the picture, filters around the vectors.
    _conv2d((3, 13, 30, 3), (64, 7, 7, 3), stride=2, padding=3, bias=True, activation="tanh"),
    _conv2d((2, 9, 11, 4), (70, 3, 5, 4), stride=(1, 3), padding=(0, 4)),
    _conv2d((2, 3, 2, 2), (33, 5, 4, 2), padding=(3, 5), bias=True),
    _conv2d((5, 2, 19, 1), (16, 2, 3, 1), padding=1),
    # Winograd's, also beyond whole tiles.
    _conv2d((1, 20, 21, 26), (33, 3, 3, 26), padding=1, bias=True, grad=False),
    _conv2d((7, 6, 5, 24), (40, 3, 3, 24), padding=(2, 0), bias=True, activation="silu", grad=False),
    # Groups and depthwise.
    _conv2d((2, 5, 6, 6), (4, 3, 3, 3), groups=2, padding=1, bias=True),
    _conv2d((1, 6, 5, 51), (34, 3, 3, 3), groups=17, stride=2, padding=1),
    _conv2d((2, 6, 7, 8), (8, 3, 3, 1), groups=8, padding=1, bias=True),
    _conv2d((1, 7, 6, 17), (34, 3, 3, 1), groups=17, stride=2, padding="same"),
    _conv2d((2, 7, 25, 70), (70, 5, 5, 1), groups=70, padding=2, activation="tanh"),
    _conv2d((3, 9, 11, 65), (65, 2, 9, 1), groups=65, stride=(2, 3), padding=(1, 4), dilation=(3, 1), bias=True),
    _conv2d((1, 4, 3, 5), (5, 33, 1, 1), groups=5, padding=(17, 0)),  # more taps than the depthwise kernel takes
    # Few channels a group, or few filters: vectors of pixels, strips of rows, phases of the stride.
    *(
        _conv2d((2, 7, 9, 6 * c), (6 * k, 3, 3, c), groups=6, padding=1, bias=True)
        for c, k in [(1, 2), (2, 2), (3, 3), (4, 4), (5, 3), (8, 8), (4, 1), (2, 9), (9, 17)]
    ),
    _conv2d((2, 11, 10, 12), (20, 3, 2, 3), groups=4, stride=2, padding=1, activation="silu"),
    _conv2d((1, 12, 13, 16), (8, 3, 3, 4), groups=4, stride=(3, 2), dilation=(2, 3), padding=3, bias=True),
    _conv2d((1, 9, 40, 21), (21, 1, 5, 7), groups=3, dilation=(1, 4), padding=(0, 8)),
    _conv2d((2, 40, 37, 5), (9, 5, 5, 5), padding=2, bias=True, grad=False),
    _conv2d((2, 6, 30, 34), (5, 3, 5, 34), padding=(1, 2), stride=(1, 2), bias=True),
    _conv2d((1, 5, 4, 9), (11, 7, 7, 9), padding=3),
    _conv2d((1, 7, 6, 33), (41, 5, 5, 33), padding=2, bias=True),  # most rows reach over the edge
    _conv2d((2, 9, 7, 9), (50, 5, 3, 9), padding=2, stride=2),
    # The kernel is as large as the padded image.
    _conv2d((3, 4, 5, 3), (7, 4, 5, 3), bias=True),
    _conv2d((2, 3, 2, 3), (5, 5, 4, 3), padding=1),
    _conv2d((2, 3, 3, 2), (4, 2, 2, 2), dilation=2),
    *(_conv2d((2, 4, 4, 3), (9, 3, 3, 3), bias=True, activation=a, what="act_")
      for a in ("relu", "tanh", "sigmoid", "silu", "gelu", "gelu_tanh")),
    _conv2d((2, 4, 4, 3), (9, 3, 3, 3), activation="relu", stride=2, padding=1, what="act_"),
    # Nothing: no image, no row of pixels, no channel on either side.
    _conv2d((0, 5, 6, 3), (4, 3, 3, 3), padding=1, bias=True),
    _conv2d((2, 0, 6, 3), (4, 3, 3, 3), padding=2, bias=True),
    _conv2d((2, 5, 6, 0), (4, 3, 3, 0), padding=1, bias=True),
    _conv2d((2, 5, 6, 3), (0, 3, 3, 3), padding=1, bias=True),
    _conv1d((2, 10, 3), (4, 5, 3)),
    _conv1d((2, 17, 8), (17, 3, 8), stride=2, padding=2, bias=True),
    _conv1d((1, 19, 6), (9, 3, 2), dilation=4, padding="same", groups=3, bias=True),
    _conv1d((3, 12, 5), (10, 4, 1), stride=3, padding="same", groups=5),
    _conv1d((2, 6, 3), (4, 8, 3), padding=1, bias=True, activation="tanh"),
    _conv1d((2, 1, 64), (3, 1, 64)),
    _conv1d((0, 9, 3), (4, 3, 3), bias=True),
]  # fmt: skip
