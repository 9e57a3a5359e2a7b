// THE TABLE. Every slot of it is one plain-data argument struct: a kernel of that slot is a function
//
//     Status kernel(const Args&, Context&) noexcept
//
// that never allocates, throws, keeps state or checks its input: the ops layer has done that. The struct lists its
// buffers (`buffers()`), and recorder, dry run, alias checks and lanes read that list and nothing else.
// `work()` says how much a call has to do: profiles hang on it, and whether other Python threads may run meanwhile. `ns()` is
// the time on one core where that is far more than the work tells.
// Tensors are dense and row-major; images are (N, H, W, C), convolution weights (K, R, S, C / groups).
//
// Shape letters: N batch, H W height and width of the input, P Q of the output, C K channels in and out, R S kernel
// height and width; M N K rows, columns and depth of a matrix product; B batch, H heads, T time, D features.
#pragma once
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <tuple>

#include "core/dtype.h"
#include "core/philox.h"
#include "core/shape.h"

namespace smelt {

enum class Status : int { ok = 0, index_out_of_range = 1, failed = 2 };

// What a kernel found wrong on a device that runs behind the host; the host looks when it waits for the device.
struct DeviceFault {
  int64_t ticket;  // 0: nothing
  int64_t position, value;
};

// What a kernel gets besides its arguments.
struct Context {
  Device device;
  void* workspace = nullptr;  // as many bytes as the candidate's `workspace` asked for, 64-byte aligned
  int threads = 1;            // most threads that `parallel` uses
  // Runs body(arg, chunk, thread) for every chunk in [0, chunks), thread in [0, threads).
  void (*parallel)(int threads, int64_t chunks, void (*body)(void* arg, int64_t chunk, int thread), void* arg) = nullptr;
  void* stream = nullptr;
  DeviceFault* fault = nullptr;  // where the device can write it; null on the CPU
  bool tf32 = false;             // products of float32 may round their operands to TF32
  int64_t detail[2] = {};  // with Status::index_out_of_range: position and value
};

enum class Access : uint8_t { in, out, inout };

// One pointer field of an argument struct.
struct BufferField {
  const char* name;
  uint16_t offset;      // of the pointer within the struct
  Access access;
  bool persistent;      // outlives a step: parameter, running statistics, optimizer state, generator, step block
  int16_t accumulate;   // offset of the bool that turns `out` into `inout`, or -1
};

// The slot's name, and whether two calls are the same.
#define SMELT_SLOT(A, slot)                  \
  static constexpr const char* name = slot;  \
  bool operator==(const A&) const = default
#define SMELT_IN(A, f) BufferField{#f, offsetof(A, f), Access::in, false, -1}
#define SMELT_OUT(A, f) BufferField{#f, offsetof(A, f), Access::out, false, -1}
#define SMELT_GRAD(A, f, flag) BufferField{#f, offsetof(A, f), Access::out, false, offsetof(A, flag)}
#define SMELT_KEPT_IN(A, f) BufferField{#f, offsetof(A, f), Access::in, true, -1}
#define SMELT_KEPT_INOUT(A, f) BufferField{#f, offsetof(A, f), Access::inout, true, -1}

// What a call has to do at least: arithmetic, and bytes of its arguments that are read or written.
struct Work {
  double flops = 0, bytes = 0;
};

struct Scalar {
  double f = 0;
  int64_t i = 0;  // the same value for integer dtypes, exact beyond 2^53
  // Bit by bit: a NaN is itself, and -0 is not 0.
  bool operator==(const Scalar& other) const {
    return std::bit_cast<int64_t>(f) == std::bit_cast<int64_t>(other.f) && i == other.i;
  }
};

static inline double extent(const int64_t* shape, int rank) {
  double n = 1;
  for (int i = 0; i < rank; ++i) n *= static_cast<double>(shape[i]);
  return n;
}

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

// ------------------------------------------------------------------------------------- reductions, scans and sorting

enum class ReduceOp : uint8_t { sum, prod, max, min, any, all };

struct ReduceArgs {
  SMELT_SLOT(ReduceArgs, "reduce");
  const void* x;   // (outer, n, inner)
  void* y;         // (outer, inner)
  int64_t* index;  // (outer, inner) of the first extremum, or null; max and min only
  int64_t outer, n, inner;
  double scale = 1;  // sum of floating dtypes: the result times this (1 / n for a mean)
  DType dtype;       // of x
  DType y_dtype;     // int64 for sum and prod of integers, bool for any and all, dtype or float32 for sums of halves, else dtype
  ReduceOp op;
  bool accumulate = false;  // sum of floating dtypes only
  Work work() const { return {1.0 * outer * n * inner, 1.0 * dtype_size(dtype) * outer * n * inner}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(ReduceArgs, x), SMELT_GRAD(ReduceArgs, y, accumulate), SMELT_OUT(ReduceArgs, index)};
  }
};

