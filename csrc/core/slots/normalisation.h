// Normalisation and attention.
#pragma once
#include "core/slots/products.h"  // PoolShape
#include "core/slots/slot.h"

namespace smelt {

// ---------------------------------------------------------------------------------------------------- normalisation

// Parameters, statistics and their gradients are float32 where x is a half, else of its dtype.

struct BatchNormArgs {  // y = activation((x - mean) * rstd * weight + bias + residual), or its largest pixels
  SMELT_SLOT(BatchNormArgs, "batch_norm");
  const void* x;         // (rows, C)
  const void* weight;    // (C)
  const void* bias;      // (C)
  const void* residual;  // (rows, C) or null
  void* running_mean;    // (C), read when not training, else updated
  void* running_var;     // (C)
  void* mean;            // (C) that was subtracted, out
  void* rstd;            // (C) out
  void* y;               // (rows, C), or with a pooling (N, P, Q, C)
  int64_t rows, c;
  double momentum, eps;
  DType dtype;
  Activation activation;
  bool training;
  PoolShape pool = {};    // of max pooling behind the activation, windows side by side; or kernels of 0
  void* index = nullptr;  // (N, P, Q, C) as that of Pool2dArgs, or null
  Work work() const {
    const double read = (training ? 2.0 : 1.0) * rows * c;
    return {8.0 * rows * c, dtype_size(dtype) * (read + (pool.exists() ? pool.outputs() : 1.0 * rows * c))};
  }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(BatchNormArgs, x),        SMELT_IN(BatchNormArgs, weight),
                      SMELT_IN(BatchNormArgs, bias),     SMELT_IN(BatchNormArgs, residual),
                      SMELT_KEPT_INOUT(BatchNormArgs, running_mean),
                      SMELT_KEPT_INOUT(BatchNormArgs, running_var),
                      SMELT_OUT(BatchNormArgs, mean),    SMELT_OUT(BatchNormArgs, rstd),
                      SMELT_OUT(BatchNormArgs, y),       SMELT_OUT(BatchNormArgs, index)};
  }
};

struct BatchNormBackwardArgs {
  SMELT_SLOT(BatchNormBackwardArgs, "batch_norm_backward");
  const void* x;       // (rows, C)
  const void* y;       // (rows, C) of an activation behind a residual, else null: then x tells
  const void* weight;  // (C)
  const void* bias;    // (C) with an activation and no y, else null
  const void* mean;    // (C) of the batch, or the running mean
  const void* rstd;    // (C)
  const void* dy;      // (rows, C), or with a pooling (N, P, Q, C)
  void* dx;            // (rows, C) or null
  void* dweight;       // (C) or null
  void* dbias;         // (C) or null
  void* dresidual;     // (rows, C) or null
  int64_t rows, c;
  DType dtype;
  Activation activation;  // none or relu
  bool training;          // else mean and rstd are constants
  bool accumulate_x, accumulate_weight, accumulate_bias, accumulate_residual;
  PoolShape pool = {};          // as in the forward
  const void* index = nullptr;  // (N, P, Q, C) with a pooling
  Work work() const {
    const double given = pool.exists() ? pool.outputs() : 1.0 * rows * c;
    return {10.0 * rows * c, dtype_size(dtype) * ((y ? 5.0 : 3.0) * rows * c + 2 * given)};
  }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(BatchNormBackwardArgs, x),
                      SMELT_IN(BatchNormBackwardArgs, y),
                      SMELT_IN(BatchNormBackwardArgs, weight),
                      SMELT_IN(BatchNormBackwardArgs, bias),
                      SMELT_IN(BatchNormBackwardArgs, mean),
                      SMELT_IN(BatchNormBackwardArgs, rstd),
                      SMELT_IN(BatchNormBackwardArgs, dy),
                      SMELT_IN(BatchNormBackwardArgs, index),
                      SMELT_GRAD(BatchNormBackwardArgs, dx, accumulate_x),
                      SMELT_GRAD(BatchNormBackwardArgs, dweight, accumulate_weight),
                      SMELT_GRAD(BatchNormBackwardArgs, dbias, accumulate_bias),
                      SMELT_GRAD(BatchNormBackwardArgs, dresidual, accumulate_residual)};
  }
};

