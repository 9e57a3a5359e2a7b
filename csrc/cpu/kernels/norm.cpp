// Batch and layer normalisation. Statistics are (mean, M2) of blocks of rows, merged in order: the mean of squares minus the
// square of the mean would lose everything when the mean is large. Means are those of differences to a first value, and blocks
// are short, so that errors grow neither with the mean nor with the number of rows. Parameters and statistics of halves are
// float32.
#include "cpu/kernels/common.inl.h"
#include "cpu/kernels/families.h"

namespace smelt {
namespace {

constexpr int64_t kGrain = 16384;
constexpr int64_t kMaxChunks = 64;
constexpr int64_t kBlockRows = 256;

// Rows that one chunk has: by shape alone.
int64_t chunk_rows(int64_t rows) { return max_of(int64_t{64}, ceil_div(rows, kMaxChunks)); }
int64_t chunk_count(int64_t rows) { return max_of(int64_t{1}, ceil_div(rows, chunk_rows(rows))); }

template <class Args>
size_t four_per_chunk(const Args& a, int) {
  const int64_t size = a.dtype == DType::float64 ? 8 : 4;
  return static_cast<size_t>(round_up((chunk_count(a.rows) * 4 + 2) * a.c * size, 64));
}

// f(i, lanes) over the channels of each row in [begin, end).
template <class V, class F>
void each_row(int64_t begin, int64_t end, int64_t c, const F& f) {
  for (int64_t row = begin; row < end; ++row)
    each_vector<V>(c, [&](int64_t i, int lanes) { f(row * c + i, i, lanes); });
}

// ------------------------------------------------------------------------------------------------------- batch norm

// Mean and M2 of rows [begin, end), two passes while the block is in cache.
template <class S, class T>
void block_statistics(const S* x, int64_t begin, int64_t end, int64_t c, T* mean, T* m2) {
  using V = Vec<S>;
  const S* first = x + begin * c;
  for (int64_t i = 0; i < c; ++i) mean[i] = m2[i] = 0;
  each_row<V>(begin + 1, end, c, [&](int64_t at, int64_t i, int lanes) {
    store(mean + i, load<V>(mean + i, lanes) + (load<V>(x + at, lanes) - load<V>(first + i, lanes)), lanes);
  });
  const V scale = V::set(T(1) / static_cast<T>(end - begin));
  each_vector<V>(c, [&](int64_t i, int lanes) {
    store(mean + i, fma(load<V>(mean + i, lanes), scale, load<V>(first + i, lanes)), lanes);
  });
  each_row<V>(begin, end, c, [&](int64_t at, int64_t i, int lanes) {
    const V d = load<V>(x + at, lanes) - load<V>(mean + i, lanes);
    store(m2 + i, fma(d, d, load<V>(m2 + i, lanes)), lanes);
  });
}

// Chan's rule: (mean, m2) of `count` rows takes in those of `more`.
template <class T>
void merge_statistics(T* mean, T* m2, int64_t count, const T* other_mean, const T* other_m2, int64_t more, int64_t c) {
  using V = Vec<T>;
  const T total = static_cast<T>(count + more);
  const V weight = V::set(static_cast<T>(more) / total);
  const V cross = V::set(static_cast<T>(count) * static_cast<T>(more) / total);
  each_vector<V>(c, [&](int64_t i, int lanes) {
    const V old = load<V>(mean + i, lanes), d = load<V>(other_mean + i, lanes) - old;
    store(mean + i, fma(d, weight, old), lanes);
    const V sum = load<V>(m2 + i, lanes) + load<V>(other_m2 + i, lanes);
    store(m2 + i, fma(d * d, cross, sum), lanes);
  });
}

// The same of a chunk, block after block; `block` has room for 2 values a channel.
template <class S, class T>
void chunk_statistics(const S* x, int64_t begin, int64_t end, int64_t c, T* mean, T* m2, T* block) {
  block_statistics(x, begin, min_of(begin + kBlockRows, end), c, mean, m2);
  for (int64_t from = begin + kBlockRows; from < end; from += kBlockRows) {
    const int64_t to = min_of(from + kBlockRows, end);
    block_statistics(x, from, to, c, block, block + c);
    merge_statistics(mean, m2, from - begin, block, block + c, to - from, c);
  }
}

template <class S>
void batch_statistics(const BatchNormArgs& a, Context& context) {
  using T = Compute<S>;
  const int64_t c = a.c, step = chunk_rows(a.rows), chunks = chunk_count(a.rows);
  T* partial = static_cast<T*>(context.workspace);  // (chunks, 2, C)
  T* blocks = partial + chunks * 2 * c;             // (chunks, 2, C)
  parallel_chunks(context, chunks, [&](int64_t chunk, int) {
    T* mine = partial + chunk * 2 * c;
    chunk_statistics(static_cast<const S*>(a.x), chunk * step, min_of((chunk + 1) * step, a.rows), c, mine, mine + c,
                     blocks + chunk * 2 * c);
  });
  for (int64_t chunk = 1; chunk < chunks; ++chunk) {
    T* other = partial + chunk * 2 * c;
    merge_statistics(partial, partial + c, chunk * step, other, other + c, min_of(step, a.rows - chunk * step), c);
  }
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

template <class S>
void batch_norm_run(const BatchNormArgs& a, Context& context) {
  using V = Vec<S>;
  using T = typename V::T;
  const int64_t c = a.c;
  if (a.rows == 0) return;
  if (a.training) batch_statistics<S>(a, context);
  T* scale = static_cast<T*>(context.workspace);  // the chunks' statistics are no longer needed
  const T* mean = static_cast<const T*>(a.training ? a.mean : a.running_mean);
  const T* weight = static_cast<const T*>(a.weight);
  const T* bias = static_cast<const T*>(a.bias);
  for (int64_t i = 0; i < c; ++i) {
    if (!a.training) {
      // Kept for backward, which takes the running statistics as constants.
      static_cast<T*>(a.mean)[i] = mean[i];
      static_cast<T*>(a.rstd)[i] = T(1) / std::sqrt(static_cast<const T*>(a.running_var)[i] + static_cast<T>(a.eps));
    }
    scale[i] = static_cast<const T*>(a.rstd)[i] * weight[i];
  }
  const S* x = static_cast<const S*>(a.x);
  const S* residual = static_cast<const S*>(a.residual);
  S* y = static_cast<S*>(a.y);
  const bool relu = a.activation == Activation::relu;
  parallel_for(context, a.rows, max_of(int64_t{1}, kGrain / max_of(c, int64_t{1})), [&](int64_t begin, int64_t end) {
    each_row<V>(begin, end, c, [&](int64_t at, int64_t i, int lanes) {
      const V centred = load<V>(x + at, lanes) - load<V>(mean + i, lanes);
      V v = fma(centred, load<V>(scale + i, lanes), load<V>(bias + i, lanes));
      if (residual) v = v + load<V>(residual + at, lanes);
      if (relu) v = max_nan(v, V::zero());
      store(y + at, v, lanes);
    });
  });
}

Status batch_norm(const BatchNormArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) { batch_norm_run<S>(a, context); });
  return Status::ok;
}

template <class S>
void batch_norm_backward_run(const BatchNormBackwardArgs& a, Context& context) {
  using V = Vec<S>;
  using T = typename V::T;
  const int64_t c = a.c, step = chunk_rows(a.rows), chunks = chunk_count(a.rows);
  const S* x = static_cast<const S*>(a.x);
  const S* y = static_cast<const S*>(a.y);
  const S* dy = static_cast<const S*>(a.dy);
  const T* mean = static_cast<const T*>(a.mean);
  const T* rstd = static_cast<const T*>(a.rstd);
  const T* weight = static_cast<const T*>(a.weight);
  const auto gradient = [&](int64_t at, int lanes) {  // behind the activation
    const V g = load<V>(dy + at, lanes);
    if (!y) return g;
    const V out = load<V>(y + at, lanes);
    return select(V::zero() < out, g, select(is_nan(out), out, V::zero()));
  };
  const auto normalised = [&](int64_t at, int64_t i, int lanes) {
    return (load<V>(x + at, lanes) - load<V>(mean + i, lanes)) * load<V>(rstd + i, lanes);
  };

  T* partial = static_cast<T*>(context.workspace);  // (chunks, 2, C): sums of g and of g * normalised x
  parallel_chunks(context, chunks, [&](int64_t chunk, int) {
    T* sum_g = partial + chunk * 2 * c;
    T* sum_gx = sum_g + c;
    for (int64_t i = 0; i < 2 * c; ++i) sum_g[i] = 0;
    each_row<V>(chunk * step, min_of((chunk + 1) * step, a.rows), c, [&](int64_t at, int64_t i, int lanes) {
      const V g = gradient(at, lanes);
      store(sum_g + i, load<V>(sum_g + i, lanes) + g, lanes);
      store(sum_gx + i, fma(g, normalised(at, i, lanes), load<V>(sum_gx + i, lanes)), lanes);
    });
  });
  T* sum_g = partial;
  T* sum_gx = partial + c;
  for (int64_t chunk = 1; chunk < chunks; ++chunk)
    for (int64_t i = 0; i < 2 * c; ++i) sum_g[i] += partial[chunk * 2 * c + i];
  T* dweight = static_cast<T*>(a.dweight);
  T* dbias = static_cast<T*>(a.dbias);
  for (int64_t i = 0; i < c; ++i) {
    if (dweight) dweight[i] = a.accumulate_weight ? dweight[i] + sum_gx[i] : sum_gx[i];
    if (dbias) dbias[i] = a.accumulate_bias ? dbias[i] + sum_g[i] : sum_g[i];
  }
  S* dx = static_cast<S*>(a.dx);
  S* dresidual = static_cast<S*>(a.dresidual);
  if (!dx && !dresidual) return;
  // dx = scale (g - mean(g) - normalised x * mean(g * normalised x)); constants of each channel once.
  T* scale = partial + 2 * c * chunks;
  const T inverse = T(1) / static_cast<T>(max_of(a.rows, int64_t{1}));
  for (int64_t i = 0; i < c; ++i) {
    scale[i] = weight[i] * rstd[i];
    sum_g[i] = a.training ? sum_g[i] * inverse : 0;
    sum_gx[i] = a.training ? sum_gx[i] * inverse : 0;
  }
  parallel_for(context, a.rows, max_of(int64_t{1}, kGrain / max_of(c, int64_t{1})), [&](int64_t begin, int64_t end) {
    each_row<V>(begin, end, c, [&](int64_t at, int64_t i, int lanes) {
      const V g = gradient(at, lanes);
      if (dx) {
        const V centred = g - load<V>(sum_g + i, lanes);
        V d = load<V>(scale + i, lanes) * fma(-normalised(at, i, lanes), load<V>(sum_gx + i, lanes), centred);
        if (a.accumulate_x) d = load<V>(dx + at, lanes) + d;
        store(dx + at, d, lanes);
      }
      if (dresidual) store(dresidual + at, a.accumulate_residual ? load<V>(dresidual + at, lanes) + g : g, lanes);
    });
  });
}

Status batch_norm_backward(const BatchNormBackwardArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) { batch_norm_backward_run<S>(a, context); });
  return Status::ok;
}