struct CumsumArgs {
  SMELT_SLOT(CumsumArgs, "cumsum");
  const void* x;  // (outer, n, inner)
  void* y;        // (outer, n, inner)
  int64_t outer, n, inner;
  DType dtype;
  bool reverse;  // from the last element on: the gradient
  bool accumulate;
  Work work() const { return {1.0 * outer * n * inner, 2.0 * dtype_size(dtype) * outer * n * inner}; }
  static constexpr auto buffers() { return std::array{SMELT_IN(CumsumArgs, x), SMELT_GRAD(CumsumArgs, y, accumulate)}; }
};

struct SortArgs {  // stable; NaN counts as the largest value
  SMELT_SLOT(SortArgs, "sort");
  const void* x;   // (rows, n)
  void* y;         // (rows, n)
  int64_t* index;  // (rows, n)
  int64_t rows, n;
  DType dtype;
  bool descending;
  Work work() const { return {0, (2.0 * dtype_size(dtype) + 8) * rows * n}; }
  double ns() const { return 50.0 * rows * n; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(SortArgs, x), SMELT_OUT(SortArgs, y), SMELT_OUT(SortArgs, index)};
  }
};

// --------------------------------------------------------------------------------------------------------- indexing

// Reports the first index outside [low, high) that is not `ignore` as Status::index_out_of_range.
struct CheckIndexArgs {
  SMELT_SLOT(CheckIndexArgs, "check_index");
  const void* index;  // (n) uint8, int32 or int64
  int64_t n, low, high, ignore;
  DType dtype;
  const char* what = "index";  // for the message
  int64_t ticket = 0;          // of a device that runs behind the host: what its fault will mean
  Work work() const { return {0, 1.0 * n * dtype_size(dtype)}; }
  static constexpr auto buffers() { return std::array{SMELT_IN(CheckIndexArgs, index)}; }
};

struct TakeArgs {  // y[o, j, i] = x[o, index[j], i]
  SMELT_SLOT(TakeArgs, "take");
  const void* x;         // (outer, n, inner)
  const int64_t* index;  // (m), in [0, n)
  void* y;               // (outer, m, inner)
  int64_t outer, n, m, inner;
  DType dtype;
  Work work() const { return {0, 2.0 * dtype_size(dtype) * outer * m * inner}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(TakeArgs, x), SMELT_IN(TakeArgs, index), SMELT_OUT(TakeArgs, y)};
  }
};

// dx[o, r, i] = the sum of dy[o, j, i] over the j with index[j] = r, in their order. Assigning instead (`assign`) is
// x[index] = value, which leaves the other rows alone.
struct PutArgs {
  SMELT_SLOT(PutArgs, "put");
  const void* dy;        // (outer, m, inner)
  const int64_t* index;  // (m), in [0, n)
  void* dx;              // (outer, n, inner)
  int64_t outer, n, m, inner;
  int64_t skip;  // an index that takes no gradient (padding), or -1
  DType dtype;
  bool assign;
  bool accumulate;  // of an assignment always
  Work work() const {
    return {1.0 * outer * m * inner, 1.0 * dtype_size(dtype) * outer * inner * (accumulate ? 3 * m : m + n)};
  }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(PutArgs, dy), SMELT_IN(PutArgs, index), SMELT_GRAD(PutArgs, dx, accumulate)};
  }
};

struct GatherArgs {  // y[o, j, i] = x[o, index[o, j, i], i]
  SMELT_SLOT(GatherArgs, "gather");
  const void* x;         // (outer, n, inner)
  const int64_t* index;  // (outer, m, inner), in [0, n)
  void* y;               // (outer, m, inner)
  int64_t outer, n, m, inner;
  DType dtype;
  Work work() const { return {0, (2.0 * dtype_size(dtype) + 8) * outer * m * inner}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(GatherArgs, x), SMELT_IN(GatherArgs, index), SMELT_OUT(GatherArgs, y)};
  }
};