struct LayerNormArgs {
  SMELT_SLOT(LayerNormArgs, "layer_norm");
  const void* x;       // (rows, D)
  const void* weight;  // (D) or null
  const void* bias;    // (D) or null
  void* y;             // (rows, D)
  void* mean;          // (rows) out
  void* rstd;          // (rows) out
  int64_t rows, d;
  double eps;
  DType dtype;
  const void* residual = nullptr;  // (rows, D) or null: rows of x + residual are normalised
  void* sum = nullptr;             // (rows, D) out: x + residual, null without one
  Work work() const { return {8.0 * rows * d, (residual ? 4.0 : 2.0) * dtype_size(dtype) * rows * d}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(LayerNormArgs, x),         SMELT_IN(LayerNormArgs, weight), SMELT_IN(LayerNormArgs, bias),
                      SMELT_IN(LayerNormArgs, residual),  SMELT_OUT(LayerNormArgs, y),     SMELT_OUT(LayerNormArgs, sum),
                      SMELT_OUT(LayerNormArgs, mean),     SMELT_OUT(LayerNormArgs, rstd)};
  }
};

struct LayerNormBackwardArgs {
  SMELT_SLOT(LayerNormBackwardArgs, "layer_norm_backward");
  const void* x;       // (rows, D)
  const void* weight;  // (D) or null
  const void* mean;    // (rows)
  const void* rstd;    // (rows)
  const void* dy;      // (rows, D)
  void* dx;            // (rows, D) or null
  void* dweight;       // (D) or null
  void* dbias;         // (D) or null
  int64_t rows, d;
  DType dtype;
  bool accumulate_x, accumulate_weight, accumulate_bias;
  const void* dsum = nullptr;  // (rows, D) or null: added to dx, the gradient of x + residual beside this one
  Work work() const { return {12.0 * rows * d, (dsum ? 4.0 : 3.0) * dtype_size(dtype) * rows * d}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(LayerNormBackwardArgs, x),
                      SMELT_IN(LayerNormBackwardArgs, weight),
                      SMELT_IN(LayerNormBackwardArgs, mean),
                      SMELT_IN(LayerNormBackwardArgs, rstd),
                      SMELT_IN(LayerNormBackwardArgs, dy),
                      SMELT_IN(LayerNormBackwardArgs, dsum),
                      SMELT_GRAD(LayerNormBackwardArgs, dx, accumulate_x),
                      SMELT_GRAD(LayerNormBackwardArgs, dweight, accumulate_weight),
                      SMELT_GRAD(LayerNormBackwardArgs, dbias, accumulate_bias)};
  }
};

struct RmsNormArgs {
  SMELT_SLOT(RmsNormArgs, "rms_norm");
  const void* x;       // (rows, D)
  const void* weight;  // (D) or null
  void* y;             // (rows, D)
  void* rstd;          // (rows) out: 1 / root of the mean square
  int64_t rows, d;
  double eps;
  DType dtype;
  const void* residual = nullptr;  // (rows, D) or null: rows of x + residual are normalised
  void* sum = nullptr;             // (rows, D) out: x + residual, null without one
  Work work() const { return {5.0 * rows * d, (residual ? 4.0 : 2.0) * dtype_size(dtype) * rows * d}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(RmsNormArgs, x),  SMELT_IN(RmsNormArgs, weight), SMELT_IN(RmsNormArgs, residual),
                      SMELT_OUT(RmsNormArgs, y), SMELT_OUT(RmsNormArgs, sum),   SMELT_OUT(RmsNormArgs, rstd)};
  }
};

