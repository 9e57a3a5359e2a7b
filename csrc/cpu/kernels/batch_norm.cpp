// Batch and group normalisation: statistics and sums down the columns of (rows, C). Statistics are (mean, M2) of blocks of rows,
// merged in order: the mean of squares minus the square of the mean would lose everything when the mean is large. Means are
// those of differences to a first value, and blocks are short, so that errors grow neither with the mean nor with the number of
// rows. Parameters and statistics of halves are float32.
#include "cpu/kernels/common.inl.h"
#include "cpu/kernels/families.h"
#include "cpu/kernels/row_chunks.inl.h"

namespace smelt {
namespace {

constexpr int64_t kGrain = 16384;
constexpr int64_t kBlock = 8192;  // elements that are looked at twice in a row
constexpr int kTogether = 8;      // rows that are added in registers

// Rows of a block.
int64_t block_rows(int64_t c) { return min_of(int64_t{256}, max_of(int64_t{16}, kBlock / max_of(c, int64_t{1}))); }
int64_t row_grain(int64_t c) { return max_of(int64_t{1}, kGrain / max_of(c, int64_t{1})); }

// Adds rows to two sums of each column: more(at, i, lanes, &a, &b) for element `at` of column i, down the rows in order.
template <class V, class F>
inline void down_columns(int64_t begin, int64_t end, int64_t c, typename V::T* a, typename V::T* b, const F& more) {
  int64_t row = begin;
  for (; row + kTogether <= end; row += kTogether)
    each_vector<V>(c, [&](int64_t i, int lanes) {
      V s = load<V>(a + i, lanes), t = load<V>(b + i, lanes);
#pragma GCC unroll 8
      for (int r = 0; r < kTogether; ++r) more((row + r) * c + i, i, lanes, s, t);
      store(a + i, s, lanes);
      store(b + i, t, lanes);
    });
  for (; row < end; ++row)
    each_vector<V>(c, [&](int64_t i, int lanes) {
      V s = load<V>(a + i, lanes), t = load<V>(b + i, lanes);
      more(row * c + i, i, lanes, s, t);
      store(a + i, s, lanes);
      store(b + i, t, lanes);
    });
}

// f(element, column, lanes) over the channels of each row in [begin, end).
template <class V, class F>
inline void each_row(int64_t begin, int64_t end, int64_t c, const F& f) {
  for (int64_t row = begin; row < end; ++row)
    each_vector<V>(c, [&](int64_t i, int lanes) { f(row * c + i, i, lanes); });
}

// Whether each vector of each row may be written past the caches.
template <class S>
bool rows_past_caches(const void* y, int64_t n, int64_t c) {
  constexpr int64_t W = Vec<S>::W;
  return y && past_caches<S>(n) && c % W == 0 && reinterpret_cast<uintptr_t>(y) % (W * sizeof(S)) == 0;
}
template <class V, class S>
inline void put(S* p, V v, int lanes, bool past) {
  past ? v.stream(p) : store(p, v, lanes);
}

// ------------------------------------------------------------------------------------------------------- statistics

// Mean and M2 of rows [begin, end), two looks while the block is in cache.
template <class S, class T>
void block_statistics(const S* x, int64_t begin, int64_t end, int64_t c, T* mean, T* m2) {
  using V = Vec<S>;
  const S* first = x + begin * c;
  for (int64_t i = 0; i < c; ++i) mean[i] = m2[i] = 0;
  down_columns<V>(begin + 1, end, c, mean, m2, [&](int64_t at, int64_t i, int lanes, V& s, V&) {
    s = s + (load<V>(x + at, lanes) - load<V>(first + i, lanes));
  });
  const V scale = V::set(T(1) / static_cast<T>(end - begin));
  each_vector<V>(c, [&](int64_t i, int lanes) {
    store(mean + i, fma(load<V>(mean + i, lanes), scale, load<V>(first + i, lanes)), lanes);
  });
  down_columns<V>(begin, end, c, m2, mean, [&](int64_t at, int64_t, int lanes, V& s, V& middle) {
    const V d = load<V>(x + at, lanes) - middle;
    s = fma(d, d, s);
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

// The same of a chunk, block after block; `out` has room for 4 values a channel: mean, M2 and those of a block.
template <class S, class T>
void chunk_statistics(const S* x, int64_t begin, int64_t end, int64_t c, T* out) {
  const int64_t step = block_rows(c);
  T *const mean = out, *const m2 = out + c, *const block = out + 2 * c;
  block_statistics(x, begin, min_of(begin + step, end), c, mean, m2);
  for (int64_t from = begin + step; from < end; from += step) {
    const int64_t to = min_of(from + step, end);
    block_statistics(x, from, to, c, block, block + c);
    merge_statistics(mean, m2, from - begin, block, block + c, to - from, c);
  }
}

// Chunks (chunks, 4, C) into the first.
template <class T>
void merge_chunks(T* chunks, int64_t rows, int64_t c) {
  const int64_t step = chunk_rows(rows);
  for (int64_t chunk = 1; chunk < chunk_count(rows); ++chunk) {
    T* other = chunks + chunk * 4 * c;
    merge_statistics(chunks, chunks + c, chunk * step, other, other + c, min_of(step, rows - chunk * step), c);
  }
}

// y = (x - mean) scale + bias, of which residual and activation are batch norm's alone; the residual is added to what would be
// stored without it.
template <class S>
struct Apply {
  using T = Compute<S>;
  const S *x, *residual;
  S* y;
  const T *mean, *scale, *bias;
  int64_t c;
  bool relu, past;
  void operator()(int64_t begin, int64_t end) const {
    using V = Vec<S>;
    each_row<V>(begin, end, c, [&](int64_t at, int64_t i, int lanes) {
      V v = (load<V>(x + at, lanes) - load<V>(mean + i, lanes)) * load<V>(scale + i, lanes);
      if (bias) v = v + load<V>(bias + i, lanes);
      if (residual) v = rounded<S>(v) + load<V>(residual + at, lanes);
      if (relu) v = max_nan(v, V::zero());
      put(y + at, v, lanes, past);
    });
    if (past) end_stream();
  }
};

// ------------------------------------------------------------------------------------------------ batch norm, forward

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
  parallel_for(context, a.rows, row_grain(c), apply);
}

Status batch_norm(const BatchNormArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) { batch_norm_run<S>(a, context); });
  return Status::ok;
}

// ----------------------------------------------------------------------------------------------------------- backward

// The sums of g and of g times the normalised x down columns, and then dx = a g - b - (x - mean) d with constants of each column.
template <class S>
struct Slopes {
  using V = Vec<S>;
  using T = Compute<S>;
  const S *x, *y, *dy;  // y: of a relu, or null
  const T *mean, *rstd;
  int64_t c;