struct ScatterAddArgs {  // y[o, index[o, j, i], i] += x[o, j, i], in the order of j
  SMELT_SLOT(ScatterAddArgs, "scatter_add");
  const void* x;         // (outer, m, inner)
  const int64_t* index;  // (outer, m, inner), in [0, n)
  void* y;               // (outer, n, inner), inout
  int64_t outer, n, m, inner;
  DType dtype;
  Work work() const { return {1.0 * outer * m * inner, (3.0 * dtype_size(dtype) + 8) * outer * m * inner}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(ScatterAddArgs, x), SMELT_IN(ScatterAddArgs, index),
                      BufferField{"y", offsetof(ScatterAddArgs, y), Access::inout, false, -1}};
  }
};

struct NonzeroArgs {  // positions of the true elements, ascending
  SMELT_SLOT(NonzeroArgs, "nonzero");
  const void* x;   // (n) bool
  int64_t* index;  // (n), the first *count are written
  int64_t* count;  // (1)
  int64_t n;
  Work work() const { return {0, 9.0 * n}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(NonzeroArgs, x), SMELT_OUT(NonzeroArgs, index), SMELT_OUT(NonzeroArgs, count)};
  }
};

// --------------------------------------------------------------------------------------------------- matrix product

enum class Activation : uint8_t { none, relu, tanh, sigmoid, gelu, gelu_tanh, silu };

struct GemmArgs {  // c = activation(alpha * a @ b + bias + residual), c's content being added within when accumulating
  SMELT_SLOT(GemmArgs, "gemm");
  const void* a;     // (batch, M, K), or (batch, K, M) when transpose_a
  const void* b;     // (batch, K, N), or (batch, N, K) when transpose_b
  const void* bias;  // (N) or null
  void* c;           // (batch, M, N)
  const void* residual = nullptr;  // as c, or null
  void* column_sums = nullptr;     // (N) or null: of what is written to c, in the dtype of the sums; for a batch of 1
  int64_t m, n, k, batch = 1;
  int64_t lda, ldb, ldc;                               // elements from one stored row to the next
  int64_t batch_stride_a = 0, batch_stride_b = 0, batch_stride_c = 0;  // in elements; 0 repeats a or b
  float alpha = 1;
  DType dtype;    // of a, b and bias
  DType c_dtype;  // dtype, or float32 for halves
  Activation activation = Activation::none;
  bool transpose_a = false, transpose_b = false;
  bool accumulate = false;
  Work work() const {
    const double in = dtype_size(dtype) * (1.0 * m * k + 1.0 * k * n);
    const double out = (residual ? 2.0 : 1.0) * dtype_size(c_dtype) * m * n;
    return {2.0 * batch * m * n * k, batch * (in + out)};
  }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(GemmArgs, a), SMELT_IN(GemmArgs, b), SMELT_IN(GemmArgs, bias),
                      SMELT_GRAD(GemmArgs, c, accumulate), SMELT_IN(GemmArgs, residual), SMELT_OUT(GemmArgs, column_sums)};
  }
};

// ------------------------------------------------------------------------------------------ convolution and pooling

struct ConvShape {
  int64_t n, h, w, c;  // input (N, H, W, C)
  int64_t k, r, s;     // weight (K, R, S, C / groups)
  int64_t p, q;        // output (N, P, Q, K)
  int64_t stride[2], dilation[2];
  int64_t pad[2];  // rows above, columns on the left; those below and right follow from p and q
  int64_t groups;
  bool operator==(const ConvShape&) const = default;
  double macs() const { return 1.0 * n * p * q * k * r * s * (c / groups); }
  double elements() const { return 1.0 * n * h * w * c + 1.0 * k * r * s * (c / groups) + 1.0 * n * p * q * k; }
};

struct Conv2dArgs {
  SMELT_SLOT(Conv2dArgs, "conv2d");
  const void* x;     // (N, H, W, C)
  const void* w;     // (K, R, S, C / groups)
  const void* bias;  // (K) or null
  void* y;           // (N, P, Q, K)
  ConvShape shape;
  DType dtype;
  Activation activation;
  Work work() const { return {2 * shape.macs(), dtype_size(dtype) * shape.elements()}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(Conv2dArgs, x), SMELT_IN(Conv2dArgs, w), SMELT_IN(Conv2dArgs, bias),
                      SMELT_OUT(Conv2dArgs, y)};
  }
};