struct RmsNormBackwardArgs {
  SMELT_SLOT(RmsNormBackwardArgs, "rms_norm_backward");
  const void* x;       // (rows, D)
  const void* weight;  // (D) or null
  const void* rstd;    // (rows)
  const void* dy;      // (rows, D)
  void* dx;            // (rows, D) or null
  void* dweight;       // (D) or null
  int64_t rows, d;
  DType dtype;
  bool accumulate_x, accumulate_weight;
  const void* dsum = nullptr;  // (rows, D) or null: added to dx, the gradient of x + residual beside this one
  Work work() const { return {9.0 * rows * d, (dsum ? 4.0 : 3.0) * dtype_size(dtype) * rows * d}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(RmsNormBackwardArgs, x),    SMELT_IN(RmsNormBackwardArgs, weight),
                      SMELT_IN(RmsNormBackwardArgs, rstd), SMELT_IN(RmsNormBackwardArgs, dy),
                      SMELT_IN(RmsNormBackwardArgs, dsum), SMELT_GRAD(RmsNormBackwardArgs, dx, accumulate_x),
                      SMELT_GRAD(RmsNormBackwardArgs, dweight, accumulate_weight)};
  }
};

// Over the positions and the channels of each group of each image.
struct GroupNormArgs {
  SMELT_SLOT(GroupNormArgs, "group_norm");
  const void* x;       // (N, positions, C)
  const void* weight;  // (C) or null
  const void* bias;    // (C) or null
  void* y;             // (N, positions, C)
  void* mean;          // (N, groups) out
  void* rstd;          // (N, groups) out
  int64_t n, positions, c, groups;  // groups divides C
  double eps;
  DType dtype;
  Work work() const { return {8.0 * n * positions * c, 2.0 * dtype_size(dtype) * n * positions * c}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(GroupNormArgs, x),  SMELT_IN(GroupNormArgs, weight), SMELT_IN(GroupNormArgs, bias),
                      SMELT_OUT(GroupNormArgs, y), SMELT_OUT(GroupNormArgs, mean),  SMELT_OUT(GroupNormArgs, rstd)};
  }
};

struct GroupNormBackwardArgs {
  SMELT_SLOT(GroupNormBackwardArgs, "group_norm_backward");
  const void* x;       // (N, positions, C)
  const void* weight;  // (C) or null
  const void* mean;    // (N, groups)
  const void* rstd;    // (N, groups)
  const void* dy;      // (N, positions, C)
  void* dx;            // (N, positions, C) or null
  void* dweight;       // (C) or null
  void* dbias;         // (C) or null
  int64_t n, positions, c, groups;
  DType dtype;
  bool accumulate_x, accumulate_weight, accumulate_bias;
  Work work() const { return {12.0 * n * positions * c, 3.0 * dtype_size(dtype) * n * positions * c}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(GroupNormBackwardArgs, x),    SMELT_IN(GroupNormBackwardArgs, weight),
                      SMELT_IN(GroupNormBackwardArgs, mean), SMELT_IN(GroupNormBackwardArgs, rstd),
                      SMELT_IN(GroupNormBackwardArgs, dy),   SMELT_GRAD(GroupNormBackwardArgs, dx, accumulate_x),
                      SMELT_GRAD(GroupNormBackwardArgs, dweight, accumulate_weight),
                      SMELT_GRAD(GroupNormBackwardArgs, dbias, accumulate_bias)};
  }
};

// -------------------------------------------------------------------------------------------------------- attention

// Query i sees key j where j < length of its batch, j <= i + tk - tq (causal: the last query sees the last key), and the mask
// allows it. `heads` is a multiple of `kv_heads`: query head h reads key head h / (heads / kv_heads).
struct AttentionShape {
  int64_t batch, heads, kv_heads, tq, tk;
  int64_t d, dv;  // features of a query and a key; of a value
  bool operator==(const AttentionShape&) const = default;
  double pairs() const { return 1.0 * batch * heads * tq * tk; }
  double elements() const { return 1.0 * batch * (heads * tq + kv_heads * tk) * (d + dv); }
};