  V gradient(int64_t at, int lanes) const {  // behind the activation
    const V g = load<V>(dy + at, lanes);
    if (!y) return g;
    const V out = load<V>(y + at, lanes);
    return select(V::zero() < out, g, select(is_nan(out), out, V::zero()));
  }
  void sums(int64_t begin, int64_t end, T* sum_g, T* sum_gx) const {
    for (int64_t i = 0; i < c; ++i) sum_g[i] = sum_gx[i] = 0;
    down_columns<V>(begin, end, c, sum_g, sum_gx, [&](int64_t at, int64_t i, int lanes, V& s, V& t) {
      const V g = gradient(at, lanes);
      s = s + g;
      t = fma(g, (load<V>(x + at, lanes) - load<V>(mean + i, lanes)) * load<V>(rstd + i, lanes), t);
    });
  }
  void dx(int64_t begin, int64_t end, const T* a, const T* b, const T* d, S* dx, bool accumulate, bool past, S* dresidual,
          bool accumulate_residual, bool residual_past) const {
    each_row<V>(begin, end, c, [&](int64_t at, int64_t i, int lanes) {
      const V g = gradient(at, lanes);
      if (dx) {
        const V centred = load<V>(x + at, lanes) - load<V>(mean + i, lanes);
        V v = fma(load<V>(a + i, lanes), g, -load<V>(b + i, lanes));
        v = fma(-centred, load<V>(d + i, lanes), v);
        put(dx + at, accumulate ? load<V>(dx + at, lanes) + v : v, lanes, past);
      }
      if (dresidual) put(dresidual + at, accumulate_residual ? load<V>(dresidual + at, lanes) + g : g, lanes, residual_past);
    });
    if (past || residual_past) end_stream();
  }
};

template <class S>
void batch_norm_backward_run(const BatchNormBackwardArgs& a, Context& context) {
  using T = Compute<S>;
  const int64_t c = a.c, step = chunk_rows(a.rows), chunks = chunk_count(a.rows);
  const T* rstd = static_cast<const T*>(a.rstd);
  const Slopes<S> slopes{static_cast<const S*>(a.x), static_cast<const S*>(a.y), static_cast<const S*>(a.dy),
                         static_cast<const T*>(a.mean), rstd, c};
  T* partial = static_cast<T*>(context.workspace);  // (chunks, 2, C)
  parallel_chunks(context, chunks, [&](int64_t chunk, int) {
    T* mine = partial + chunk * 2 * c;
    slopes.sums(chunk * step, min_of((chunk + 1) * step, a.rows), mine, mine + c);
  });
  for (int64_t chunk = 1; chunk < chunks; ++chunk)
    for (int64_t i = 0; i < 2 * c; ++i) partial[i] += partial[chunk * 2 * c + i];
  const T *sum_g = partial, *sum_gx = partial + c;
  T* dweight = static_cast<T*>(a.dweight);
  T* dbias = static_cast<T*>(a.dbias);
  T *const factor = partial + 2 * c * chunks, *const shift = factor + c, *const slope = shift + c;
  const T inverse = a.training ? T(1) / static_cast<T>(max_of(a.rows, int64_t{1})) : T(0);
  for (int64_t i = 0; i < c; ++i) {
    if (dweight) dweight[i] = a.accumulate_weight ? dweight[i] + sum_gx[i] : sum_gx[i];
    if (dbias) dbias[i] = a.accumulate_bias ? dbias[i] + sum_g[i] : sum_g[i];
    factor[i] = static_cast<const T*>(a.weight)[i] * rstd[i];
    shift[i] = a.training ? factor[i] * (sum_g[i] * inverse) : T(0);
    slope[i] = a.training ? factor[i] * (sum_gx[i] * inverse) * rstd[i] : T(0);
  }
  S* dx = static_cast<S*>(a.dx);
  S* dresidual = static_cast<S*>(a.dresidual);
  if (!dx && !dresidual) return;
  const bool past = !a.accumulate_x && rows_past_caches<S>(dx, a.rows * c, c);
  const bool residual_past = !a.accumulate_residual && rows_past_caches<S>(dresidual, a.rows * c, c);
  parallel_for(context, a.rows, row_grain(c), [&](int64_t begin, int64_t end) {
    slopes.dx(begin, end, factor, shift, slope, dx, a.accumulate_x, past, dresidual, a.accumulate_residual, residual_past);
  });
}

Status batch_norm_backward(const BatchNormBackwardArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) { batch_norm_backward_run<S>(a, context); });
  return Status::ok;
}

