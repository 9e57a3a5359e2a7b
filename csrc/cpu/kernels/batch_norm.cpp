// Batch normalisation, with the residual, the activation and the max pooling that follow it.
#include "cpu/kernels/channel_norm.inl.h"
#include "cpu/kernels/families.h"
#include "cpu/kernels/windows.inl.h"

namespace smelt {
namespace {

template <class Args>
size_t batch_norm_workspace(const Args& a, int) {
  const int64_t size = a.dtype == DType::float64 ? 8 : 4;
  return static_cast<size_t>(round_up((chunk_count(a.rows) * 4 + 4) * a.c * size, 64));
}

template <class S>
void batch_statistics(const BatchNormArgs& a, Context& context) {
  using T = Compute<S>;
  const int64_t c = a.c, step = chunk_rows(a.rows);
  T* partial = static_cast<T*>(context.workspace);  // (chunks, 4, C)
  parallel_chunks(context, chunk_count(a.rows), [&](int64_t chunk, int) {
    chunk_statistics(static_cast<const S*>(a.x), chunk * step, min_of((chunk + 1) * step, a.rows), c, partial + chunk * 4 * c);
  });
  merge_chunks(partial, a.rows, c);
  T* mean = static_cast<T*>(a.mean);
  T* rstd = static_cast<T*>(a.rstd);
  T* running_mean = static_cast<T*>(a.running_mean);
  T* running_var = static_cast<T*>(a.running_var);
  const T n = static_cast<T>(a.rows), momentum = static_cast<T>(a.momentum);
  for (int64_t i = 0; i < c; ++i) {
    const T m2 = partial[c + i];
    mean[i] = partial[i];
    rstd[i] = T(1) / std::sqrt(m2 / n + static_cast<T>(a.eps));
    running_mean[i] += momentum * (mean[i] - running_mean[i]);
    running_var[i] += momentum * (m2 / (n - 1) - running_var[i]);  // the unbiased variance
  }
}

constexpr int64_t kAhead = 4;  // windows

// Constants or sums of some columns, in registers.
template <class V, int n>
struct Columns {
  using T = typename V::T;
  V v[n];
  Columns(const T* from, int lanes) {
    for (int k = 0; k < n; ++k) v[k] = load<V>(from + k * V::W, lanes);
  }
  void put(T* to, int lanes) const {
    for (int k = 0; k < n; ++k) store(to + k * V::W, v[k], lanes);
  }
};

// The largest results of windows side by side, and their places. They are compared as they would be stored.
template <class S>
void apply_pooled(const Apply<S>& apply, const BatchNormArgs& a, Context& context) {
  using V = Vec<S>;
  const PoolShape& s = a.pool;
  const int64_t rows = s.kernel[0], columns = s.kernel[1];
  parallel_for(context, s.n * s.p, max_of(int64_t{1}, kGrain / max_of(rows * s.w * s.c, int64_t{1})), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t y0 = row % s.p * rows, image = row / s.p * s.h * s.w * s.c;
      for (int64_t q = 0; q < s.q; ++q) {
        const Window w{y0, y0 + rows, q * columns, (q + 1) * columns, rows * columns};
        for (int64_t h = w.y0; h < w.y1; ++h)  // rows of windows are not what the hardware expects
          for (int64_t i = 0; i < columns * s.c; i += 64 / static_cast<int64_t>(sizeof(S)))
            __builtin_prefetch(apply.x + image + (h * s.w + w.x0 + kAhead * columns) * s.c + i);
        each_run<V, 2>(s.c, [&]<int n>(Vectors<n>, int64_t c, int lanes) {
          const Columns<V, n> mean(apply.mean + c, lanes), scale(apply.scale + c, lanes), bias(apply.bias + c, lanes);
          const auto value = [&](int64_t h, int64_t x, int k) {
            const V in = load<V>(apply.x + image + (h * s.w + x) * s.c + c + k * V::W, lanes);
            const V v = (in - mean.v[k]) * scale.v[k] + bias.v[k];
            return rounded<S>(apply.relu ? max_nan(v, V::zero()) : v);
          };
          const int64_t at = (row * s.q + q) * s.c + c;
          if (a.index)
            largest_of<true, n, V>(w, lanes, apply.y + at, static_cast<uint8_t*>(a.index) + at, value);
          else
            largest_of<false, n, V>(w, lanes, apply.y + at, nullptr, value);
        });
      }
    }
  });
}

template <class S>
void batch_norm_run(const BatchNormArgs& a, Context& context) {
  using T = Compute<S>;
  const int64_t c = a.c;
  if (a.rows == 0) return;
  if (a.training) batch_statistics<S>(a, context);
  T* scale = static_cast<T*>(context.workspace);  // the chunks' statistics are no longer needed
  const T* mean = static_cast<const T*>(a.training ? a.mean : a.running_mean);
  const T* weight = static_cast<const T*>(a.weight);
  for (int64_t i = 0; i < c; ++i) {
    if (!a.training) {
      // Kept for backward, which takes the running statistics as constants.
      static_cast<T*>(a.mean)[i] = mean[i];
      static_cast<T*>(a.rstd)[i] = T(1) / std::sqrt(static_cast<const T*>(a.running_var)[i] + static_cast<T>(a.eps));
    }
    scale[i] = static_cast<const T*>(a.rstd)[i] * weight[i];
  }
  const Apply<S> apply{static_cast<const S*>(a.x), static_cast<const S*>(a.residual), static_cast<S*>(a.y), mean, scale,
                       static_cast<const T*>(a.bias), c, a.activation == Activation::relu,
                       rows_past_caches<S>(a.y, a.rows * c, c)};
  if (a.pool.exists())
    apply_pooled(apply, a, context);
  else
    parallel_for(context, a.rows, row_grain(c), apply);
}

