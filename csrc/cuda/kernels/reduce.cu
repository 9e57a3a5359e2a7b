// Reductions, scans and sorting. The reduced axis is cut by shape alone and the parts are combined in order.
#include "cuda/common/rows.cuh"
#include "cuda/common/sort.cuh"

namespace smelt {
namespace {

constexpr int64_t kChunkElements = 16384;  // of a row: one block's
constexpr int64_t kChunkRows = 1024;       // of columns
constexpr int kColumnThreads = 32, kRowThreads = 8;

// ---------------------------------------------------------------------------------------------------- accumulators

// One number: T is float, double or int64_t.
template <class T>
struct Plain {
  T v;
  SMELT_WORD static Plain identity(ReduceOp op) {
    if (op == ReduceOp::prod || op == ReduceOp::all) return {T{1}};
    if (op == ReduceOp::max) return {is_real<T> ? static_cast<T>(-HUGE_VAL) : static_cast<T>(INT64_MIN)};
    if (op == ReduceOp::min) return {is_real<T> ? static_cast<T>(HUGE_VAL) : static_cast<T>(INT64_MAX)};
    return {T{0}};
  }
  SMELT_WORD static Plain of(T x, int64_t) { return {x}; }
  SMELT_WORD static Plain merge(ReduceOp op, Plain a, Plain b) {
    switch (op) {
      case ReduceOp::sum:
        if constexpr (is_real<T>) return {a.v + b.v};
        return {static_cast<T>(static_cast<uint64_t>(a.v) + static_cast<uint64_t>(b.v))};
      case ReduceOp::prod:
        if constexpr (is_real<T>) return {a.v * b.v};
        return {static_cast<T>(static_cast<uint64_t>(a.v) * static_cast<uint64_t>(b.v))};
      case ReduceOp::max:
      case ReduceOp::any: return {not_a_number(a.v) || a.v > b.v ? a.v : b.v};
      default: return {not_a_number(a.v) || a.v < b.v ? a.v : b.v};
    }
  }
  SMELT_WORD Plain from_lane(int distance) const { return {cuda::shuffle_xor(v, distance)}; }
};

// The first extremum and its position; a NaN beats everything.
template <class T>
struct Extremum {
  T v;
  int64_t index;  // or -1 for none
  SMELT_WORD static Extremum identity(ReduceOp) { return {T{0}, -1}; }
  SMELT_WORD static Extremum of(T x, int64_t i) { return {x, i}; }
  SMELT_WORD static Extremum merge(ReduceOp op, Extremum a, Extremum b) {
    if (a.index < 0) return b;
    if (b.index < 0) return a;
    const bool a_nan = not_a_number(a.v), b_nan = not_a_number(b.v);
    if (a_nan != b_nan) return a_nan ? a : b;
    if (!a_nan && a.v != b.v) return (op == ReduceOp::max) == (a.v > b.v) ? a : b;
    return a.index < b.index ? a : b;
  }
  SMELT_WORD Extremum from_lane(int distance) const {
    return {cuda::shuffle_xor(v, distance), cuda::shuffle_xor(index, distance)};
  }
};

// ----------------------------------------------------------------------------------------------------------- kernels

struct ReduceJob {
  const void* x;
  void* y;
  int64_t* index;
  void* partial;  // (outer, chunks, inner) accumulators, where there are several chunks
  int64_t outer, n, inner, chunks, chunk_size;
  double scale;
  ReduceOp op;
  bool accumulate;
};

template <class Acc, class Y>
SMELT_WORD void finish(const ReduceJob& job, int64_t i, Acc acc) {
  Y* y = static_cast<Y*>(job.y) + i;
  using T = decltype(acc.v);
  if constexpr (is_real<T>) {
    T value = acc.v * static_cast<T>(job.scale);
    if (job.accumulate) value = from_storage(*y) + value;
    *y = to_storage<Y>(value);
  } else {
    *y = static_cast<Y>(acc.v);
  }
  if constexpr (requires { acc.index; }) job.index[i] = acc.index;
}
// What came of one chunk.
template <class Acc, class Y>
SMELT_WORD void give(const ReduceJob& job, int64_t o, int64_t chunk, int64_t column, Acc acc) {
  if (job.chunks == 1)
    finish<Acc, Y>(job, o * job.inner + column, acc);
  else
    static_cast<Acc*>(job.partial)[(o * job.chunks + chunk) * job.inner + column] = acc;
}

// A chunk of a row for each group of kLanes threads: 32, or all of the block.
template <class Acc, class S, class Y, int kLanes, int W>
__global__ void reduce_rows(ReduceJob job) {
  using T = decltype(Acc::v);
  const int64_t part = static_cast<int64_t>(blockIdx.x) * (kThreads / kLanes) + threadIdx.x / kLanes;
  const bool there = part < job.outer * job.chunks;
  const int64_t o = part / job.chunks, chunk = part % job.chunks;
  const int64_t begin = chunk * job.chunk_size, end = min_of(begin + job.chunk_size, job.n);
  const S* x = static_cast<const S*>(job.x) + o * job.n;
  Acc acc = Acc::identity(job.op);
  for (int64_t i = begin + static_cast<int>(threadIdx.x % kLanes) * W; there && i < end; i += kLanes * W) {
    const Pack<S, W> pack = load_pack<W>(x + i);
    for (int j = 0; j < W; ++j) acc = Acc::merge(job.op, acc, Acc::of(static_cast<T>(from_storage(pack.e[j])), i + j));
  }
  acc = merge_warp(acc, [&](Acc a, Acc b) { return Acc::merge(job.op, a, b); });
  if constexpr (kLanes > 32) {
    SMELT_SHARED(Acc, warps, kThreads / 32);
    acc = merge_warps(acc, warps, [&](Acc a, Acc b) { return Acc::merge(job.op, a, b); });
  }
  if (there && threadIdx.x % kLanes == 0) give<Acc, Y>(job, o, chunk, 0, acc);
}

// A chunk of 32 columns for each block.
template <class Acc, class S, class Y>
__global__ void reduce_columns(ReduceJob job) {
  using T = decltype(Acc::v);
  SMELT_SHARED(Acc, rows, kColumnThreads * kRowThreads);
  const int tx = static_cast<int>(threadIdx.x), ty = static_cast<int>(threadIdx.y);
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kColumnThreads + tx, chunk = blockIdx.y;
  const int64_t begin = chunk * job.chunk_size, end = min_of(begin + job.chunk_size, job.n);
  for (int64_t o = blockIdx.z; o < job.outer; o += gridDim.z) {
    Acc acc = Acc::identity(job.op);
    if (column < job.inner) {
      const S* x = static_cast<const S*>(job.x) + o * job.n * job.inner + column;
      for (int64_t r = begin + ty; r < end; r += kRowThreads)
        acc = Acc::merge(job.op, acc, Acc::of(static_cast<T>(from_storage(x[r * job.inner])), r));
    }
    rows[ty * kColumnThreads + tx] = acc;
    cuda::sync_threads();
    if (ty == 0 && column < job.inner) {
      for (int i = 1; i < kRowThreads; ++i) acc = Acc::merge(job.op, acc, rows[i * kColumnThreads + tx]);
      give<Acc, Y>(job, o, chunk, column, acc);
    }
    cuda::sync_threads();
  }
}

template <class Acc, class Y>
__global__ void combine_chunks(ReduceJob job) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= job.outer * job.inner) return;
  const Acc* part = static_cast<const Acc*>(job.partial) + i / job.inner * job.chunks * job.inner + i % job.inner;
  Acc acc = *part;
  for (int64_t chunk = 1; chunk < job.chunks; ++chunk) acc = Acc::merge(job.op, acc, part[chunk * job.inner]);
  finish<Acc, Y>(job, i, acc);
}

