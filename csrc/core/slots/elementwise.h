// Filling, moving and element-wise arithmetic.
#pragma once
#include "core/slots/slot.h"

namespace smelt {

// ---------------------------------------------------------------------------------------------- filling and moving

struct FillArgs {
  SMELT_SLOT(FillArgs, "fill");
  void* y;  // (n)
  int64_t n;
  Scalar value;
  DType dtype;
  Work work() const { return {0, 1.0 * n * dtype_size(dtype)}; }
  static constexpr auto buffers() { return std::array{SMELT_OUT(FillArgs, y)}; }
};

struct ArangeArgs {  // y[i] = start + i * step
  SMELT_SLOT(ArangeArgs, "arange");
  void* y;  // (n)
  int64_t n;
  Scalar start, step;
  DType dtype;
  Work work() const { return {0, 1.0 * n * dtype_size(dtype)}; }
  static constexpr auto buffers() { return std::array{SMELT_OUT(ArangeArgs, y)}; }
};

struct CastArgs {
  SMELT_SLOT(CastArgs, "cast");
  const void* x;  // (n) of `from`
  void* y;        // (n) of `to`
  int64_t n;
  DType from, to;
  bool accumulate = false;  // floating `to` only
  Work work() const { return {0, 1.0 * n * (dtype_size(from) + dtype_size(to))}; }
  static constexpr auto buffers() { return std::array{SMELT_IN(CastArgs, x), SMELT_GRAD(CastArgs, y, accumulate)}; }
};

// Copies between two strided arrays of one shape: transpose, slice, flip, pad, concat and the gradients of these.
struct CopyArgs {
  SMELT_SLOT(CopyArgs, "copy");
  const void* x;
  void* y;
  int rank;
  int64_t shape[kMaxRank];
  int64_t x_stride[kMaxRank], y_stride[kMaxRank];  // in elements; may be 0 (x only) or negative
  DType dtype;
  bool accumulate = false;  // floating dtypes only
  Work work() const { return {0, 2.0 * dtype_size(dtype) * extent(shape, rank)}; }
  static constexpr auto buffers() { return std::array{SMELT_IN(CopyArgs, x), SMELT_GRAD(CopyArgs, y, accumulate)}; }
};

// ------------------------------------------------------------------------------------------------------ elementwise

enum class UnaryOp : uint8_t {
  neg, abs, sign, square, sqrt, rsqrt, reciprocal, exp, expm1, log, log1p, sin, cos, tanh, sigmoid, erf, floor, ceil,
  round, trunc, relu, leaky_relu, elu, gelu, gelu_tanh, silu, softplus, clip, isnan, isinf, logical_not
};
// The ops from isnan on give bool.
constexpr bool gives_bool(UnaryOp op) { return op >= UnaryOp::isnan; }

struct UnaryArgs {
  SMELT_SLOT(UnaryArgs, "unary");
  const void* x;  // (n)
  void* y;        // (n), bool where gives_bool(op)
  int64_t n;
  Scalar a, b;  // leaky_relu: slope a; elu: alpha a; clip: bounds a, b
  DType dtype;  // of x
  UnaryOp op;
  Work work() const { return {1.0 * n, 2.0 * n * dtype_size(dtype)}; }
  static constexpr auto buffers() { return std::array{SMELT_IN(UnaryArgs, x), SMELT_OUT(UnaryArgs, y)}; }
};

struct UnaryBackwardArgs {
  SMELT_SLOT(UnaryBackwardArgs, "unary_backward");
  const void* saved;  // (n) y where the derivative is a function of the result (tanh, exp, relu ...), else x
  const void* dy;     // (n)
  void* dx;           // (n)
  int64_t n;
  Scalar a, b;
  DType dtype;
  UnaryOp op;
  bool accumulate;
  Work work() const { return {2.0 * n, 3.0 * n * dtype_size(dtype)}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(UnaryBackwardArgs, saved), SMELT_IN(UnaryBackwardArgs, dy),
                      SMELT_GRAD(UnaryBackwardArgs, dx, accumulate)};
  }
};

enum class BinaryOp : uint8_t {
  add, sub, mul, div, floor_div, remainder, pow, maximum, minimum, logical_and, logical_or, logical_xor, eq, ne, lt,
  le, gt, ge
};
// The ops from logical_and on give bool.
constexpr bool gives_bool(BinaryOp op) { return op >= BinaryOp::logical_and; }

struct BinaryArgs {
  SMELT_SLOT(BinaryArgs, "binary");
  const void* a;  // strided; null: the scalar
  const void* b;  // strided; null: the scalar
  void* y;        // dense (shape), bool where gives_bool(op)
  int rank;
  int64_t shape[kMaxRank];
  int64_t a_stride[kMaxRank], b_stride[kMaxRank];  // in elements, 0 where broadcast
  Scalar scalar;
  DType dtype;  // of a and b
  BinaryOp op;
  bool accumulate = false;  // add, sub, mul, div of floating dtypes only
  Work work() const { return {extent(shape, rank), 3.0 * dtype_size(dtype) * extent(shape, rank)}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(BinaryArgs, a), SMELT_IN(BinaryArgs, b), SMELT_GRAD(BinaryArgs, y, accumulate)};
  }
};

struct WhereArgs {
  SMELT_SLOT(WhereArgs, "where");
  const void* condition;  // strided bool
  const void* a;          // strided; null: zeros
  const void* b;          // strided; null: zeros
  void* y;                // dense (shape)
  int rank;
  int64_t shape[kMaxRank];
  int64_t condition_stride[kMaxRank], a_stride[kMaxRank], b_stride[kMaxRank];
  DType dtype;  // of a, b, y
  Work work() const { return {0, (3.0 * dtype_size(dtype) + 1) * extent(shape, rank)}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(WhereArgs, condition), SMELT_IN(WhereArgs, a), SMELT_IN(WhereArgs, b),
                      SMELT_OUT(WhereArgs, y)};
  }
};

}  // namespace smelt
