// A stable sort of rows of keys with their positions: merges of runs, each twice as long as the one before.
#pragma once
#include "cuda/common/kernel.cuh"

namespace smelt {
namespace {

template <class T>
SMELT_INLINE bool not_a_number(T x) {
  if constexpr (is_real<T>) return x != x;
  return false;
}

template <class S>
struct Keyed {
  S key;
  int64_t index;
};

// Whether a stands before b; a NaN counts as the largest value.
template <class S>
SMELT_WORD bool before(S a_stored, S b_stored, bool descending) {
  const auto a = from_storage(a_stored), b = from_storage(b_stored);
  if (not_a_number(a) || not_a_number(b))
    return descending ? not_a_number(a) && !not_a_number(b) : !not_a_number(a) && not_a_number(b);
  return descending ? a > b : a < b;
}

template <class S>
__global__ void number_keys(const S* x, int64_t rows, int64_t n, Keyed<S>* items) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < rows * n) items[i] = {x[i], i % n};
}

// An element's place among two runs is its own in its run and how many of the other run stand before it, found by halving.
// Equal elements of the left run stand first.
template <class S>
__global__ void merge_runs(const Keyed<S>* from, Keyed<S>* to, int64_t rows, int64_t n, int64_t width, bool descending) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= rows * n) return;
  const int64_t row = i / n * n, at = i % n, run = at / width, pair = run / 2 * 2 * width;
  const bool is_left = run % 2 == 0;
  const int64_t first = min_of(is_left ? pair + width : pair, n);
  const Keyed<S> item = from[i];
  int64_t low = first, high = min_of(first + width, n);
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    const S key = from[row + middle].key;
    const bool passes = is_left ? before(key, item.key, descending) : !before(item.key, key, descending);
    passes ? void(low = middle + 1) : void(high = middle);
  }
  to[row + pair + at % width + (low - first)] = item;
}

// Room for two copies of all items.
template <class S>
size_t sort_bytes(int64_t items) {
  return static_cast<size_t>(2 * items) * sizeof(Keyed<S>);
}
// Sorts rows of keys in `room`; *sorted is where the result lies there.
template <class S>
Status sort_rows(const Context& context, const S* keys, int64_t rows, int64_t n, bool descending, void* room, const Keyed<S>** sorted) {
  const dim3 blocks = cuda::blocks_for(rows * n, kThreads), threads = cuda::size3(kThreads);
  auto* items = static_cast<Keyed<S>*>(room);
  Keyed<S>* spare = items + rows * n;
  Status status = cuda::launch(context, number_keys<S>, blocks, threads, 0, keys, rows, n, items);
  for (int64_t width = 1; width < n && status == Status::ok; width *= 2) {
    status = cuda::launch(context, merge_runs<S>, blocks, threads, 0, items, spare, rows, n, width, descending);
    Keyed<S>* const merged = spare;
    spare = items;
    items = merged;
  }
  *sorted = items;
  return status;
}

}  // namespace
}  // namespace smelt
