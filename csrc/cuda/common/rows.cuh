// Kernels that have a row for each group of threads: a warp where rows are short, else a block.
#pragma once
#include "cuda/common/warp.cuh"

namespace smelt {
namespace {

template <class T>
struct Number {
  T v;
  SMELT_WORD Number from_lane(int distance) const { return {cuda::shuffle_xor(v, distance)}; }
};

// The threads of one row, kLanes of them: 32, or all of the block.
template <int kLanes>
struct RowThreads {
  static constexpr int kRows = kThreads / kLanes;
  static constexpr int kWarps = kThreads / 32;
  SMELT_WORD static int64_t row() { return static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.x / kLanes; }
  SMELT_WORD static int first() { return static_cast<int>(threadIdx.x) % kLanes; }

  // What merge makes of all values of the row, in each of its threads. `shared` has kWarps elements.
  template <class T, class Merge>
  SMELT_WORD static T all(T value, T* shared, const Merge& merge) {
    const auto both = [&](Number<T> a, Number<T> b) { return Number<T>{merge(a.v, b.v)}; };
    value = merge_warp(Number<T>{value}, both).v;
    if constexpr (kLanes > 32) {
      if (cuda::lane() == 0) shared[threadIdx.x / 32] = value;
      cuda::sync_threads();
      value = shared[0];
      for (int i = 1; i < kWarps; ++i) value = merge(value, shared[i]);
      cuda::sync_threads();  // before the next use
    }
    return value;
  }
  template <class T>
  SMELT_WORD static T sum(T value, T* shared) {
    return all(value, shared, [](T a, T b) { return a + b; });
  }
  // NaN when there is one.
  template <class T>
  SMELT_WORD static T largest(T value, T* shared) {
    return all(value, shared, [](T a, T b) { return a != a || a > b ? a : b; });
  }
};

// The sum of what blocks left behind, by one block; `shared` has RowThreads<kThreads>::kWarps elements.
SMELT_WORD double sum_parts(const double* parts, int64_t n, double* shared) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) sum += parts[i];
  return RowThreads<kThreads>::sum(sum, shared);
}

constexpr int64_t kShortRow = 1024;  // elements

// Launches short or long, kernels for rows of n elements.
template <class Args, class... More>
Status launch_rows(const Context& context, void (*for_short)(Args, More...), void (*for_long)(Args, More...), int64_t rows, int64_t n,
                   const Args& args, More... more) {
  if (rows == 0) return Status::ok;
  const bool is_short = n <= kShortRow;
  return cuda::launch(context, is_short ? for_short : for_long, cuda::blocks_for(rows, is_short ? kThreads / 32 : 1),
                      cuda::size3(kThreads), 0, args, more...);
}

}  // namespace
}  // namespace smelt