// -------------------------------------------------------------------------------------------------------- launching

int64_t chunk_size(const ReduceArgs& a) { return a.inner == 1 ? kChunkElements : kChunkRows; }
int64_t chunk_count(const ReduceArgs& a) { return max_of(int64_t{1}, ceil_div(a.n, chunk_size(a))); }
size_t reduce_workspace(const ReduceArgs& a) {
  const int64_t chunks = chunk_count(a);
  return chunks == 1 ? 0 : static_cast<size_t>(a.outer * chunks * a.inner) * (a.index ? 16 : 8);
}

template <class Acc, class S, class Y>
Status reduce_run(const ReduceArgs& a, Context& context) {
  if (a.outer * a.inner == 0) return Status::ok;
  const ReduceJob job{a.x, a.y, a.index, context.workspace, a.outer, a.n, a.inner, chunk_count(a), chunk_size(a),
                      a.scale, a.op, a.accumulate};
  Status status;
  if (a.inner == 1) {
    constexpr int W = 16 / sizeof(S);
    const bool wide = a.n % W == 0 && aligned16(a.x), short_rows = a.n <= kShortRow;
    const dim3 blocks = cuda::blocks_for(a.outer * job.chunks, short_rows ? kThreads / 32 : 1), threads = cuda::size3(kThreads);
    if (short_rows)
      status = wide ? cuda::launch(context, reduce_rows<Acc, S, Y, 32, W>, blocks, threads, 0, job)
                    : cuda::launch(context, reduce_rows<Acc, S, Y, 32, 1>, blocks, threads, 0, job);
    else
      status = wide ? cuda::launch(context, reduce_rows<Acc, S, Y, kThreads, W>, blocks, threads, 0, job)
                    : cuda::launch(context, reduce_rows<Acc, S, Y, kThreads, 1>, blocks, threads, 0, job);
  } else {
    const dim3 blocks = cuda::size3(ceil_div(a.inner, kColumnThreads), job.chunks, min_of(a.outer, int64_t{65535}));
    status = cuda::launch(context, reduce_columns<Acc, S, Y>, blocks, cuda::size3(kColumnThreads, kRowThreads), 0, job);
  }
  if (status != Status::ok || job.chunks == 1) return status;
  return cuda::launch(context, combine_chunks<Acc, Y>, cuda::blocks_for(a.outer * a.inner, kThreads), cuda::size3(kThreads), 0, job);
}