// ------------------------------------------------------------------------------------------------------- layer norm

template <class V, class S>
typename V::T row_mean(const S* x, int64_t n) {
  const typename V::T start = from_storage(x[0]);
  const V first = V::set(start);
  V acc = V::zero();
  each_vector<V>(n, [&](int64_t i, int lanes) { acc = acc + keep_lanes(load<V>(x + i, lanes) - first, lanes); });
  return start + sum(acc) / static_cast<typename V::T>(n);
}

template <class S>
void layer_norm_run(const LayerNormArgs& a, Context& context) {
  using V = Vec<S>;
  using T = typename V::T;
  const int64_t d = a.d;
  const T* weight = static_cast<const T*>(a.weight);
  const T* bias = static_cast<const T*>(a.bias);
  parallel_for(context, a.rows, max_of(int64_t{1}, kGrain / max_of(d, int64_t{1})), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const S* x = static_cast<const S*>(a.x) + row * d;
      S* y = static_cast<S*>(a.y) + row * d;
      const T mean = d ? row_mean<V>(x, d) : T(0);
      V acc = V::zero();
      each_vector<V>(d, [&](int64_t i, int lanes) {
        const V diff = keep_lanes(load<V>(x + i, lanes) - V::set(mean), lanes);
        acc = fma(diff, diff, acc);
      });
      const T rstd = T(1) / std::sqrt(sum(acc) / static_cast<T>(d) + static_cast<T>(a.eps));
      static_cast<T*>(a.mean)[row] = mean;
      static_cast<T*>(a.rstd)[row] = rstd;
      each_vector<V>(d, [&](int64_t i, int lanes) {
        V v = (load<V>(x + i, lanes) - V::set(mean)) * V::set(rstd);
        if (weight) v = v * load<V>(weight + i, lanes);
        if (bias) v = v + load<V>(bias + i, lanes);
        store(y + i, v, lanes);
      });
    }
  });
}

