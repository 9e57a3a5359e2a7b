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
        const int64_t at = (row * s.q + q) * s.c;
        each_run<V>(s.c, [&]<int n>(Vectors<n>, int64_t c, int lanes) {
          const auto value = [&](int64_t h, int64_t x, int k) {
            return rounded<S>(apply.value(image + (h * s.w + x) * s.c, c + k * V::W, lanes));
          };
          S* const y = apply.y + at + c;
          if (a.index)
            largest_of<true, n, V>(w, lanes, y, static_cast<uint8_t*>(a.index) + at + c, value);
          else
            largest_of<false, n, V>(w, lanes, y, nullptr, value);
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

// The gradient of each pixel that went through max pooling with windows side by side: of those pixels that were the largest.
template <class S>
struct PooledRows {
  using V = Vec<S>;
  using T = Compute<S>;
  struct Row {
    int64_t at;
    const S* dy;
    const uint8_t* places;
    T place;  // in its window; -1 outside of all
    V gradient(int64_t i, int lanes) const {
      return select(load_places<V>(places + i, lanes) == V::set(place), load<V>(dy + i, lanes), V::zero());
    }
  };
  const PoolShape* shape;
  const S* dy;
  const uint8_t* places;
  int64_t at, image, p, q, y, x, h, w;  // pixel (h, w) is (y, x) of window (p, q)
  static PooledRows from(const BatchNormBackwardArgs& a, int64_t row) {
    const PoolShape& s = a.pool;
    const int64_t h = row / s.w % s.h, w = row % s.w;
    return {&s, static_cast<const S*>(a.dy), static_cast<const uint8_t*>(a.index), row * a.c, row / s.w / s.h, h / s.kernel[0],
            w / s.kernel[1], h % s.kernel[0], w % s.kernel[1], h, w};
  }
  Row next() {
    const PoolShape& s = *shape;
    const bool inside = p < s.p && q < s.q;
    const int64_t window = inside ? ((image * s.p + p) * s.q + q) * s.c : 0;
    const Row row{at, dy + window, places + window, inside ? static_cast<T>(y * s.kernel[1] + x) : T(-1)};
    at += s.c;
    ++w;
    if (++x == s.kernel[1]) x = 0, ++q;
    if (w == s.w) {
      w = x = q = 0;
      ++h;
      if (++y == s.kernel[0]) y = 0, ++p;
    }
    if (h == s.h) {
      h = y = p = 0;
      ++image;
    }
    return row;
  }
};

template <class S, class Rows>
void batch_norm_backward_of(const BatchNormBackwardArgs& a, Context& context, const Rows& rows_from) {
  using T = Compute<S>;
  const int64_t c = a.c, step = chunk_rows(a.rows), chunks = chunk_count(a.rows);
  const T* rstd = static_cast<const T*>(a.rstd);
  T* partial = static_cast<T*>(context.workspace);  // (chunks, 2, C)
  T *const factor = partial + 2 * c * chunks, *const shift = factor + c, *const slope = shift + c;
  for (int64_t i = 0; i < c; ++i) factor[i] = rstd[i] * static_cast<const T*>(a.weight)[i];  // as in the forward
  const bool relu_of_x = a.activation == Activation::relu && !a.y;
  const Slopes<S> slopes{static_cast<const S*>(a.x),    static_cast<const S*>(a.y), relu_of_x ? static_cast<const T*>(a.bias) : nullptr,
                         static_cast<const T*>(a.mean), rstd,                       factor,
                         c};
  parallel_chunks(context, chunks, [&](int64_t chunk, int) {
    T* mine = partial + chunk * 2 * c;
    slopes.sums(rows_from(chunk * step), min_of(step, a.rows - chunk * step), mine, mine + c);
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
    slopes.dx(rows_from(begin), end - begin, shift, slope, dx, a.accumulate_x, past, dresidual, a.accumulate_residual, residual_past);
  });
}

Status batch_norm_backward(const BatchNormBackwardArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) {
    if (a.pool.exists())
      batch_norm_backward_of<S>(a, context, [&](int64_t row) { return PooledRows<S>::from(a, row); });
    else
      batch_norm_backward_of<S>(a, context,
                                [&](int64_t row) { return GivenRows<S>::from(static_cast<const S*>(a.dy), row, a.c); });
  });
  return Status::ok;
}

bool pools_side_by_side(const PoolShape& pool) { return !pool.exists() || (pool.side_by_side() && pool.index_dtype() == DType::uint8); }
bool forward_supported(const BatchNormArgs& a) {
  return is_floating(a.dtype) && pools_side_by_side(a.pool) && !(a.pool.exists() && a.residual);
}
bool backward_supported(const BatchNormBackwardArgs& a) {
  return is_floating(a.dtype) && pools_side_by_side(a.pool) && !(a.pool.exists() && (a.y || a.dresidual));
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