// --------------------------------------------------------------------------------------------------------- group norm

// Work on images: one for each thread, so that an image is in cache when it is looked at again, or with few images on their
// chunks of rows. What is added, and in which order, is the same.
template <class Sums, class Then, class Rows>
void each_image(Context& context, int64_t n, int64_t rows, int64_t c, const Sums& sums, const Then& then,
                const Rows& each) {
  const int64_t chunks = chunk_count(rows);
  if (n >= context.threads) {
    parallel_for(context, n, max_of(int64_t{1}, kGrain / max_of(rows * c, int64_t{1})), [&](int64_t begin, int64_t end) {
      for (int64_t image = begin; image < end; ++image) {
        for (int64_t chunk = 0; chunk < chunks; ++chunk) sums(image, chunk);
        then(image);
        each(image, int64_t{0}, rows);
      }
    });
    return;
  }
  for (int64_t image = 0; image < n; ++image) {
    parallel_chunks(context, chunks, [&](int64_t chunk, int) { sums(image, chunk); });
    then(image);
    parallel_for(context, rows, row_grain(c), [&](int64_t begin, int64_t end) { each(image, begin, end); });
  }
}

// Of each image: its chunks (4, C), and constants of each channel (2, C).
int64_t image_scratch(int64_t rows, int64_t c) { return (chunk_count(rows) * 4 + 2) * c; }
size_t group_norm_workspace(const GroupNormArgs& a, int) {
  return static_cast<size_t>(a.n * image_scratch(a.positions, a.c)) * (a.dtype == DType::float64 ? 8 : 4);
}