Status layer_norm(const LayerNormArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) { layer_norm_run<S>(a, context); });
  return Status::ok;
}

size_t layer_norm_workspace(const LayerNormBackwardArgs& a, int) {
  return a.dweight || a.dbias ? static_cast<size_t>(chunk_count(a.rows) * 2 * a.d) * 8 : 0;
}

template <class S>
void layer_norm_backward_run(const LayerNormBackwardArgs& a, Context& context) {
  using V = Vec<S>;
  using T = typename V::T;
  const int64_t d = a.d, step = chunk_rows(a.rows), chunks = chunk_count(a.rows);
  const T* weight = static_cast<const T*>(a.weight);
  T* partial = a.dweight || a.dbias ? static_cast<T*>(context.workspace) : nullptr;  // (chunks, 2, D)
  parallel_chunks(context, chunks, [&](int64_t chunk, int) {
    T* dweight = partial ? partial + chunk * 2 * d : nullptr;
    T* dbias = partial ? dweight + d : nullptr;
    for (int64_t i = 0; partial && i < 2 * d; ++i) dweight[i] = 0;
    for (int64_t row = chunk * step; row < min_of((chunk + 1) * step, a.rows); ++row) {
      const S* x = static_cast<const S*>(a.x) + row * d;
      const S* dy = static_cast<const S*>(a.dy) + row * d;
      const V mean = V::set(static_cast<const T*>(a.mean)[row]), rstd = V::set(static_cast<const T*>(a.rstd)[row]);
      // dx = rstd (g - mean(g) - normalised x * mean(g * normalised x)) with g = dy * weight.
      V sum_g = V::zero(), sum_gx = V::zero();
      each_vector<V>(d, [&](int64_t i, int lanes) {
        const V out = load<V>(dy + i, lanes), n = (load<V>(x + i, lanes) - mean) * rstd;
        const V g = weight ? out * load<V>(weight + i, lanes) : out;  // 0 in empty lanes, as dy is
        sum_g = sum_g + g;
        sum_gx = fma(g, n, sum_gx);
        if (partial) {
          store(dweight + i, fma(out, n, load<V>(dweight + i, lanes)), lanes);
          store(dbias + i, load<V>(dbias + i, lanes) + out, lanes);
        }
      });
      if (!a.dx) continue;
      S* dx = static_cast<S*>(a.dx) + row * d;
      const V mean_g = V::set(sum(sum_g) / static_cast<T>(d)), mean_gx = V::set(sum(sum_gx) / static_cast<T>(d));
      each_vector<V>(d, [&](int64_t i, int lanes) {
        const V out = load<V>(dy + i, lanes), n = (load<V>(x + i, lanes) - mean) * rstd;
        const V g = weight ? out * load<V>(weight + i, lanes) : out;
        V v = rstd * fma(-n, mean_gx, g - mean_g);
        if (a.accumulate_x) v = load<V>(dx + i, lanes) + v;
        store(dx + i, v, lanes);
      });
    }
  });
  if (!partial) return;
  parallel_for(context, d, 1024, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      T w = partial[i], b = partial[d + i];
      for (int64_t chunk = 1; chunk < chunks; ++chunk) {
        w += partial[chunk * 2 * d + i];
        b += partial[chunk * 2 * d + d + i];
      }
      T* dweight = static_cast<T*>(a.dweight);
      T* dbias = static_cast<T*>(a.dbias);
      if (dweight) dweight[i] = a.accumulate_weight ? dweight[i] + w : w;
      if (dbias) dbias[i] = a.accumulate_bias ? dbias[i] + b : b;
    }
  });
}

Status layer_norm_backward(const LayerNormBackwardArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) { layer_norm_backward_run<S>(a, context); });
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_norm(KernelTable& table) {
  add_kernel<BatchNormArgs, batch_norm, floating_only, four_per_chunk<BatchNormArgs>>(table,
                                                                                SMELT_KERNEL_NAME("batch_norm"));
  add_kernel<BatchNormBackwardArgs, batch_norm_backward, floating_only, four_per_chunk<BatchNormBackwardArgs>>(
      table, SMELT_KERNEL_NAME("batch_norm_backward"));
  add_kernel<LayerNormArgs, layer_norm, floating_only>(table, SMELT_KERNEL_NAME("layer_norm"));
  add_kernel<LayerNormBackwardArgs, layer_norm_backward, floating_only, layer_norm_workspace>(
      table, SMELT_KERNEL_NAME("layer_norm_backward"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