Status batch_norm(const BatchNormArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) { batch_norm_run<S>(a, context); });
  return Status::ok;
}

// ----------------------------------------------------------------------------------------------------------- backward

// The same through max pooling with windows side by side: a pixel has the gradient of its window where it was the largest, else 0.
template <class S>
struct PooledSlopes : Slopes<S> {
  using V = Vec<S>;
  using T = Compute<S>;
  template <int n>
  using Columns = smelt::Columns<V, n>;
  using Slopes<S>::x, Slopes<S>::relu_bias, Slopes<S>::mean, Slopes<S>::rstd, Slopes<S>::factor, Slopes<S>::c;
  const PoolShape& pool;
  const uint8_t* places;

  // Pixels [w0, w1) of row h of an image.
  struct Segment {
    int64_t image, h, w0, w1;
  };
  template <class F>
  void each_segment(int64_t begin, int64_t end, const F& f) const {
    for (int64_t row = begin; row < end;) {
      const int64_t line = row / pool.w, w0 = row % pool.w, w1 = min_of(pool.w, w0 + end - row);
      f(Segment{line / pool.h, line % pool.h, w0, w1});
      row += w1 - w0;
    }
  }

  // f(vector, element, gradient) along a segment, for n vectors from column i on.
  template <int n, class F>
  void along(const Segment& s, int64_t i, int lanes, const F& f) const {
    const int64_t rows = pool.kernel[0], columns = pool.kernel[1], p = s.h / rows;
    const int64_t windows = (s.image * pool.p + p) * pool.q, pixels = (s.image * pool.h + s.h) * pool.w;
    int64_t w = s.w0, q = w / columns;
    for (; w < s.w1; ++q) {
      V g[n], place[n];
      const bool inside = p < pool.p && q < pool.q;
      for (int k = 0; k < n; ++k) {
        const int64_t at = (windows + q) * c + i + k * V::W;
        g[k] = inside ? load<V>(this->dy + at, lanes) : V::zero();
        place[k] = inside ? load_places<V>(places + at, lanes) : V::set(T(-1));
      }
      for (const int64_t last = min_of(s.w1, (q + 1) * columns); w < last; ++w) {
        const V here = V::set(static_cast<T>((s.h - p * rows) * columns + w - q * columns));
        for (int k = 0; k < n; ++k) f(k, (pixels + w) * c + i + k * V::W, select(place[k] == here, g[k], V::zero()));
      }
    }
  }
  V behind(V g, V centred, V a, V bias) const { return relu_bias ? before_relu<S>(centred * a + bias, g) : g; }

  void sums(int64_t begin, int64_t end, T* sum_g, T* sum_gx) const {
    each_segment(begin, end, [&](const Segment& segment) {
      each_run<V, 2>(c, [&]<int n>(Vectors<n>, int64_t i, int lanes) {
        const Columns<n> m(mean + i, lanes), r(rstd + i, lanes), a(factor + i, lanes), bias(relu_bias ? relu_bias + i : mean, lanes);
        Columns<n> sum(sum_g + i, lanes), sum_x(sum_gx + i, lanes);
        along<n>(segment, i, lanes, [&](int k, int64_t at, V given) {
          const V centred = load<V>(x + at, lanes) - m.v[k], g = behind(given, centred, a.v[k], bias.v[k]);
          sum.v[k] = sum.v[k] + g;
          sum_x.v[k] = fma(g, centred * r.v[k], sum_x.v[k]);
        });
        sum.put(sum_g + i, lanes);
        sum_x.put(sum_gx + i, lanes);
      });
    });
  }
  void dx(int64_t begin, int64_t end, const T* shift, const T* slope, S* dx, bool accumulate, bool past, S*, bool, bool) const {
    each_segment(begin, end, [&](const Segment& segment) {
      each_run<V, 2>(c, [&]<int n>(Vectors<n>, int64_t i, int lanes) {
        const Columns<n> m(mean + i, lanes), a(factor + i, lanes), bias(relu_bias ? relu_bias + i : mean, lanes);
        const Columns<n> b(shift + i, lanes), d(slope + i, lanes);
        along<n>(segment, i, lanes, [&](int k, int64_t at, V given) {
          const V centred = load<V>(x + at, lanes) - m.v[k], g = behind(given, centred, a.v[k], bias.v[k]);
          const V v = fma(-centred, d.v[k], fma(a.v[k], g, -b.v[k]));
          put(dx + at, accumulate ? load<V>(dx + at, lanes) + v : v, lanes, past);
        });
      });
    });
    if (past) end_stream();
  }
};