struct Conv2dBackwardInputArgs {
  SMELT_SLOT(Conv2dBackwardInputArgs, "conv2d_backward_input");
  const void* dy;  // (N, P, Q, K)
  const void* w;   // (K, R, S, C / groups)
  void* dx;        // (N, H, W, C)
  ConvShape shape;
  DType dtype;     // of dy and w
  DType dx_dtype;  // dtype, or float32 for halves
  bool accumulate;
  Work work() const { return {2 * shape.macs(), dtype_size(dtype) * shape.elements()}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(Conv2dBackwardInputArgs, dy), SMELT_IN(Conv2dBackwardInputArgs, w),
                      SMELT_GRAD(Conv2dBackwardInputArgs, dx, accumulate)};
  }
};

struct Conv2dBackwardWeightArgs {
  SMELT_SLOT(Conv2dBackwardWeightArgs, "conv2d_backward_weight");
  const void* x;   // (N, H, W, C)
  const void* dy;  // (N, P, Q, K)
  void* dw;        // (K, R, S, C / groups)
  ConvShape shape;
  DType dtype;     // of x and dy
  DType dw_dtype;  // dtype, or float32 for halves
  bool accumulate;
  Work work() const { return {2 * shape.macs(), dtype_size(dtype) * shape.elements()}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(Conv2dBackwardWeightArgs, x), SMELT_IN(Conv2dBackwardWeightArgs, dy),
                      SMELT_GRAD(Conv2dBackwardWeightArgs, dw, accumulate)};
  }
};

struct PoolShape {
  int64_t n, h, w, c;  // input (N, H, W, C)
  int64_t p, q;        // output (N, P, Q, C)
  int64_t kernel[2], stride[2], pad[2];
  bool adaptive;  // output i covers [floor(i H / P), ceil((i + 1) H / P)) instead
  bool operator==(const PoolShape&) const = default;
  double inputs() const { return 1.0 * n * h * w * c; }
  double elements() const { return inputs() + 1.0 * n * p * q * c; }
  // The most pixels of the image in a window, and the type of a place among them.
  int64_t window_pixels() const {
    const auto most = [this](int axis, int64_t extent, int64_t out) {
      const int64_t size = adaptive ? (out ? extent / out : 0) + 2 : kernel[axis];
      return size < extent ? size : extent;
    };
    return most(0, h, p) * most(1, w, q);
  }
  DType index_dtype() const { return window_pixels() <= 256 ? DType::uint8 : DType::int32; }
};

struct Pool2dArgs {
  SMELT_SLOT(Pool2dArgs, "pool2d");
  const void* x;  // (N, H, W, C)
  void* y;        // (N, P, Q, C)
  void* index;    // (N, P, Q, C) of index_dtype, or null: of each maximum its place among the window's pixels that lie in the
                  // image, row by row; max only
  PoolShape shape;
  DType dtype;
  DType index_dtype;  // PoolShape::index_dtype()
  bool max;                // else average
  bool count_include_pad;  // average: padding counts in the divisor
  Work work() const { return {shape.inputs(), dtype_size(dtype) * shape.elements()}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(Pool2dArgs, x), SMELT_OUT(Pool2dArgs, y), SMELT_OUT(Pool2dArgs, index)};
  }
};

struct Pool2dBackwardArgs {
  SMELT_SLOT(Pool2dBackwardArgs, "pool2d_backward");
  const void* dy;     // (N, P, Q, C)
  const void* index;  // (N, P, Q, C) of index_dtype; max only
  void* dx;           // (N, H, W, C)
  PoolShape shape;
  DType dtype;
  DType index_dtype;
  bool max;
  bool count_include_pad;
  bool accumulate;
  Work work() const { return {shape.inputs(), dtype_size(dtype) * shape.elements()}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(Pool2dBackwardArgs, dy), SMELT_IN(Pool2dBackwardArgs, index),
                      SMELT_GRAD(Pool2dBackwardArgs, dx, accumulate)};
  }
};

// ---------------------------------------------------------------------------------------------------- normalisation

// Parameters, statistics and their gradients are float32 where x is a half, else of its dtype.