// y = softmax(scale q k^T + mask) v, zeros where a query sees no key. Strides in elements: batch, head, row; features lie together.
struct AttentionArgs {
  SMELT_SLOT(AttentionArgs, "attention");
  const void* q;           // (B, H, Tq, D), strided
  const void* k;           // (B, Hkv, Tk, D), strided
  const void* v;           // (B, Hkv, Tk, Dv), strided
  const void* mask;        // (B, H, Tq, Tk), strided: bool, true where a key is seen, or floating, added to the scores; or null
  const int64_t* lengths;  // (B) keys from the first one on that are there, at most Tk, or null
  void* y;                 // (B, H, Tq, Dv), strided
  void* lse;               // (B, H, Tq) out: log of the sum of exp(score), in the dtype of the sums; infinity where no key is seen
  AttentionShape shape;
  int64_t q_stride[3], k_stride[3], v_stride[3], y_stride[3];
  int64_t mask_stride[4];  // batch, head, row, key; 0 where broadcast
  double scale;
  DType dtype, mask_dtype;
  bool causal;
  Work work() const {
    return {2.0 * shape.pairs() * (shape.d + shape.dv) * (causal ? 0.5 : 1), dtype_size(dtype) * shape.elements()};
  }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(AttentionArgs, q),       SMELT_IN(AttentionArgs, k), SMELT_IN(AttentionArgs, v),
                      SMELT_IN(AttentionArgs, mask),    SMELT_IN(AttentionArgs, lengths),
                      SMELT_OUT(AttentionArgs, y),      SMELT_OUT(AttentionArgs, lse)};
  }
};

struct AttentionBackwardArgs {
  SMELT_SLOT(AttentionBackwardArgs, "attention_backward");
  const void* q;           // (B, H, Tq, D), strided
  const void* k;           // (B, Hkv, Tk, D), strided
  const void* v;           // (B, Hkv, Tk, Dv), strided
  const void* y;           // (B, H, Tq, Dv), strided
  const void* dy;          // (B, H, Tq, Dv), strided
  const void* lse;         // (B, H, Tq)
  const void* mask;        // (B, H, Tq, Tk), strided, or null
  const int64_t* lengths;  // (B) or null
  void* dq;                // as q, or null
  void* dk;                // as k, or null
  void* dv;                // as v, or null
  AttentionShape shape;
  int64_t q_stride[3], k_stride[3], v_stride[3], y_stride[3], dy_stride[3], dq_stride[3], dk_stride[3], dv_stride[3];
  int64_t mask_stride[4];
  double scale;
  DType dtype, mask_dtype;
  DType grad_dtype;  // of dq, dk and dv: dtype, or float32 for halves
  bool causal;
  bool accumulate_q, accumulate_k, accumulate_v;
  Work work() const {
    return {shape.pairs() * (6.0 * shape.d + 4.0 * shape.dv) * (causal ? 0.5 : 1), 2.0 * dtype_size(dtype) * shape.elements()};
  }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(AttentionBackwardArgs, q),
                      SMELT_IN(AttentionBackwardArgs, k),
                      SMELT_IN(AttentionBackwardArgs, v),
                      SMELT_IN(AttentionBackwardArgs, y),
                      SMELT_IN(AttentionBackwardArgs, dy),
                      SMELT_IN(AttentionBackwardArgs, lse),
                      SMELT_IN(AttentionBackwardArgs, mask),
                      SMELT_IN(AttentionBackwardArgs, lengths),
                      SMELT_GRAD(AttentionBackwardArgs, dq, accumulate_q),
                      SMELT_GRAD(AttentionBackwardArgs, dk, accumulate_k),
                      SMELT_GRAD(AttentionBackwardArgs, dv, accumulate_v)};
  }
};

}  // namespace smelt
