// The fields of every argument struct by name, for calls of single kernels from Python.
#pragma once
#include "core/kernels.h"

// SMELT_FIELDS(Args, x, y, n) defines fields(Args& args, Visit& visit), which calls visit("x", args.x), visit("y", ...).
#define SMELT_PARENTHESES ()
#define SMELT_REPEAT5(...) __VA_ARGS__
#define SMELT_REPEAT4(...) SMELT_REPEAT5(SMELT_REPEAT5(SMELT_REPEAT5(SMELT_REPEAT5(__VA_ARGS__))))
#define SMELT_REPEAT3(...) SMELT_REPEAT4(SMELT_REPEAT4(SMELT_REPEAT4(SMELT_REPEAT4(__VA_ARGS__))))
#define SMELT_REPEAT2(...) SMELT_REPEAT3(SMELT_REPEAT3(SMELT_REPEAT3(SMELT_REPEAT3(__VA_ARGS__))))  // up to 80 fields
#define SMELT_VISIT(field, ...) \
  visit(#field, args.field);    \
  __VA_OPT__(SMELT_VISIT_NEXT SMELT_PARENTHESES(__VA_ARGS__))
#define SMELT_VISIT_NEXT() SMELT_VISIT
#define SMELT_FIELDS(Args, ...)               \
  template <class Visit>                      \
  void fields(Args& args, Visit& visit) {     \
    SMELT_REPEAT2(SMELT_VISIT(__VA_ARGS__))   \
  }

namespace smelt::bindings {

SMELT_FIELDS(ConvShape, n, h, w, c, k, r, s, p, q, stride, dilation, pad, groups)
SMELT_FIELDS(AttentionShape, batch, heads, kv_heads, tq, tk, d, dv)
SMELT_FIELDS(PoolShape, n, h, w, c, p, q, kernel, stride, pad, adaptive)

SMELT_FIELDS(FillArgs, y, n, value, dtype)
SMELT_FIELDS(ArangeArgs, y, n, start, step, dtype)
SMELT_FIELDS(CastArgs, x, y, n, from, to, accumulate)
SMELT_FIELDS(CopyArgs, x, y, rank, shape, x_stride, y_stride, dtype, accumulate)
SMELT_FIELDS(UnaryArgs, x, y, n, a, b, dtype, op)
SMELT_FIELDS(UnaryBackwardArgs, saved, dy, dx, n, a, b, dtype, op, accumulate)
SMELT_FIELDS(BinaryArgs, a, b, y, rank, shape, a_stride, b_stride, scalar, dtype, op, accumulate)
SMELT_FIELDS(WhereArgs, condition, a, b, y, rank, shape, condition_stride, a_stride, b_stride, dtype)
SMELT_FIELDS(ReduceArgs, x, y, index, outer, n, inner, scale, dtype, y_dtype, op, accumulate)
SMELT_FIELDS(CumsumArgs, x, y, outer, n, inner, dtype, reverse, accumulate)
SMELT_FIELDS(SortArgs, x, y, index, rows, n, dtype, descending)
SMELT_FIELDS(CheckIndexArgs, index, n, low, high, ignore, dtype)
SMELT_FIELDS(TakeArgs, x, index, y, outer, n, m, inner, dtype)
SMELT_FIELDS(PutArgs, dy, index, dx, outer, n, m, inner, skip, dtype, assign, accumulate)
SMELT_FIELDS(GatherArgs, x, index, y, outer, n, m, inner, dtype)
SMELT_FIELDS(ScatterAddArgs, x, index, y, outer, n, m, inner, dtype)
SMELT_FIELDS(NonzeroArgs, x, index, count, n)
SMELT_FIELDS(GemmArgs, a, b, bias, c, residual, column_sums, m, n, k, batch, lda, ldb, ldc, batch_stride_a, batch_stride_b, batch_stride_c, alpha,
             dtype, c_dtype, activation, transpose_a, transpose_b, accumulate)
SMELT_FIELDS(Conv2dArgs, x, w, bias, y, shape, dtype, activation)
SMELT_FIELDS(Conv2dBackwardInputArgs, dy, w, dx, shape, dtype, dx_dtype, accumulate)
SMELT_FIELDS(Conv2dBackwardWeightArgs, x, dy, dw, shape, dtype, dw_dtype, accumulate)
SMELT_FIELDS(Pool2dArgs, x, y, index, shape, dtype, index_dtype, max, count_include_pad)
SMELT_FIELDS(Pool2dBackwardArgs, dy, index, dx, shape, dtype, index_dtype, max, count_include_pad, accumulate)
SMELT_FIELDS(BatchNormArgs, x, weight, bias, residual, running_mean, running_var, mean, rstd, y, rows, c, momentum, eps,
             dtype, activation, training, pool, index)
SMELT_FIELDS(BatchNormBackwardArgs, x, y, weight, bias, mean, rstd, dy, dx, dweight, dbias, dresidual, rows, c, dtype,
             activation, training, accumulate_x, accumulate_weight, accumulate_bias, accumulate_residual, pool, index)
SMELT_FIELDS(LayerNormArgs, x, weight, bias, residual, y, sum, mean, rstd, rows, d, eps, dtype)
SMELT_FIELDS(LayerNormBackwardArgs, x, weight, mean, rstd, dy, dsum, dx, dweight, dbias, rows, d, dtype, accumulate_x,
             accumulate_weight, accumulate_bias)
SMELT_FIELDS(RmsNormArgs, x, weight, residual, y, sum, rstd, rows, d, eps, dtype)
SMELT_FIELDS(RmsNormBackwardArgs, x, weight, rstd, dy, dsum, dx, dweight, rows, d, dtype, accumulate_x, accumulate_weight)
SMELT_FIELDS(GroupNormArgs, x, weight, bias, y, mean, rstd, n, positions, c, groups, eps, dtype)
SMELT_FIELDS(GroupNormBackwardArgs, x, weight, mean, rstd, dy, dx, dweight, dbias, n, positions, c, groups, dtype,
             accumulate_x, accumulate_weight, accumulate_bias)
SMELT_FIELDS(AttentionArgs, q, k, v, mask, lengths, y, lse, shape, q_stride, k_stride, v_stride, y_stride, mask_stride, scale,
             dtype, mask_dtype, causal)
SMELT_FIELDS(AttentionBackwardArgs, q, k, v, y, dy, lse, mask, lengths, dq, dk, dv, shape, q_stride, k_stride, v_stride,
             y_stride, dy_stride, dq_stride, dk_stride, dv_stride, mask_stride, scale, dtype, mask_dtype, grad_dtype, causal,
             accumulate_q, accumulate_k, accumulate_v)
SMELT_FIELDS(SoftmaxArgs, x, y, rows, n, dtype, log)
SMELT_FIELDS(SoftmaxBackwardArgs, y, dy, dx, rows, n, dtype, log, accumulate)
SMELT_FIELDS(CrossEntropyArgs, logits, labels, weight, loss, lse, total_weight, rows, classes, ignore_index,
             label_smoothing, dtype, reduction)
SMELT_FIELDS(CrossEntropyBackwardArgs, logits, labels, weight, lse, total_weight, dloss, dlogits, rows, classes,
             ignore_index, label_smoothing, dtype, reduction, accumulate)
SMELT_FIELDS(LossArgs, x, target, pos_weight, loss, n, period, delta, dtype, op, reduction)
SMELT_FIELDS(LossBackwardArgs, x, target, pos_weight, dloss, dx, n, period, delta, sign, dtype, op, reduction, accumulate)
SMELT_FIELDS(RandomArgs, generator, y, n, counter, a, b, dtype, kind)
SMELT_FIELDS(DropoutArgs, generator, x, y, n, counter, p, dtype, accumulate)
SMELT_FIELDS(SumSquaresArgs, grad, segments, sum, count, size, active, dtype)
SMELT_FIELDS(GuardLossArgs, loss, block, dtype)
SMELT_FIELDS(RestoreArgs, from, to, block, bytes)
SMELT_FIELDS(ClipScaleArgs, sums, norm, block, count, max_norm)
SMELT_FIELDS(SgdArgs, param, grad, momentum, mirror, segments, block, count, size, active, dtype, nesterov)
SMELT_FIELDS(AdamArgs, param, grad, exp_avg, exp_avg_sq, mirror, segments, block, count, size, active, dtype, decoupled)
SMELT_FIELDS(ProbeArgs, memory, done, n, rounds, kind)

}  // namespace smelt::bindings