struct BatchNormArgs {  // y = activation((x - mean) * rstd * weight + bias + residual)
  SMELT_SLOT(BatchNormArgs, "batch_norm");
  const void* x;         // (rows, C)
  const void* weight;    // (C)
  const void* bias;      // (C)
  const void* residual;  // (rows, C) or null
  void* running_mean;    // (C), read when not training, else updated
  void* running_var;     // (C)
  void* mean;            // (C) that was subtracted, out
  void* rstd;            // (C) out
  void* y;               // (rows, C)
  int64_t rows, c;
  double momentum, eps;
  DType dtype;
  Activation activation;
  bool training;
  Work work() const { return {8.0 * rows * c, (training ? 3.0 : 2.0) * dtype_size(dtype) * rows * c}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(BatchNormArgs, x),        SMELT_IN(BatchNormArgs, weight),
                      SMELT_IN(BatchNormArgs, bias),     SMELT_IN(BatchNormArgs, residual),
                      SMELT_KEPT_INOUT(BatchNormArgs, running_mean),
                      SMELT_KEPT_INOUT(BatchNormArgs, running_var),
                      SMELT_OUT(BatchNormArgs, mean),    SMELT_OUT(BatchNormArgs, rstd),
                      SMELT_OUT(BatchNormArgs, y)};
  }
};

struct BatchNormBackwardArgs {
  SMELT_SLOT(BatchNormBackwardArgs, "batch_norm_backward");
  const void* x;       // (rows, C)
  const void* y;       // (rows, C) with an activation, else null
  const void* weight;  // (C)
  const void* mean;    // (C) of the batch, or the running mean
  const void* rstd;    // (C)
  const void* dy;      // (rows, C)
  void* dx;            // (rows, C) or null
  void* dweight;       // (C) or null
  void* dbias;         // (C) or null
  void* dresidual;     // (rows, C) or null
  int64_t rows, c;
  DType dtype;
  Activation activation;  // none or relu
  bool training;          // else mean and rstd are constants
  bool accumulate_x, accumulate_weight, accumulate_bias, accumulate_residual;
  Work work() const { return {10.0 * rows * c, 5.0 * dtype_size(dtype) * rows * c}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(BatchNormBackwardArgs, x),
                      SMELT_IN(BatchNormBackwardArgs, y),
                      SMELT_IN(BatchNormBackwardArgs, weight),
                      SMELT_IN(BatchNormBackwardArgs, mean),
                      SMELT_IN(BatchNormBackwardArgs, rstd),
                      SMELT_IN(BatchNormBackwardArgs, dy),
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

// ----------------------------------------------------------------------------------------------- softmax and losses

struct SoftmaxArgs {
  SMELT_SLOT(SoftmaxArgs, "softmax");
  const void* x;  // (rows, n)
  void* y;        // (rows, n)
  int64_t rows, n;
  DType dtype;
  bool log;
  Work work() const { return {5.0 * rows * n, 2.0 * dtype_size(dtype) * rows * n}; }
  static constexpr auto buffers() { return std::array{SMELT_IN(SoftmaxArgs, x), SMELT_OUT(SoftmaxArgs, y)}; }
};

struct SoftmaxBackwardArgs {
  SMELT_SLOT(SoftmaxBackwardArgs, "softmax_backward");
  const void* y;   // (rows, n)
  const void* dy;  // (rows, n)
  void* dx;        // (rows, n)
  int64_t rows, n;
  DType dtype;
  bool log;
  bool accumulate;
  Work work() const { return {4.0 * rows * n, 3.0 * dtype_size(dtype) * rows * n}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(SoftmaxBackwardArgs, y), SMELT_IN(SoftmaxBackwardArgs, dy),
                      SMELT_GRAD(SoftmaxBackwardArgs, dx, accumulate)};
  }
};

enum class Reduction : uint8_t { none, mean, sum };

struct CrossEntropyArgs {
  SMELT_SLOT(CrossEntropyArgs, "cross_entropy");
  const void* logits;     // (rows, classes)
  const int64_t* labels;  // (rows), in [0, classes) or ignore_index
  const void* weight;     // (classes) or null; like all results float32 where the logits are halves
  void* loss;             // (rows) for Reduction::none, else (1)
  void* lse;              // (rows, 2) out: the largest logit, and log of the sum of exp(logit - largest)
  void* total_weight;     // (1) out: the divisor of Reduction::mean
  int64_t rows, classes, ignore_index;
  double label_smoothing;
  DType dtype;  // of the logits
  Reduction reduction;
  Work work() const { return {5.0 * rows * classes, 1.0 * dtype_size(dtype) * rows * classes}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(CrossEntropyArgs, logits), SMELT_IN(CrossEntropyArgs, labels),
                      SMELT_IN(CrossEntropyArgs, weight), SMELT_OUT(CrossEntropyArgs, loss),
                      SMELT_OUT(CrossEntropyArgs, lse),   SMELT_OUT(CrossEntropyArgs, total_weight)};
  }
};

