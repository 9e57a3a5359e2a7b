// Reductions, scans, sorting and indexing.
#pragma once
#include "core/slots/slot.h"

namespace smelt {

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

}  // namespace smelt