// The factors lie behind the sums of the chunks.
template <class S, class Passes>
void run_passes(const BatchNormBackwardArgs& a, Context& context, const Passes& slopes) {
  using T = Compute<S>;
  const int64_t c = a.c, step = chunk_rows(a.rows), chunks = chunk_count(a.rows);
  T* const partial = static_cast<T*>(context.workspace);  // (chunks, 2, C)
  T *const factor = partial + 2 * c * chunks, *const shift = factor + c, *const slope = shift + c;
  const T* rstd = static_cast<const T*>(a.rstd);
  parallel_chunks(context, chunks, [&](int64_t chunk, int) {
    T* mine = partial + chunk * 2 * c;
    for (int64_t i = 0; i < 2 * c; ++i) mine[i] = 0;
    slopes.sums(chunk * step, min_of((chunk + 1) * step, a.rows), mine, mine + c);
  });
  for (int64_t chunk = 1; chunk < chunks; ++chunk)
    for (int64_t i = 0; i < 2 * c; ++i) partial[i] += partial[chunk * 2 * c + i];
  const T *sum_g = partial, *sum_gx = partial + c;
  T* dweight = static_cast<T*>(a.dweight);
  T* dbias = static_cast<T*>(a.dbias);
  const T inverse = a.training ? T(1) / static_cast<T>(max_of(a.rows, int64_t{1})) : T(0);
  for (int64_t i = 0; i < c; ++i) {
    if (dweight) dweight[i] = a.accumulate_weight ? dweight[i] + sum_gx[i] : sum_gx[i];
    if (dbias) dbias[i] = a.accumulate_bias ? dbias[i] + sum_g[i] : sum_g[i];
    shift[i] = a.training ? factor[i] * (sum_g[i] * inverse) : T(0);
    slope[i] = a.training ? factor[i] * (sum_gx[i] * inverse) * rstd[i] : T(0);
  }
  S* dx = static_cast<S*>(a.dx);
  S* dresidual = static_cast<S*>(a.dresidual);
  if (!dx && !dresidual) return;
  const bool past = !a.accumulate_x && rows_past_caches<S>(dx, a.rows * c, c);
  const bool residual_past = !a.accumulate_residual && rows_past_caches<S>(dresidual, a.rows * c, c);
  parallel_for(context, a.rows, row_grain(c), [&](int64_t begin, int64_t end) {
    slopes.dx(begin, end, shift, slope, dx, a.accumulate_x, past, dresidual, a.accumulate_residual, residual_past);
  });
}

template <class S>
void batch_norm_backward_run(const BatchNormBackwardArgs& a, Context& context) {
  using T = Compute<S>;
  T* const factor = static_cast<T*>(context.workspace) + 2 * a.c * chunk_count(a.rows);
  for (int64_t i = 0; i < a.c; ++i)  // as in the forward
    factor[i] = static_cast<const T*>(a.rstd)[i] * static_cast<const T*>(a.weight)[i];
  const bool relu_of_x = a.activation == Activation::relu && !a.y;
  const Slopes<S> slopes{.x = static_cast<const S*>(a.x),
                         .y = static_cast<const S*>(a.y),
                         .dy = static_cast<const S*>(a.dy),
                         .relu_bias = relu_of_x ? static_cast<const T*>(a.bias) : nullptr,
                         .mean = static_cast<const T*>(a.mean),
                         .rstd = static_cast<const T*>(a.rstd),
                         .factor = factor,
                         .c = a.c};
  if (a.pool.exists())
    run_passes<S>(a, context, PooledSlopes<S>{slopes, a.pool, static_cast<const uint8_t*>(a.index)});
  else
    run_passes<S>(a, context, slopes);
}

Status batch_norm_backward(const BatchNormBackwardArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) { batch_norm_backward_run<S>(a, context); });
  return Status::ok;
}

bool pools_side_by_side(const PoolShape& pool) {
  return !pool.exists() || (pool.side_by_side() && pool.index_dtype() == DType::uint8);
}
bool takes_activation(Activation activation) { return activation == Activation::none || activation == Activation::relu; }
bool forward_supported(const BatchNormArgs& a) {
  return is_floating(a.dtype) && takes_activation(a.activation) && pools_side_by_side(a.pool) && !(a.pool.exists() && a.residual);
}
bool backward_supported(const BatchNormBackwardArgs& a) {
  return is_floating(a.dtype) && takes_activation(a.activation) && pools_side_by_side(a.pool) &&
         !(a.pool.exists() && (a.y || a.dresidual));
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_batch_norm(KernelTable& table) {
  add_kernel<BatchNormArgs, batch_norm, forward_supported, batch_norm_workspace<BatchNormArgs>>(table,
                                                                                                SMELT_KERNEL_NAME("batch_norm"));
  add_kernel<BatchNormBackwardArgs, batch_norm_backward, backward_supported, batch_norm_workspace<BatchNormBackwardArgs>>(
      table, SMELT_KERNEL_NAME("batch_norm_backward"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
