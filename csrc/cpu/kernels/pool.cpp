// Max and average pooling over channels-last images: channels are the vector axis. Each element of a result is written once,
// from sums in registers.
#include "cpu/kernels/common.inl.h"
#include "cpu/kernels/families.h"
#include "cpu/kernels/windows.inl.h"

namespace smelt {
namespace {

constexpr int64_t kGrain = 16384;  // elements

// The same with places of 32 bits.
template <class S>
void largest_far(const PoolShape& s, const S* image, const Window& w, S* y, int32_t* places) {
  for (int64_t i = 0; i < s.c; ++i) {
    S best = image[(w.y0 * s.w + w.x0) * s.c + i];
    int32_t place = 0, at = 0;
    for (int64_t h = w.y0; h < w.y1; ++h)
      for (int64_t x = w.x0; x < w.x1; ++x, ++at) {
        const S stored = image[(h * s.w + x) * s.c + i];
        const auto v = from_storage(stored), b = from_storage(best);
        if (v <= b || b != b) continue;
        best = stored;
        place = at;
      }
    y[i] = best;
    places[i] = place;
  }
}

template <int n, class V, class S>
inline void average_of(const PoolShape& s, const S* image, const Window& w, V scale, int lanes, S* y) {
  V acc[n];
  for (V& v : acc) v = V::zero();
  for (int64_t h = w.y0; h < w.y1; ++h)
    for (int64_t x = w.x0; x < w.x1; ++x) {
      const S* const pixel = image + (h * s.w + x) * s.c;
      for (int k = 0; k < n; ++k) acc[k] = acc[k] + load<V>(pixel + k * V::W, lanes);
    }
  for (int k = 0; k < n; ++k) store(y + k * V::W, acc[k] * scale, lanes);
}

template <class S>
void forward(const Pool2dArgs& a, Context& context) {
  using V = Vec<S>;
  using T = typename V::T;
  const PoolShape& s = a.shape;
  const bool far = a.index && a.index_dtype == DType::int32;
  const auto pixel = [&](const S* image, const Window& w, int64_t at) {
    S* const y = static_cast<S*>(a.y) + at;
    if (!a.max) {
      const V scale = V::set(T(1) / static_cast<T>(divisor_of(w, a.count_include_pad)));
      each_run<V>(s.c, [&]<int n>(Vectors<n>, int64_t c, int lanes) { average_of<n, V>(s, image + c, w, scale, lanes, y + c); });
    } else if (far) {
      largest_far(s, image, w, y, static_cast<int32_t*>(a.index) + at);
    } else {
      each_run<V>(s.c, [&]<int n>(Vectors<n>, int64_t c, int lanes) {
        const auto value = [&](int64_t h, int64_t x, int k) { return load<V>(image + (h * s.w + x) * s.c + c + k * V::W, lanes); };
        if (a.index)
          largest_of<true, n, V>(w, lanes, y + c, static_cast<uint8_t*>(a.index) + at + c, value);
        else
          largest_of<false, n, V>(w, lanes, y + c, nullptr, value);
      });
    }
  };
  parallel_for(context, s.n * s.p, max_of(int64_t{1}, kGrain / max_of(s.q * s.c, int64_t{1})), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const S* const image = static_cast<const S*>(a.x) + row / s.p * s.h * s.w * s.c;
      Window w;
      int64_t rows, columns;
      window_axis(s, 0, row % s.p, s.h, s.p, &w.y0, &w.y1, &rows);
      for (int64_t q = 0; q < s.q; ++q) {
        window_axis(s, 1, q, s.w, s.q, &w.x0, &w.x1, &columns);
        w.padded = rows * columns;
        pixel(image, w, (row * s.q + q) * s.c);
      }
    }
  });
}

Status pool2d(const Pool2dArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) { forward<S>(a, context); });
  return Status::ok;
}

// What comes back to one pixel from the windows of rows [p0, p1] and columns [q0, q1], in their order.
template <class S>
struct Back {
  const Pool2dBackwardArgs& a;
  int64_t n, h, x, p0, p1, q0, q1;

  // f(where dy and index lie, window)
  template <class F>
  void each_window(const F& f) const {
    const PoolShape& s = a.shape;
    for (int64_t p = p0; p <= p1; ++p) {
      Window w;
      int64_t rows, columns;
      window_axis(s, 0, p, s.h, s.p, &w.y0, &w.y1, &rows);
      for (int64_t q = q0; q <= q1; ++q) {
        window_axis(s, 1, q, s.w, s.q, &w.x0, &w.x1, &columns);
        w.padded = rows * columns;
        f(((n * s.p + p) * s.q + q) * s.c, w);
      }
    }
  }

  template <int n, class V>
  void run(int64_t c, int lanes, S* dx) const {
    using T = typename V::T;
    V acc[n];
    for (V& v : acc) v = V::zero();
    each_window([&](int64_t at, const Window& w) {
      const S* const dy = static_cast<const S*>(a.dy) + at + c;
      if (!a.max) {
        const V scale = V::set(T(1) / static_cast<T>(divisor_of(w, a.count_include_pad)));
        for (int k = 0; k < n; ++k) acc[k] = fma(load<V>(dy + k * V::W, lanes), scale, acc[k]);
      } else if (a.index_dtype == DType::uint8) {
        const uint8_t* const places = static_cast<const uint8_t*>(a.index) + at + c;
        const V here = V::set(static_cast<T>(place_of(w, h, x)));
        for (int k = 0; k < n; ++k) {
          const typename V::Mask hit = load_places<V>(places + k * V::W, lanes) == here;
          acc[k] = acc[k] + select(hit, load<V>(dy + k * V::W, lanes), V::zero());
        }
      } else {
        const int32_t* const places = static_cast<const int32_t*>(a.index) + at + c;
        const int64_t here = place_of(w, h, x);
        for (int k = 0; k < n; ++k) {
          T g[V::W] = {};
          for (int i = k * V::W; i < k * V::W + lanes; ++i) g[i - k * V::W] = places[i] == here ? from_storage(dy[i]) : T(0);
          acc[k] = acc[k] + V::load(g);
        }
      }
    });
    for (int k = 0; k < n; ++k) {
      S* const to = dx + c + k * V::W;
      store(to, a.accumulate ? load<V>(to, lanes) + acc[k] : acc[k], lanes);
    }
  }
};

