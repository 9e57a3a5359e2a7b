// Max and average pooling over channels-last images: neighbouring threads have neighbouring channels.
#include "cuda/common/kernel.cuh"
#include "formulas/pool.inl.h"

namespace smelt {
namespace {

template <class S>
__global__ void pool2d_kernel(Pool2dArgs a) {
  using T = Compute<S>;
  const PoolShape& s = a.shape;
  const int64_t at = grid_thread();
  if (at >= s.n * s.p * s.q * s.c) return;
  const int64_t channel = at % s.c, out = at / s.c, n = out / s.q / s.p;
  const Window w = window(s, out / s.q % s.p, out % s.q);
  const S* const image = static_cast<const S*>(a.x) + n * s.h * s.w * s.c + channel;
  S* const y = static_cast<S*>(a.y) + at;
  if (!a.max) {
    T sum = 0;
    for (int64_t h = w.y0; h < w.y1; ++h)
      for (int64_t x = w.x0; x < w.x1; ++x) sum += from_storage(image[(h * s.w + x) * s.c]);
    *y = to_storage<S>(sum * (T{1} / static_cast<T>(divisor_of(w, a.count_include_pad))));
    return;
  }
  // The first of the largest; a NaN beats everything, the first one stays.
  int64_t where = 0;
  S best = image[(w.y0 * s.w + w.x0) * s.c];
  for (int64_t h = w.y0; h < w.y1; ++h)
    for (int64_t x = w.x0; x < w.x1; ++x) {
      const S v_stored = image[(h * s.w + x) * s.c];
      const T v = from_storage(v_stored), b = from_storage(best);
      if (!(v > b || (v != v && b == b))) continue;
      best = v_stored;
      where = place_of(w, h, x);
    }
  *y = best;
  if (a.index && a.index_dtype == DType::uint8) static_cast<uint8_t*>(a.index)[at] = static_cast<uint8_t>(where);
  if (a.index && a.index_dtype == DType::int32) static_cast<int32_t*>(a.index)[at] = static_cast<int32_t>(where);
}

Status pool2d(const Pool2dArgs& a, Context& context) noexcept {
  const int64_t n = a.shape.n * a.shape.p * a.shape.q * a.shape.c;
  if (n == 0) return Status::ok;
  return with_floating(a.dtype, [&]<class S>(S) {
    return cuda::launch(context, pool2d_kernel<S>, cuda::blocks_for(n, kThreads), cuda::size3(kThreads), 0, a);
  });
}

// Each pixel adds what comes back from its windows, in their order.
template <class S>
__global__ void pool2d_backward_kernel(Pool2dBackwardArgs a) {
  using T = Compute<S>;
  const PoolShape& s = a.shape;
  const int64_t at = grid_thread();
  if (at >= s.n * s.h * s.w * s.c) return;
  const int64_t channel = at % s.c, pixel = at / s.c % (s.h * s.w), n = at / s.c / (s.h * s.w);
  int64_t p0, p1, q0, q1;
  covering(s, 0, pixel / s.w, s.h, s.p, &p0, &p1);
  covering(s, 1, pixel % s.w, s.w, s.q, &q0, &q1);
  T sum = 0;
  for (int64_t p = p0; p <= p1; ++p)
    for (int64_t q = q0; q <= q1; ++q) {
      const int64_t out = ((n * s.p + p) * s.q + q) * s.c + channel;
      const T g = from_storage(static_cast<const S*>(a.dy)[out]);
      const Window w = window(s, p, q);
      if (!a.max) {
        sum = std::fma(g, T{1} / static_cast<T>(divisor_of(w, a.count_include_pad)), sum);
        continue;
      }
      const int64_t where = a.index_dtype == DType::uint8 ? static_cast<const uint8_t*>(a.index)[out]
                                                          : static_cast<const int32_t*>(a.index)[out];
      if (where == place_of(w, pixel / s.w, pixel % s.w)) sum += g;
    }
  S* const dx = static_cast<S*>(a.dx) + at;
  *dx = to_storage<S>(a.accumulate ? from_storage(*dx) + sum : sum);
}

Status pool2d_backward(const Pool2dBackwardArgs& a, Context& context) noexcept {
  const int64_t n = a.shape.n * a.shape.h * a.shape.w * a.shape.c;
  if (n == 0) return Status::ok;
  return with_floating(a.dtype, [&]<class S>(S) {
    return cuda::launch(context, pool2d_backward_kernel<S>, cuda::blocks_for(n, kThreads), cuda::size3(kThreads), 0, a);
  });
}

}  // namespace

void cuda::register_pool(const Taker& taker) {
  add_kernel<Pool2dArgs, pool2d, floating_only>(taker, "sm80_pool2d");
  add_kernel<Pool2dBackwardArgs, pool2d_backward, floating_only>(taker, "sm80_pool2d_backward");
}

}  // namespace smelt