template <class S>
void group_norm_run(const GroupNormArgs& a, Context& context) {
  using T = Compute<S>;
  const int64_t c = a.c, rows = a.positions, step = chunk_rows(rows), width = c / max_of(a.groups, int64_t{1});
  if (rows * c == 0) return;
  const auto scratch = [&](int64_t image) { return static_cast<T*>(context.workspace) + image * image_scratch(rows, c); };
  const auto constants = [&](int64_t image) { return scratch(image) + chunk_count(rows) * 4 * c; };
  const S* x = static_cast<const S*>(a.x);
  const T* weight = static_cast<const T*>(a.weight);
  const bool past = rows_past_caches<S>(a.y, a.n * rows * c, c);
  const auto statistics = [&](int64_t image, int64_t chunk) {
    chunk_statistics(x + image * rows * c, chunk * step, min_of((chunk + 1) * step, rows), c, scratch(image) + chunk * 4 * c);
  };
  const auto merge = [&](int64_t image) {
    T *const means = scratch(image), *const m2s = means + c, *const mean = constants(image), *const scale = mean + c;
    merge_chunks(means, rows, c);
    for (int64_t g = 0; g < a.groups; ++g) {
      T m = means[g * width], m2 = m2s[g * width];
      for (int64_t k = 1; k < width; ++k) {  // channels k take in one more, each of `rows` numbers
        const T d = means[g * width + k] - m, share = T(1) / static_cast<T>(k + 1);
        m += d * share;
        m2 += m2s[g * width + k] + d * d * (static_cast<T>(rows) * (static_cast<T>(k) * share));
      }
      const T rstd = T(1) / std::sqrt(m2 / static_cast<T>(rows * width) + static_cast<T>(a.eps));
      static_cast<T*>(a.mean)[image * a.groups + g] = m;
      static_cast<T*>(a.rstd)[image * a.groups + g] = rstd;
      for (int64_t i = g * width; i < (g + 1) * width; ++i) {
        mean[i] = m;
        scale[i] = weight ? rstd * weight[i] : rstd;
      }
    }
  };
  each_image(context, a.n, rows, c, statistics, merge, [&](int64_t image, int64_t begin, int64_t end) {
    const T* const mean = constants(image);
    Apply<S>{x + image * rows * c, nullptr, static_cast<S*>(a.y) + image * rows * c, mean, mean + c,
             static_cast<const T*>(a.bias), c, false, past}(begin, end);
  });
}

Status group_norm(const GroupNormArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) { group_norm_run<S>(a, context); });
  return Status::ok;
}

// Of each image: its chunks of sums (2, C), and mean, rstd and three constants of each channel (5, C).
int64_t slopes_scratch(int64_t rows, int64_t c) { return (chunk_count(rows) * 2 + 5) * c; }
size_t group_norm_backward_workspace(const GroupNormBackwardArgs& a, int) {
  return static_cast<size_t>(a.n * slopes_scratch(a.positions, a.c)) * (a.dtype == DType::float64 ? 8 : 4);
}