template <class S>
void backward(const Pool2dBackwardArgs& a, Context& context) {
  using V = Vec<S>;
  const PoolShape& s = a.shape;
  parallel_for(context, s.n * s.h, max_of(int64_t{1}, kGrain / max_of(s.w * s.c, int64_t{1})), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      Back<S> back{.a = a, .n = row / s.h, .h = row % s.h, .x = 0, .p0 = 0, .p1 = 0, .q0 = 0, .q1 = -1};
      covering(s, 0, back.h, s.h, s.p, &back.p0, &back.p1);
      for (; back.x < s.w; ++back.x) {
        int64_t first, last, padded;
        for (; back.q1 + 1 < s.q; ++back.q1) {
          window_axis(s, 1, back.q1 + 1, s.w, s.q, &first, &last, &padded);
          if (back.x < first) break;
        }
        for (; back.q0 <= back.q1; ++back.q0) {
          window_axis(s, 1, back.q0, s.w, s.q, &first, &last, &padded);
          if (back.x < last) break;
        }
        S* const dx = static_cast<S*>(a.dx) + (row * s.w + back.x) * s.c;
        each_run<V>(s.c, [&]<int n>(Vectors<n>, int64_t c, int lanes) { back.template run<n, V>(c, lanes, dx); });
      }
    }
  });
}

// Windows side by side, whose pixels have no other window: each gives its own what comes back. Pixels behind the last get zeros.
bool side_by_side(const Pool2dBackwardArgs& a) { return a.shape.side_by_side() && (!a.max || a.index_dtype == DType::uint8); }

template <int n, class V, class S>
inline void give_back(const Pool2dBackwardArgs& a, const S* dy, const uint8_t* places, int lanes, S* dx) {
  using T = typename V::T;
  const PoolShape& s = a.shape;
  const V scale = V::set(T(1) / static_cast<T>(s.kernel[0] * s.kernel[1]));
  V g[n], place[n];
  for (int k = 0; k < n; ++k) {
    g[k] = load<V>(dy + k * V::W, lanes);
    if (a.max)
      place[k] = load_places<V>(places + k * V::W, lanes);
    else
      g[k] = g[k] * scale;
  }
  int64_t at = 0;
  for (int64_t h = 0; h < s.kernel[0]; ++h)
    for (int64_t x = 0; x < s.kernel[1]; ++x, ++at) {
      S* const pixel = dx + (h * s.w + x) * s.c;
      const V here = V::set(static_cast<T>(at));
      for (int k = 0; k < n; ++k) {
        V d = a.max ? select(place[k] == here, g[k], V::zero()) : g[k];
        if (a.accumulate) d = load<V>(pixel + k * V::W, lanes) + d;
        store(pixel + k * V::W, d, lanes);
      }
    }
}

template <class S>
void backward_side_by_side(const Pool2dBackwardArgs& a, Context& context) {
  using V = Vec<S>;
  const PoolShape& s = a.shape;
  const int64_t rows = s.kernel[0], columns = s.kernel[1], pitch = s.w * s.c;
  const auto clear = [&](S* dx, int64_t count) {
    if (!a.accumulate) __builtin_memset(dx, 0, static_cast<size_t>(count) * sizeof(S));
  };
  parallel_for(context, s.n * s.p, max_of(int64_t{1}, kGrain / max_of(rows * pitch, int64_t{1})), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t p = row % s.p;
      S* const first = static_cast<S*>(a.dx) + (row / s.p * s.h + p * rows) * pitch;
      for (int64_t q = 0; q < s.q; ++q) {
        const int64_t at = (row * s.q + q) * s.c;
        const S* const dy = static_cast<const S*>(a.dy) + at;
        const uint8_t* const places = a.max ? static_cast<const uint8_t*>(a.index) + at : nullptr;
        S* const dx = first + q * columns * s.c;
        each_run<V>(s.c, [&]<int n>(Vectors<n>, int64_t c, int lanes) {
          give_back<n, V>(a, dy + c, a.max ? places + c : nullptr, lanes, dx + c);
        });
      }
      for (int64_t h = 0; h < rows; ++h) clear(first + h * pitch + s.q * columns * s.c, (s.w - s.q * columns) * s.c);
      if (p == s.p - 1) clear(first + rows * pitch, (s.h - s.p * rows) * pitch);
    }
  });
}

Status pool2d_backward(const Pool2dBackwardArgs& a, Context& context) noexcept {
  const bool simple = side_by_side(a);
  with_floating(a.dtype, [&]<class S>(S) { simple ? backward_side_by_side<S>(a, context) : backward<S>(a, context); });
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_pool(KernelTable& table) {
  add_kernel<Pool2dArgs, pool2d, floating_only>(table, SMELT_KERNEL_NAME("pool2d"));
  add_kernel<Pool2dBackwardArgs, pool2d_backward, floating_only>(table, SMELT_KERNEL_NAME("pool2d_backward"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