struct CrossEntropyBackwardArgs {
  SMELT_SLOT(CrossEntropyBackwardArgs, "cross_entropy_backward");
  const void* logits;        // (rows, classes)
  const int64_t* labels;     // (rows)
  const void* weight;        // (classes) or null
  const void* lse;           // (rows, 2)
  const void* total_weight;  // (1)
  const void* dloss;         // (rows) for Reduction::none, else (1)
  void* dlogits;             // (rows, classes)
  int64_t rows, classes, ignore_index;
  double label_smoothing;
  DType dtype;  // of the logits
  Reduction reduction;
  bool accumulate;
  Work work() const { return {5.0 * rows * classes, 2.0 * dtype_size(dtype) * rows * classes}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(CrossEntropyBackwardArgs, logits),
                      SMELT_IN(CrossEntropyBackwardArgs, labels),
                      SMELT_IN(CrossEntropyBackwardArgs, weight),
                      SMELT_IN(CrossEntropyBackwardArgs, lse),
                      SMELT_IN(CrossEntropyBackwardArgs, total_weight),
                      SMELT_IN(CrossEntropyBackwardArgs, dloss),
                      SMELT_GRAD(CrossEntropyBackwardArgs, dlogits, accumulate)};
  }
};

enum class LossOp : uint8_t { mse, l1, huber, bce_with_logits };

struct LossArgs {
  SMELT_SLOT(LossArgs, "loss");
  const void* x;           // (n) predictions or logits
  const void* target;      // (n)
  const void* pos_weight;  // (period) weight of the positive term, bce_with_logits only, or null
  void* loss;              // (n) for Reduction::none, else (1)
  int64_t n, period;
  double delta;  // huber
  DType dtype;
  LossOp op;
  Reduction reduction;
  Work work() const { return {4.0 * n, 2.0 * dtype_size(dtype) * n}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(LossArgs, x), SMELT_IN(LossArgs, target), SMELT_IN(LossArgs, pos_weight),
                      SMELT_OUT(LossArgs, loss)};
  }
};

struct LossBackwardArgs {
  SMELT_SLOT(LossBackwardArgs, "loss_backward");
  const void* x;           // (n)
  const void* target;      // (n)
  const void* pos_weight;  // (period) or null
  const void* dloss;       // (n) for Reduction::none, else (1)
  void* dx;                // (n)
  int64_t n, period;
  double delta;
  double sign;  // -1 for the gradient of the target, where that is the negative (mse, l1, huber)
  DType dtype;
  LossOp op;
  Reduction reduction;
  bool accumulate;
  Work work() const { return {4.0 * n, 3.0 * dtype_size(dtype) * n}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(LossBackwardArgs, x), SMELT_IN(LossBackwardArgs, target),
                      SMELT_IN(LossBackwardArgs, pos_weight), SMELT_IN(LossBackwardArgs, dloss),
                      SMELT_GRAD(LossBackwardArgs, dx, accumulate)};
  }
};

// ---------------------------------------------------------------------------------------------------------- random

enum class RandomKind : uint8_t { uniform, normal, integers, bits };

struct RandomArgs {
  SMELT_SLOT(RandomArgs, "random");
  const GeneratorState* generator;  // (1)
  void* y;                          // (n): floating for uniform [a, b) and normal (mean a, std b), int64 for integers
                                    // [a, b), uint32 stored as int64 for bits
  int64_t n;
  uint64_t counter;  // this call's constant, added to the generator's offset
  Scalar a, b;
  DType dtype;
  RandomKind kind;
  Work work() const { return {0, 1.0 * n * dtype_size(dtype)}; }
  double ns() const { return 2.0 * n; }
  static constexpr auto buffers() {
    return std::array{SMELT_KEPT_IN(RandomArgs, generator), SMELT_OUT(RandomArgs, y)};
  }
};

// Forward and backward alike: the mask is drawn again from the same counters.
struct DropoutArgs {
  SMELT_SLOT(DropoutArgs, "dropout");
  const GeneratorState* generator;  // (1)
  const void* x;                    // (n) input, or dy
  void* y;                          // (n) output, or dx
  int64_t n;
  uint64_t counter;
  double p;  // probability of a zero, in [0, 1)
  DType dtype;
  bool accumulate;
  Work work() const { return {1.0 * n, 2.0 * n * dtype_size(dtype)}; }
  static constexpr auto buffers() {
    return std::array{SMELT_KEPT_IN(DropoutArgs, generator), SMELT_IN(DropoutArgs, x),
                      SMELT_GRAD(DropoutArgs, y, accumulate)};
  }
};