template <class S>
void group_norm_backward_run(const GroupNormBackwardArgs& a, Context& context) {
  using T = Compute<S>;
  const int64_t c = a.c, rows = a.positions, step = chunk_rows(rows), chunks = chunk_count(rows);
  const int64_t width = c / max_of(a.groups, int64_t{1});
  const T* weight = static_cast<const T*>(a.weight);
  S* dx = static_cast<S*>(a.dx);
  const bool past = !a.accumulate_x && rows_past_caches<S>(dx, a.n * rows * c, c);
  const auto scratch = [&](int64_t image) { return static_cast<T*>(context.workspace) + image * slopes_scratch(rows, c); };
  const auto constants = [&](int64_t image) { return scratch(image) + chunks * 2 * c; };
  const auto slopes = [&](int64_t image) {
    const int64_t at = image * rows * c;
    const T* const mean = constants(image);
    return Slopes<S>{static_cast<const S*>(a.x) + at, nullptr, static_cast<const S*>(a.dy) + at, mean, mean + c, c};
  };
  for (int64_t image = 0; image < a.n; ++image)  // statistics of groups at each channel
    for (int64_t i = 0; i < c; ++i) {
      constants(image)[i] = static_cast<const T*>(a.mean)[image * a.groups + i / width];
      constants(image)[c + i] = static_cast<const T*>(a.rstd)[image * a.groups + i / width];
    }
  const auto add = [&](int64_t image, int64_t chunk) {
    T* const mine = scratch(image) + chunk * 2 * c;
    slopes(image).sums(chunk * step, min_of((chunk + 1) * step, rows), mine, mine + c);
  };
  const auto merge = [&](int64_t image) {
    T *const sum_g = scratch(image), *const sum_gx = sum_g + c;
    for (int64_t chunk = 1; chunk < chunks; ++chunk)
      for (int64_t i = 0; i < 2 * c; ++i) sum_g[i] += sum_g[chunk * 2 * c + i];
    T *const rstd = constants(image) + c, *const factor = rstd + c, *const shift = factor + c, *const slope = shift + c;
    for (int64_t g = 0; g < a.groups; ++g) {
      T total = 0, total_x = 0;
      for (int64_t i = g * width; i < (g + 1) * width; ++i) {
        total += weight ? weight[i] * sum_g[i] : sum_g[i];
        total_x += weight ? weight[i] * sum_gx[i] : sum_gx[i];
      }
      const T inverse = T(1) / static_cast<T>(max_of(rows * width, int64_t{1}));
      for (int64_t i = g * width; i < (g + 1) * width; ++i) {
        factor[i] = weight ? rstd[i] * weight[i] : rstd[i];
        shift[i] = rstd[i] * (total * inverse);
        slope[i] = rstd[i] * (total_x * inverse) * rstd[i];
      }
    }
  };
  each_image(context, a.n, rows, c, add, merge, [&](int64_t image, int64_t begin, int64_t end) {
    const T* const factor = constants(image) + 2 * c;
    if (dx)
      slopes(image).dx(begin, end, factor, factor + c, factor + 2 * c, dx + image * rows * c, a.accumulate_x, past, nullptr, false,
                       false);
  });
  const auto total = [&](T* to, int64_t part, bool accumulate) {
    for (int64_t i = 0; to && i < c; ++i) {
      T v = 0;
      for (int64_t image = 0; image < a.n; ++image) v += scratch(image)[part * c + i];
      to[i] = accumulate ? to[i] + v : v;
    }
  };
  total(static_cast<T*>(a.dbias), 0, a.accumulate_bias);
  total(static_cast<T*>(a.dweight), 1, a.accumulate_weight);
}

Status group_norm_backward(const GroupNormBackwardArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) { group_norm_backward_run<S>(a, context); });
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_batch_norm(KernelTable& table) {
  add_kernel<BatchNormArgs, batch_norm, floating_only, batch_norm_workspace<BatchNormArgs>>(table,
                                                                                      SMELT_KERNEL_NAME("batch_norm"));
  add_kernel<BatchNormBackwardArgs, batch_norm_backward, floating_only, batch_norm_workspace<BatchNormBackwardArgs>>(
      table, SMELT_KERNEL_NAME("batch_norm_backward"));
  add_kernel<GroupNormArgs, group_norm, floating_only, group_norm_workspace>(table, SMELT_KERNEL_NAME("group_norm"));
  add_kernel<GroupNormBackwardArgs, group_norm_backward, floating_only, group_norm_backward_workspace>(
      table, SMELT_KERNEL_NAME("group_norm_backward"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
