// Max and average pooling over channels-last images: channels are the vector axis.
#include "cpu/kernels/common.inl.h"
#include "cpu/kernels/families.h"
#include "formulas/pool.inl.h"

namespace smelt {
namespace {

// Keeps the larger of best and x and where it was; a NaN beats everything, the first one stays.
template <class S>
void keep_max(const S* __restrict x, S* __restrict best, int32_t* __restrict where, int32_t at, int64_t c) {
  for (int64_t i = 0; i < c; ++i) {
    const auto v = from_storage(x[i]), b = from_storage(best[i]);
    const bool better = (v > b) | ((v != v) & (b == b));
    best[i] = better ? x[i] : best[i];
    where[i] = better ? at : where[i];
  }
}
template <class S>
void keep_max(const S* x, S* best, int64_t c) {
  each_vector<Vec<S>>(c, [&](int64_t i, int lanes) {
    store(best + i, max_nan(load<Vec<S>>(best + i, lanes), load<Vec<S>>(x + i, lanes)), lanes);
  });
}

template <class S>
void pool_max(const PoolShape& s, const S* image, const Window& w, S* y, int32_t* index) {
  const int64_t first = w.y0 * s.w + w.x0;
  for (int64_t i = 0; i < s.c; ++i) y[i] = image[first * s.c + i];
  for (int64_t i = 0; index && i < s.c; ++i) index[i] = static_cast<int32_t>(first);
  for (int64_t h = w.y0; h < w.y1; ++h)
    for (int64_t x = w.x0; x < w.x1; ++x) {
      const int64_t at = h * s.w + x;
      if (index)
        keep_max(image + at * s.c, y, index, static_cast<int32_t>(at), s.c);
      else
        keep_max(image + at * s.c, y, s.c);
    }
}

template <class S>
void pool_average(const PoolShape& s, const S* image, const Window& w, int64_t divisor, S* y) {
  using V = Vec<S>;
  using T = typename V::T;
  constexpr int64_t kChannels = 256;
  const V scale = V::set(T(1) / static_cast<T>(divisor));
  for (int64_t first = 0; first < s.c; first += kChannels) {
    const int64_t count = min_of(s.c - first, kChannels);
    T sum[kChannels] = {};
    for (int64_t h = w.y0; h < w.y1; ++h)
      for (int64_t x = w.x0; x < w.x1; ++x) {
        const S* pixel = image + (h * s.w + x) * s.c + first;
        each_vector<V>(count, [&](int64_t i, int lanes) {
          store(sum + i, load<V>(sum + i, lanes) + load<V>(pixel + i, lanes), lanes);
        });
      }
    each_vector<V>(count, [&](int64_t i, int lanes) { store(y + first + i, load<V>(sum + i, lanes) * scale, lanes); });
  }
}

template <class S>
void forward(const Pool2dArgs& a, Context& context) {
  const PoolShape& s = a.shape;
  parallel_for(context, s.n * s.p, max_of(int64_t{1}, 32768 / max_of(s.q * s.c * 4, int64_t{1})),
               [&](int64_t begin, int64_t end) {
                 for (int64_t row = begin; row < end; ++row) {
                   const S* image = static_cast<const S*>(a.x) + row / s.p * s.h * s.w * s.c;
                   for (int64_t q = 0; q < s.q; ++q) {
                     const Window w = window(s, row % s.p, q);
                     const int64_t at = (row * s.q + q) * s.c;
                     S* y = static_cast<S*>(a.y) + at;
                     if (a.max)
                       pool_max(s, image, w, y, a.index ? a.index + at : nullptr);
                     else
                       pool_average(s, image, w, divisor_of(w, a.count_include_pad), y);
                   }
                 }
               });
}

Status pool2d(const Pool2dArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) { forward<S>(a, context); });
  return Status::ok;
}

// One image after the other: windows may overlap, and their sums keep the order of the windows. Those of halves are kept in
// float32 until the image is finished.
size_t backward_workspace(const Pool2dBackwardArgs& a, int threads) {
  return dtype_size(a.dtype) == 2 ? static_cast<size_t>(threads * a.shape.h * a.shape.w * a.shape.c) * sizeof(float) : 0;
}

template <class S>
void backward(const Pool2dBackwardArgs& a, Context& context) {
  using V = Vec<S>;
  using T = typename V::T;
  const PoolShape& s = a.shape;
  const int64_t size = s.h * s.w * s.c;
  parallel_chunks(context, s.n, [&](int64_t n, int thread) {
    S* dx = static_cast<S*>(a.dx) + n * size;
    T* image;
    if constexpr (is_real<S>)
      image = dx;
    else
      image = static_cast<T*>(context.workspace) + thread * size;
    for (int64_t i = 0; !(is_real<S> && a.accumulate) && i < size; ++i) image[i] = 0;
    for (int64_t out = 0; out < s.p * s.q; ++out) {
      const int64_t at = (n * s.p * s.q + out) * s.c;
      const S* dy = static_cast<const S*>(a.dy) + at;
      if (a.max) {
        for (int64_t i = 0; i < s.c; ++i) image[a.index[at + i] * s.c + i] += from_storage(dy[i]);
        continue;
      }
      const Window w = window(s, out / s.q, out % s.q);
      const V scale = V::set(T(1) / static_cast<T>(divisor_of(w, a.count_include_pad)));
      for (int64_t h = w.y0; h < w.y1; ++h)
        for (int64_t x = w.x0; x < w.x1; ++x) {
          T* pixel = image + (h * s.w + x) * s.c;
          each_vector<V>(s.c, [&](int64_t i, int lanes) {
            store(pixel + i, fma(load<V>(dy + i, lanes), scale, load<V>(pixel + i, lanes)), lanes);
          });
        }
    }
    if constexpr (!is_real<S>)
      each_vector<V>(size, [&](int64_t i, int lanes) {
        const V sum = load<V>(image + i, lanes);
        store(dx + i, a.accumulate ? load<V>(dx + i, lanes) + sum : sum, lanes);
      });
  });
}

Status pool2d_backward(const Pool2dBackwardArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) { backward<S>(a, context); });
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_pool(KernelTable& table) {
  add_kernel<Pool2dArgs, pool2d, floating_only>(table, SMELT_KERNEL_NAME("pool2d"));
  add_kernel<Pool2dBackwardArgs, pool2d_backward, floating_only, backward_workspace>(table, SMELT_KERNEL_NAME("pool2d_backward"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