Status reduce(const ReduceArgs& a, Context& context) noexcept {
  if (is_floating(a.dtype)) {
    if (a.index)
      return with_floating(a.dtype, [&]<class S>(S) { return reduce_run<Extremum<Compute<S>>, S, S>(a, context); });
    return with_sums(a.dtype, a.y_dtype, [&]<class S, class Y>(S, Y) { return reduce_run<Plain<Compute<S>>, S, Y>(a, context); });
  }
  return with_integer(a.dtype, [&]<class S>(S) {
    if (a.index) return reduce_run<Extremum<int64_t>, S, S>(a, context);
    if (a.op == ReduceOp::sum || a.op == ReduceOp::prod) return reduce_run<Plain<int64_t>, S, int64_t>(a, context);
    return reduce_run<Plain<int64_t>, S, S>(a, context);
  });
}
// The number of chunks of columns is a block's second coordinate.
bool reduce_supports(const ReduceArgs& a) { return a.inner == 1 || chunk_count(a) <= 65535; }

// ------------------------------------------------------------------------------------------------------------- cumsum

// Sums run in double; those of integers in uint64_t, which wraps. One row for each block, tile by tile.
template <class S, class Acc>
__global__ void scan_rows(CumsumArgs a) {
  SMELT_SHARED(Acc, warps, kThreads / 32);
  const int64_t row = static_cast<int64_t>(blockIdx.x) * a.n;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  Acc before = 0;
  for (int64_t tile = 0; tile < a.n; tile += kThreads) {
    const int64_t step = tile + threadIdx.x, at = row + (a.reverse ? a.n - 1 - step : step);
    Acc sum = step < a.n ? static_cast<Acc>(from_storage(static_cast<const S*>(a.x)[at])) : Acc{0};
    for (int distance = 1; distance < 32; distance *= 2) {
      const Acc left = cuda::shuffle_up(sum, distance);
      if (cuda::lane() >= distance) sum += left;
    }
    if (cuda::lane() == 31) warps[warp] = sum;
    cuda::sync_threads();
    Acc total = 0;
    for (int w = 0; w < kThreads / 32; ++w) {
      if (w == warp) sum += before + total;
      total += warps[w];
    }
    before += total;
    cuda::sync_threads();
    if (step >= a.n) continue;
    S* y = static_cast<S*>(a.y) + at;
    if constexpr (__is_same(Acc, double))
      *y = to_storage<S>(static_cast<Compute<S>>(a.accumulate ? sum + from_storage(*y) : sum));
    else
      *y = static_cast<S>(sum);
  }
}

