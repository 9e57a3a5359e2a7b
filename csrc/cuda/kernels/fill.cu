// Filling, converting and moving elements.
#include "cuda/common/walk.cuh"
#include "formulas/convert.inl.h"

namespace smelt {
namespace {

// ------------------------------------------------------------------------------------------------------ fill, arange

template <class T, int W>
__global__ void fill_kernel(T* y, int64_t n, T value) {
  const int64_t i = grid_thread() * W;
  if (i + W <= n) {
    Pack<T, W> pack;
    for (int j = 0; j < W; ++j) pack.e[j] = value;
    store_pack(y + i, pack);
  } else {
    for (int64_t j = i; j < n; ++j) y[j] = value;
  }
}

Status fill(const FillArgs& a, Context& context) noexcept {
  if (a.n == 0) return Status::ok;
  const uint64_t bits = scalar_bits(a.value, a.dtype);
  return with_bits(a.dtype, [&]<class T>(T) {
    constexpr int W = 16 / sizeof(T);
    if (!aligned16(a.y))
      return cuda::launch(context, fill_kernel<T, 1>, cuda::blocks_for(a.n, kThreads), cuda::size3(kThreads), 0,
                          static_cast<T*>(a.y), a.n, static_cast<T>(bits));
    return cuda::launch(context, fill_kernel<T, W>, cuda::blocks_for(ceil_div(a.n, W), kThreads), cuda::size3(kThreads), 0,
                        static_cast<T*>(a.y), a.n, static_cast<T>(bits));
  });
}

template <class T>
__global__ void arange_kernel(ArangeArgs a) {
  const int64_t i = grid_thread();
  if (i >= a.n) return;
  if constexpr (__is_same(T, int64_t) || __is_same(T, int32_t) || __is_same(T, uint8_t))
    static_cast<T*>(a.y)[i] = static_cast<T>(a.start.i + i * a.step.i);
  else
    static_cast<T*>(a.y)[i] = to_storage<T>(static_cast<Compute<T>>(a.start.f + static_cast<double>(i) * a.step.f));
}

Status arange(const ArangeArgs& a, Context& context) noexcept {
  if (a.n == 0) return Status::ok;
  const auto run = [&]<class T>(T) {
    return cuda::launch(context, arange_kernel<T>, cuda::blocks_for(a.n, kThreads), cuda::size3(kThreads), 0, a);
  };
  return is_floating(a.dtype) ? with_floating(a.dtype, run) : with_integer(a.dtype, run);
}

// -------------------------------------------------------------------------------------------------------------- cast

// W elements of the larger type fill 16 bytes.
template <class From, class To, int W>
__global__ void cast_kernel(const From* x, To* y, int64_t n, bool accumulate) {
  const int64_t i = grid_thread() * W;
  if (i >= n) return;
  const auto one = [&](From from, To before) {
    if constexpr (is_real<Compute<To>> && !__is_same(To, bool) && (is_real<To> || sizeof(To) == 2)) {
      if (accumulate) {
        if constexpr (__is_same(From, double) || __is_same(To, double))
          return convert<To>(static_cast<double>(from_storage(before)) + static_cast<double>(from_storage(from)));
        else if constexpr (is_real<From> || sizeof(From) == 2)
          return to_storage<To>(from_storage(before) + from_storage(from));
      }
    }
    return convert<To>(from);
  };
  if (i + W <= n) {
    const Pack<From, W> from = load_pack<W>(x + i);
    Pack<To, W> to = {};
    if (accumulate) to = load_pack<W>(static_cast<const To*>(y) + i);
    for (int j = 0; j < W; ++j) to.e[j] = one(from.e[j], to.e[j]);
    store_pack(y + i, to);
  } else {
    for (int64_t j = i; j < n; ++j) y[j] = one(x[j], accumulate ? y[j] : To{});
  }
}

Status cast(const CastArgs& a, Context& context) noexcept {
  if (a.n == 0) return Status::ok;
  return with_element(a.from, [&]<class From>(From) {
    return with_element(a.to, [&]<class To>(To) {
      constexpr int W = 16 / (sizeof(From) > sizeof(To) ? sizeof(From) : sizeof(To));
      const auto* x = static_cast<const From*>(a.x);
      auto* y = static_cast<To*>(a.y);
      if (!aligned16(x) || !aligned16(y))
        return cuda::launch(context, cast_kernel<From, To, 1>, cuda::blocks_for(a.n, kThreads), cuda::size3(kThreads), 0, x, y, a.n,
                            a.accumulate);
      return cuda::launch(context, cast_kernel<From, To, W>, cuda::blocks_for(ceil_div(a.n, W), kThreads), cuda::size3(kThreads), 0,
                          x, y, a.n, a.accumulate);
    });
  });
}

// -------------------------------------------------------------------------------------------------------------- copy

template <class T, int W>
__global__ void copy_kernel(const T* x, T* y, Walk<2> walk) {
  const int64_t i = grid_thread() * W;
  if (i >= walk.n) return;
  int64_t offset[2];
  walk.offsets(i, offset);
  if (i + W <= walk.n)
    store_pack(y + offset[1], load_pack<W>(x + offset[0]));
  else
    for (int64_t j = 0; i + j < walk.n; ++j) y[offset[1] + j] = x[offset[0] + j];
}

template <class T>
__global__ void accumulate_kernel(const T* x, T* y, Walk<2> walk) {
  const int64_t i = grid_thread();
  if (i >= walk.n) return;
  int64_t offset[2];
  walk.offsets(i, offset);
  y[offset[1]] = to_storage<T>(from_storage(y[offset[1]]) + from_storage(x[offset[0]]));
}

// Swaps the last two axes tile by tile, so that both sides go along memory: x has the step 1 in the axis before the last.
constexpr int kTile = 32, kTileRows = 8;
template <class T>
__global__ void transpose_kernel(const T* x, T* y, int64_t rows, int64_t columns, int64_t x_step, int64_t y_step, int64_t x_slab,
                                 int64_t y_slab) {
  SMELT_SHARED(T, tile, kTile * (kTile + 1));
  const int64_t row0 = static_cast<int64_t>(blockIdx.x) * kTile;
  x += blockIdx.z * x_slab;
  y += blockIdx.z * y_slab;
  for (int64_t column0 = static_cast<int64_t>(blockIdx.y) * kTile; column0 < columns; column0 += static_cast<int64_t>(gridDim.y) * kTile) {
    for (int i = static_cast<int>(threadIdx.y); i < kTile; i += kTileRows) {
      const int64_t row = row0 + threadIdx.x, column = column0 + i;
      if (row < rows && column < columns) tile[i * (kTile + 1) + threadIdx.x] = x[column * x_step + row];
    }
    cuda::sync_threads();
    for (int i = static_cast<int>(threadIdx.y); i < kTile; i += kTileRows) {
      const int64_t row = row0 + i, column = column0 + threadIdx.x;
      if (row < rows && column < columns) y[row * y_step + column] = tile[threadIdx.x * (kTile + 1) + i];
    }
    cuda::sync_threads();
  }
}

template <class T>
Status copy_all(const CopyArgs& a, Context& context) {
  const Walk<2> walk(a.rank, a.shape, {a.x_stride, a.y_stride});
  if (walk.n == 0) return Status::ok;
  const auto* x = static_cast<const T*>(a.x);
  auto* y = static_cast<T*>(a.y);
  const int last = walk.rank - 1;
  const bool one_slab = walk.rank == 2, slabs = walk.rank == 3 && walk.shape[0] <= 65535;
  if ((one_slab || slabs) && walk.stride[0][last - 1] == 1 && walk.stride[1][last] == 1) {
    const int64_t rows = walk.shape[last - 1], columns = walk.shape[last];
    const int64_t across = min_of(ceil_div(columns, kTile), int64_t{65535});
    return cuda::launch(context, transpose_kernel<T>, cuda::size3(ceil_div(rows, kTile), across, slabs ? walk.shape[0] : 1),
                        cuda::size3(kTile, kTileRows), 0, x, y, rows, columns, walk.stride[0][last], walk.stride[1][last - 1],
                        slabs ? walk.stride[0][0] : 0, slabs ? walk.stride[1][0] : 0);
  }
  constexpr int W = 16 / sizeof(T);
  const bool dense = walk.rank > 0 && walk.stride[0][last] == 1 && walk.stride[1][last] == 1;
  if (dense && walk.packs(W) && aligned16(x) && aligned16(y))
    return cuda::launch(context, copy_kernel<T, W>, cuda::blocks_for(ceil_div(walk.n, W), kThreads), cuda::size3(kThreads), 0, x, y,
                        walk);
  return cuda::launch(context, copy_kernel<T, 1>, cuda::blocks_for(walk.n, kThreads), cuda::size3(kThreads), 0, x, y, walk);
}

Status copy(const CopyArgs& a, Context& context) noexcept {
  if (!a.accumulate) return with_bits(a.dtype, [&]<class T>(T) { return copy_all<T>(a, context); });
  return with_floating(a.dtype, [&]<class T>(T) {
    const Walk<2> walk(a.rank, a.shape, {a.x_stride, a.y_stride});
    if (walk.n == 0) return Status::ok;
    return cuda::launch(context, accumulate_kernel<T>, cuda::blocks_for(walk.n, kThreads), cuda::size3(kThreads), 0,
                        static_cast<const T*>(a.x), static_cast<T*>(a.y), walk);
  });
}

}  // namespace

void cuda::register_fill(const Taker& taker) {
  add_kernel<FillArgs, fill>(taker, "sm80_fill");
  add_kernel<ArangeArgs, arange>(taker, "sm80_arange");
  add_kernel<CastArgs, cast>(taker, "sm80_cast");
  add_kernel<CopyArgs, copy>(taker, "sm80_copy");
}

}  // namespace smelt