// ------------------------------------------------------------------------------------------------------- optimizers

constexpr int kMaxGroups = 60;

// What changes from step to step, in memory of the device, at most 4 KB: kernels read it, so a recorded step needs
// no new arguments. Bias corrections are computed in double on the host.
struct StepBlock {
  struct Group {
    double lr, weight_decay, eps;
    double beta1, beta2;  // SGD: momentum in beta1
    double inverse_bias_correction1, inverse_sqrt_bias_correction2;
    double reserved;
  };
  int64_t step;
  double grad_scale;  // clipping, multiplied into every gradient
  uint64_t skip;      // not 0: this step changes nothing
  Group group[kMaxGroups];
  // What follows is the kernels', from step to step.
  int64_t skipped;  // steps whose norm was not finite
  // The step whose loss was not finite, or that met a fault: nothing changes since then. 0 for none.
  int64_t failed;
  DeviceFault fault;
};
static_assert(sizeof(StepBlock) <= 4096);

// One parameter within a flat buffer.
struct Segment {
  int64_t offset, length;  // in elements; offset is a multiple of 64
  int32_t group;
  int32_t active;  // its gradient is filled
  bool operator==(const Segment&) const = default;
};

struct SumSquaresArgs {  // of the active segments
  SMELT_SLOT(SumSquaresArgs, "sum_squares");
  const void* grad;         // flat
  const Segment* segments;  // (count)
  double* sum;              // (1)
  int64_t count, size;      // segments; elements of the flat buffer
  int64_t active;           // elements of the active segments
  DType dtype;
  Work work() const {
    const double n = static_cast<double>(active);
    return {2 * n, 1.0 * n * dtype_size(dtype)};
  }
  static constexpr auto buffers() {
    return std::array{SMELT_KEPT_IN(SumSquaresArgs, grad), SMELT_KEPT_IN(SumSquaresArgs, segments),
                      BufferField{"sum", offsetof(SumSquaresArgs, sum), Access::out, true, -1}};
  }
};

struct GuardLossArgs {  // a step fails when its loss is not finite or a fault is there, which it takes; skip |= failed
  SMELT_SLOT(GuardLossArgs, "guard_loss");
  const void* loss;  // (1)
  StepBlock* block;  // inout
  DType dtype;
  static constexpr auto buffers() { return std::array{SMELT_IN(GuardLossArgs, loss), SMELT_KEPT_INOUT(GuardLossArgs, block)}; }
};

struct RestoreArgs {  // to = from, where block->failed
  SMELT_SLOT(RestoreArgs, "restore");
  const void* from;        // (bytes)
  void* to;                // (bytes), inout
  const StepBlock* block;
  int64_t bytes;           // a multiple of 16
  static constexpr auto buffers() {
    return std::array{SMELT_IN(RestoreArgs, from), SMELT_KEPT_INOUT(RestoreArgs, to), SMELT_KEPT_IN(RestoreArgs, block)};
  }
};

struct ClipScaleArgs {  // grad_scale = min(1, max_norm / sqrt(sums)); skip |= the norm is not finite
  SMELT_SLOT(ClipScaleArgs, "clip_scale");
  const double* sums;  // (count)
  double* norm;        // (1) out
  StepBlock* block;    // inout
  int64_t count;
  double max_norm;
  static constexpr auto buffers() {
    return std::array{SMELT_KEPT_IN(ClipScaleArgs, sums),
                      BufferField{"norm", offsetof(ClipScaleArgs, norm), Access::out, true, -1},
                      SMELT_KEPT_INOUT(ClipScaleArgs, block)};
  }
};