// One column for each thread.
template <class S, class Acc>
__global__ void scan_columns(CumsumArgs a) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= a.outer * a.inner) return;
  const int64_t first = i / a.inner * a.n * a.inner + i % a.inner;
  Acc sum = 0;
  for (int64_t step = 0; step < a.n; ++step) {
    const int64_t at = first + (a.reverse ? a.n - 1 - step : step) * a.inner;
    sum += static_cast<Acc>(from_storage(static_cast<const S*>(a.x)[at]));
    S* y = static_cast<S*>(a.y) + at;
    if constexpr (__is_same(Acc, double))
      *y = to_storage<S>(static_cast<Compute<S>>(a.accumulate ? sum + from_storage(*y) : sum));
    else
      *y = static_cast<S>(sum);
  }
}

template <class S, class Acc>
Status cumsum_run(const CumsumArgs& a, Context& context) {
  if (a.outer * a.n * a.inner == 0) return Status::ok;
  if (a.inner == 1) return cuda::launch(context, scan_rows<S, Acc>, cuda::size3(a.outer), cuda::size3(kThreads), 0, a);
  return cuda::launch(context, scan_columns<S, Acc>, cuda::blocks_for(a.outer * a.inner, kThreads), cuda::size3(kThreads), 0, a);
}
Status cumsum(const CumsumArgs& a, Context& context) noexcept {
  if (a.dtype == DType::int64) return cumsum_run<int64_t, uint64_t>(a, context);
  return with_floating(a.dtype, [&]<class S>(S) { return cumsum_run<S, double>(a, context); });
}

// --------------------------------------------------------------------------------------------------------------- sort

template <class S>
__global__ void sort_end(SortArgs a, const Keyed<S>* items) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= a.rows * a.n) return;
  static_cast<S*>(a.y)[i] = items[i].key;
  a.index[i] = items[i].index;
}

size_t sort_workspace(const SortArgs& a) { return sort_bytes<double>(a.rows * a.n); }

Status sort(const SortArgs& a, Context& context) noexcept {
  if (a.rows * a.n == 0) return Status::ok;
  const auto run = [&]<class S>(S) {
    const Keyed<S>* sorted;
    const Status status =
        sort_rows(context, static_cast<const S*>(a.x), a.rows, a.n, a.descending, context.workspace, &sorted);
    if (status != Status::ok) return status;
    return cuda::launch(context, sort_end<S>, cuda::blocks_for(a.rows * a.n, kThreads), cuda::size3(kThreads), 0, a, sorted);
  };
  return is_floating(a.dtype) ? with_floating(a.dtype, run) : with_integer(a.dtype, run);
}

}  // namespace

void cuda::register_reduce(const Taker& taker) {
  add_kernel<ReduceArgs, reduce, reduce_supports, reduce_workspace>(taker, "sm80_reduce");
  add_kernel<CumsumArgs, cumsum>(taker, "sm80_cumsum");
  add_kernel<SortArgs, sort, nullptr, sort_workspace>(taker, "sm80_sort");
}

}  // namespace smelt
