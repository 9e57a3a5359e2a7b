"""For kernel engineers: which kernels there are, which one runs, calls of one kernel on arrays, kernels of one's own.

A function for each slot takes NumPy arrays and all that has ``__dlpack__``, on the CPU, row-major; it copies nothing. Results
are written to ``out``, or to new arrays: smelt's where the first argument is one or NumPy lacks the dtype, else NumPy's.
"""

from .attention import attention, attention_backward
from .elementwise import arange, binary, cast, copy, dropout, fill, random, unary, unary_backward, where
from .losses import cross_entropy, cross_entropy_backward, loss, loss_backward
from .matrix import conv2d, conv2d_backward_input, conv2d_backward_weight, gemm, pool2d, pool2d_backward
from .normalisation import (
    batch_norm,
    batch_norm_backward,
    group_norm,
    group_norm_backward,
    layer_norm,
    layer_norm_backward,
    rms_norm,
    rms_norm_backward,
    softmax,
    softmax_backward,
)
from .optimizers import adam, clip_scale, guard_loss, probe, restore, sgd, sum_squares
from .reduction import check_index, cumsum, gather, nonzero, put, reduce, scatter_add, sort, take
from .table import impls, include_dir, isa, register, slots, trace, use

__all__ = [
    "adam",
    "arange",
    "attention",
    "attention_backward",
    "batch_norm",
    "batch_norm_backward",
    "binary",
    "cast",
    "check_index",
    "clip_scale",
    "conv2d",
    "conv2d_backward_input",
    "conv2d_backward_weight",
    "copy",
    "cross_entropy",
    "cross_entropy_backward",
    "cumsum",
    "dropout",
    "fill",
    "gather",
    "gemm",
    "group_norm",
    "group_norm_backward",
    "guard_loss",
    "impls",
    "include_dir",
    "isa",
    "layer_norm",
    "layer_norm_backward",
    "loss",
    "loss_backward",
    "nonzero",
    "pool2d",
    "pool2d_backward",
    "probe",
    "put",
    "random",
    "reduce",
    "register",
    "restore",
    "rms_norm",
    "rms_norm_backward",
    "scatter_add",
    "sgd",
    "slots",
    "softmax",
    "softmax_backward",
    "sort",
    "sum_squares",
    "take",
    "trace",
    "unary",
    "unary_backward",
    "use",
    "where",
]