struct SgdArgs {
  SMELT_SLOT(SgdArgs, "sgd");
  void* param;              // flat, inout
  const void* grad;         // flat
  void* momentum;           // flat, inout, or null
  void* mirror;             // flat bfloat16 copy of float32 param, written with it, or null
  const Segment* segments;  // (count)
  const StepBlock* block;
  int64_t count, size;      // segments; elements of the flat buffers
  int64_t active;           // elements of the active segments
  DType dtype;
  bool nesterov;
  Work work() const {
    const double n = static_cast<double>(active);
    return {4 * n, n * ((momentum ? 5.0 : 3.0) * dtype_size(dtype) + (mirror ? 2 : 0))};
  }
  static constexpr auto buffers() {
    return std::array{SMELT_KEPT_INOUT(SgdArgs, param), SMELT_KEPT_IN(SgdArgs, grad),
                      SMELT_KEPT_INOUT(SgdArgs, momentum), SMELT_KEPT_INOUT(SgdArgs, mirror),
                      SMELT_KEPT_IN(SgdArgs, segments),
                      SMELT_KEPT_IN(SgdArgs, block)};
  }
};

struct AdamArgs {
  SMELT_SLOT(AdamArgs, "adam");
  void* param;              // flat, inout
  const void* grad;         // flat
  void* exp_avg;            // flat, inout
  void* exp_avg_sq;         // flat, inout
  void* mirror;             // flat bfloat16 copy of float32 param, written with it, or null
  const Segment* segments;  // (count)
  const StepBlock* block;
  int64_t count, size;      // segments; elements of the flat buffers
  int64_t active;           // elements of the active segments
  DType dtype;
  bool decoupled;  // AdamW: decay the weight itself, else add it to the gradient
  Work work() const {
    const double n = static_cast<double>(active);
    return {12 * n, n * (7.0 * dtype_size(dtype) + (mirror ? 2 : 0))};
  }
  static constexpr auto buffers() {
    return std::array{SMELT_KEPT_INOUT(AdamArgs, param),      SMELT_KEPT_IN(AdamArgs, grad),
                      SMELT_KEPT_INOUT(AdamArgs, exp_avg),    SMELT_KEPT_INOUT(AdamArgs, exp_avg_sq),
                      SMELT_KEPT_INOUT(AdamArgs, mirror),     SMELT_KEPT_IN(AdamArgs, segments),
                      SMELT_KEPT_IN(AdamArgs, block)};
  }
};

// ----------------------------------------------------------------------------------------------------------- probes

enum class ProbeKind : uint8_t { fma, fma_bf16, read, write, copy, update, copy_cached };  // names: smelt.kernels.probe

// What the machine can do at best, for benchmarks: every thread works on its own share.
struct ProbeArgs {
  SMELT_SLOT(ProbeArgs, "probe");
  float* memory;  // (n), inout
  double* done;   // (1) out: floating-point operations, or bytes moved
  int64_t n;
  int64_t rounds;
  ProbeKind kind;
  static constexpr auto buffers() {
    return std::array{BufferField{"memory", offsetof(ProbeArgs, memory), Access::inout, false, -1},
                      SMELT_OUT(ProbeArgs, done)};
  }
};

// -------------------------------------------------------------------------------------------------------- the slots

using Slots =
    std::tuple<FillArgs, ArangeArgs, CastArgs, CopyArgs, UnaryArgs, UnaryBackwardArgs, BinaryArgs, WhereArgs,
               ReduceArgs, CumsumArgs, SortArgs, CheckIndexArgs, TakeArgs, PutArgs, GatherArgs, ScatterAddArgs,
               NonzeroArgs, GemmArgs, Conv2dArgs, Conv2dBackwardInputArgs, Conv2dBackwardWeightArgs, Pool2dArgs,
               Pool2dBackwardArgs, BatchNormArgs, BatchNormBackwardArgs, LayerNormArgs, LayerNormBackwardArgs,
               RmsNormArgs, RmsNormBackwardArgs, GroupNormArgs, GroupNormBackwardArgs, AttentionArgs,
               AttentionBackwardArgs,
               SoftmaxArgs, SoftmaxBackwardArgs, CrossEntropyArgs, CrossEntropyBackwardArgs, LossArgs,
               LossBackwardArgs, RandomArgs, DropoutArgs, SumSquaresArgs, GuardLossArgs, RestoreArgs, ClipScaleArgs, SgdArgs,
               AdamArgs, ProbeArgs>;
constexpr int kSlotCount = std::tuple_size_v<Slots>;

template <class A, class... All>
constexpr int place_among(const std::tuple<All...>*) {
  int place = 0;
  bool found = false;
  ((found = found || std::is_same_v<A, All>, place += !found), ...);
  return place;
}

// The number of an argument struct's slot.
template <class Args>
constexpr int slot_of = place_among<Args>(static_cast<const Slots*>(nullptr));

}  // namespace smelt
