// Reading and writing by index. An index that is out of range is found by check_index, whose word reaches the host only when
// that waits for the device next: until then the kernels here leave such an index alone.
#include "cuda/common/sort.cuh"
#include "cuda/common/warp.cuh"

namespace smelt {
namespace {

SMELT_WORD bool valid(int64_t index, int64_t n) { return index >= 0 && index < n; }

// -------------------------------------------------------------------------------------------------------- check_index

// Positions of wrong indices, the first of each block; INT64_MAX where there is none.
struct First {
  int64_t position;
  SMELT_WORD First from_lane(int distance) const { return {cuda::shuffle_xor(position, distance)}; }
};
constexpr int64_t kNone = INT64_MAX;
constexpr int64_t kCheckBlocks = 128;

SMELT_WORD int64_t index_at(const CheckIndexArgs& a, int64_t i) {
  if (a.dtype == DType::uint8) return static_cast<const uint8_t*>(a.index)[i];
  return a.dtype == DType::int64 ? static_cast<const int64_t*>(a.index)[i] : static_cast<const int32_t*>(a.index)[i];
}
SMELT_WORD First smaller(First a, First b) { return a.position < b.position ? a : b; }

__global__ void find_wrong(CheckIndexArgs a, int64_t* first_of_block) {
  SMELT_SHARED(First, warps, kThreads / 32);
  First first{kNone};
  for (int64_t i = grid_thread(); i < a.n; i += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int64_t v = index_at(a, i);
    if ((v < a.low || v >= a.high) && v != a.ignore && first.position == kNone) first.position = i;
  }
  first = merge_warp(first, smaller);
  first = merge_warps(first, warps, smaller);
  if (threadIdx.x == 0) first_of_block[blockIdx.x] = first.position;
}
__global__ void report_wrong(CheckIndexArgs a, const int64_t* first_of_block, int blocks, DeviceFault* fault) {
  if (threadIdx.x != 0 || fault->ticket != 0) return;  // the first fault stands
  int64_t first = kNone;
  for (int i = 0; i < blocks; ++i) first = min_of(first, first_of_block[i]);
  if (first == kNone) return;
  fault->position = first;
  fault->value = index_at(a, first);
  cuda::fence_system();  // the host may look at any time
  fault->ticket = a.ticket;
}

size_t check_workspace(const CheckIndexArgs&) { return kCheckBlocks * sizeof(int64_t); }

Status check_index(const CheckIndexArgs& a, Context& context) noexcept {
  if (a.n == 0) return Status::ok;
  const int64_t blocks = min_of(ceil_div(a.n, int64_t{kThreads}), kCheckBlocks);
  auto* first = static_cast<int64_t*>(context.workspace);
  const Status status = cuda::launch(context, find_wrong, cuda::size3(blocks), cuda::size3(kThreads), 0, a, first);
  if (status != Status::ok) return status;
  return cuda::launch(context, report_wrong, cuda::size3(1), cuda::size3(32), 0, a, first, blocks, context.fault);
}

// ------------------------------------------------------------------------------------------------------- take, gather

template <class T>
__global__ void take_kernel(TakeArgs a) {
  const int64_t i = grid_thread();
  if (i >= a.outer * a.m * a.inner) return;
  const int64_t row = i / a.inner, index = a.index[row % a.m];
  static_cast<T*>(a.y)[i] = valid(index, a.n) ? static_cast<const T*>(a.x)[(row / a.m * a.n + index) * a.inner + i % a.inner] : T{0};
}
Status take(const TakeArgs& a, Context& context) noexcept {
  const int64_t n = a.outer * a.m * a.inner;
  if (n == 0) return Status::ok;
  return with_bits(a.dtype, [&]<class T>(T) {
    return cuda::launch(context, take_kernel<T>, cuda::blocks_for(n, kThreads), cuda::size3(kThreads), 0, a);
  });
}

template <class T>
__global__ void gather_kernel(GatherArgs a) {
  const int64_t i = grid_thread();
  if (i >= a.outer * a.m * a.inner) return;
  const int64_t index = a.index[i], o = i / a.inner / a.m;
  static_cast<T*>(a.y)[i] = valid(index, a.n) ? static_cast<const T*>(a.x)[(o * a.n + index) * a.inner + i % a.inner] : T{0};
}
Status gather(const GatherArgs& a, Context& context) noexcept {
  const int64_t n = a.outer * a.m * a.inner;
  if (n == 0) return Status::ok;
  return with_bits(a.dtype, [&]<class T>(T) {
    return cuda::launch(context, gather_kernel<T>, cuda::blocks_for(n, kThreads), cuda::size3(kThreads), 0, a);
  });
}

// -------------------------------------------------------------------------------------------------- put, scatter_add

// The positions j are sorted by where they go, and the thread of the first of each destination goes through them in order.
template <class S, bool assign>
__global__ void put_kernel(PutArgs a, const Keyed<int64_t>* sorted) {
  const int64_t i = grid_thread();
  if (i >= a.m * a.inner) return;
  const int64_t at = i / a.inner, column = i % a.inner, index = sorted[at].key;
  if (!valid(index, a.n) || index == a.skip || (at > 0 && sorted[at - 1].key == index)) return;
  for (int64_t o = blockIdx.y; o < a.outer; o += gridDim.y) {
    const S* dy = static_cast<const S*>(a.dy) + o * a.m * a.inner + column;
    S* const dx = static_cast<S*>(a.dx) + (o * a.n + index) * a.inner + column;
    if constexpr (assign) {
      int64_t last = at;
      while (last + 1 < a.m && sorted[last + 1].key == index) ++last;
      *dx = dy[sorted[last].index * a.inner];
    } else {
      Compute<S> sum = 0;  // what dx holds is added at the end, as on the CPU
      for (int64_t j = at; j < a.m && sorted[j].key == index; ++j) sum += from_storage(dy[sorted[j].index * a.inner]);
      *dx = to_storage<S>(a.accumulate ? from_storage(*dx) + sum : sum);
    }
  }
}

template <class S>
__global__ void zero_kernel(S* dx, int64_t n) {
  const int64_t i = grid_thread();
  if (i < n) dx[i] = S{};
}

size_t put_workspace(const PutArgs& a) { return sort_bytes<int64_t>(a.m); }

Status put(const PutArgs& a, Context& context) noexcept {
  const int64_t size = a.outer * a.n * a.inner;
  if (!a.accumulate && size > 0) {
    const Status zeroed = with_bits(a.dtype, [&]<class T>(T) {
      return cuda::launch(context, zero_kernel<T>, cuda::blocks_for(size, kThreads), cuda::size3(kThreads), 0, static_cast<T*>(a.dx), size);
    });
    if (zeroed != Status::ok) return zeroed;
  }
  if (a.outer * a.m * a.inner == 0) return Status::ok;
  const Keyed<int64_t>* sorted;
  const Status status = sort_rows(context, a.index, 1, a.m, false, context.workspace, &sorted);
  if (status != Status::ok) return status;
  dim3 grid = cuda::blocks_for(a.m * a.inner, kThreads);
  grid.y = static_cast<unsigned>(min_of(a.outer, int64_t{65535}));
  const dim3 threads = cuda::size3(kThreads);
  if (a.assign) return with_bits(a.dtype, [&]<class T>(T) { return cuda::launch(context, put_kernel<T, true>, grid, threads, 0, a, sorted); });
  return with_floating(a.dtype, [&]<class S>(S) { return cuda::launch(context, put_kernel<S, false>, grid, threads, 0, a, sorted); });
}

// A thread for each column of each outer slice, in the order of j.
template <class S>
__global__ void scatter_add_kernel(ScatterAddArgs a) {
  const int64_t i = grid_thread();
  if (i >= a.outer * a.inner) return;
  const int64_t o = i / a.inner, column = i % a.inner;
  for (int64_t j = 0; j < a.m; ++j) {
    const int64_t at = (o * a.m + j) * a.inner + column, index = a.index[at];
    if (!valid(index, a.n)) continue;
    S& to = static_cast<S*>(a.y)[(o * a.n + index) * a.inner + column];
    const S x = static_cast<const S*>(a.x)[at];
    if constexpr (is_real<S> || sizeof(S) == 2)
      to = to_storage<S>(from_storage(to) + from_storage(x));
    else
      to = static_cast<S>(to + x);
  }
}
Status scatter_add(const ScatterAddArgs& a, Context& context) noexcept {
  const int64_t n = a.outer * a.inner;
  if (n * a.m == 0) return Status::ok;
  const auto run = [&]<class S>(S) {
    return cuda::launch(context, scatter_add_kernel<S>, cuda::blocks_for(n, kThreads), cuda::size3(kThreads), 0, a);
  };
  return is_floating(a.dtype) ? with_floating(a.dtype, run) : with_integer(a.dtype, run);
}

// ------------------------------------------------------------------------------------------------------------ nonzero

// One block, tile by tile: how many are true before each, from ballots.
__global__ void nonzero_kernel(NonzeroArgs a) {
  SMELT_SHARED(int, counts, kThreads / 32);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  int64_t before = 0;
  for (int64_t tile = 0; tile < a.n; tile += kThreads) {
    const int64_t i = tile + threadIdx.x;
    const bool on = i < a.n && static_cast<const bool*>(a.x)[i];
    const unsigned votes = cuda::ballot(on);
    if (cuda::lane() == 0) counts[warp] = cuda::count_bits(votes);
    cuda::sync_threads();
    int64_t at = before + cuda::count_bits(votes & ((1u << cuda::lane()) - 1));
    for (int w = 0; w < kThreads / 32; ++w) {
      if (w < warp) at += counts[w];
      before += counts[w];
    }
    if (on) a.index[at] = i;
    cuda::sync_threads();
  }
  if (threadIdx.x == 0) *a.count = before;
}
Status nonzero(const NonzeroArgs& a, Context& context) noexcept {
  return cuda::launch(context, nonzero_kernel, cuda::size3(1), cuda::size3(kThreads), 0, a);
}

}  // namespace

void cuda::register_index(const Taker& taker) {
  add_kernel<CheckIndexArgs, check_index, nullptr, check_workspace>(taker, "sm80_check_index");
  add_kernel<TakeArgs, take>(taker, "sm80_take");
  add_kernel<PutArgs, put, nullptr, put_workspace>(taker, "sm80_put");
  add_kernel<GatherArgs, gather>(taker, "sm80_gather");
  add_kernel<ScatterAddArgs, scatter_add>(taker, "sm80_scatter_add");
  add_kernel<NonzeroArgs, nonzero>(taker, "sm80_nonzero");
}

}  // namespace smelt
