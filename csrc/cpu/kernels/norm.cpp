// Layer normalisation and its form without means, over rows: a row is read from memory once and stays in a cache for its other
// looks. Statistics are the mean, then the sum of squared distances to it, of parts of a row that the first cache holds, merged
// in order: the mean of squares minus the square of the mean would lose everything when the mean is large. Parameters and
// statistics of halves are float32.
#include "cpu/kernels/common.inl.h"
#include "cpu/kernels/families.h"
#include "cpu/kernels/row_chunks.inl.h"

namespace smelt {
namespace {

constexpr int64_t kGrain = 16384;
constexpr int64_t kPart = 4096;  // elements of a row that are looked at twice in a row
constexpr int kTogether = 4;     // rows whose parts of the column sums are added in registers

// The sum along n elements in four chains; more(sum, i, lanes) adds to one, and nothing in lanes that are not there.
template <class V, class F>
inline typename V::T sum_along(int64_t n, const F& more) {
  V a = V::zero(), b = a, c = a, d = a;
  int64_t i = 0;
  for (; i + 4 * V::W <= n; i += 4 * V::W) {
    a = more(a, i, V::W);
    b = more(b, i + V::W, V::W);
    c = more(c, i + 2 * V::W, V::W);
    d = more(d, i + 3 * V::W, V::W);
  }
  for (; i + V::W <= n; i += V::W) a = more(a, i, V::W);
  if (i < n) b = more(b, i, static_cast<int>(n - i));
  return sum((a + b) + (c + d));
}

template <class T>
struct Moments {
  T mean, m2;
};

template <class V, class S>
inline Moments<typename V::T> part_moments(const S* x, int64_t n) {
  using T = typename V::T;
  // Of differences to a first value: the error does not grow with the mean.
  const T start = from_storage(x[0]);
  const V first = V::set(start);
  const auto difference = [&](V s, int64_t i, int lanes) { return s + keep_lanes(load<V>(x + i, lanes) - first, lanes); };
  const T mean = start + sum_along<V>(n, difference) / static_cast<T>(n);
  const V middle = V::set(mean);
  const T m2 = sum_along<V>(n, [&](V s, int64_t i, int lanes) {
    const V d = keep_lanes(load<V>(x + i, lanes) - middle, lanes);
    return fma(d, d, s);
  });
  return {mean, m2};
}

// Parts are merged by Chan's rule.
template <class V, class S>
inline Moments<typename V::T> row_moments(const S* x, int64_t n) {
  using T = typename V::T;
  if (n == 0) return {T(0), T(0)};
  Moments<T> all = part_moments<V>(x, min_of(n, kPart));
  for (int64_t begin = kPart; begin < n; begin += kPart) {
    const int64_t count = min_of(kPart, n - begin);
    const Moments<T> part = part_moments<V>(x + begin, count);
    const T total = static_cast<T>(begin + count), d = part.mean - all.mean;
    all.mean += d * (static_cast<T>(count) / total);
    all.m2 += part.m2 + d * d * (static_cast<T>(begin) * static_cast<T>(count) / total);
  }
  return all;
}

// ---------------------------------------------------------------------------------------------------------- forward

// What both kinds have.
template <class T>
struct Rows {
  const void *x, *residual;
  const T *weight, *bias;
  void *y, *sum;
  T *mean, *rstd;  // mean: null without means
  int64_t rows, d;
  double eps;
};

// kRows rows look by look, so that the chains of one row's sums wait for no others.
template <bool kCentred, int kRows, class S>
void forward_rows(const Rows<Compute<S>>& a, int64_t row, bool past) {
  using V = Vec<S>;
  using T = typename V::T;
  const int64_t d = a.d;
  const T *const weight = a.weight, *const bias = a.bias;
  const S* x = static_cast<const S*>(a.x) + row * d;
  if (a.residual) {
    const S* more = static_cast<const S*>(a.residual) + row * d;
    S* both = static_cast<S*>(a.sum) + row * d;
    each_vector<V>(kRows * d, [&](int64_t i, int lanes) {
      store(both + i, load<V>(x + i, lanes) + load<V>(more + i, lanes), lanes);
    });
    x = both;
  }
  Moments<T> moments[kRows];
  for (int r = 0; r < kRows; ++r) {
    const S* const own = x + r * d;
    if constexpr (kCentred)
      moments[r] = row_moments<V>(own, d);
    else
      moments[r] = {T(0), sum_along<V>(d, [&](V s, int64_t i, int lanes) {
        const V v = load<V>(own + i, lanes);
        return fma(v, v, s);
      })};
  }
  for (int r = 0; r < kRows; ++r) {
    const T rstd = T(1) / std::sqrt(moments[r].m2 / static_cast<T>(d) + static_cast<T>(a.eps));
    if constexpr (kCentred) a.mean[row + r] = moments[r].mean;
    a.rstd[row + r] = rstd;
    const V mean = V::set(moments[r].mean), scale = V::set(rstd);
    const S* const own = x + r * d;
    each_written<V>(static_cast<S*>(a.y) + (row + r) * d, d, past, [&](int64_t i, int lanes) {
      fetch<V>(own + kRows * d + i);
      V v = load<V>(own + i, lanes);
      if constexpr (kCentred) v = v - mean;
      v = v * scale;
      if (weight) v = v * load<V>(weight + i, lanes);
      if (bias) v = v + load<V>(bias + i, lanes);
      return v;
    });
  }
}

template <bool kCentred, class S>
void forward(const Rows<Compute<S>>& a, Context& context) {
  const bool past = past_caches<S>(a.rows * a.d);
  const int64_t together = a.d <= kPart / kTogether ? kTogether : 1;  // what the first cache holds
  parallel_for(context, a.rows, max_of(int64_t{1}, kGrain / max_of(a.d, int64_t{1})), [&](int64_t begin, int64_t end) {
    int64_t row = begin;
    for (; together > 1 && row + kTogether <= end; row += kTogether) forward_rows<kCentred, kTogether, S>(a, row, past);
    for (; row < end; ++row) forward_rows<kCentred, 1, S>(a, row, past);
    if (past) end_stream();
  });
}

Status layer_norm(const LayerNormArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) {
    using T = Compute<S>;
    forward<true, S>({a.x, a.residual, static_cast<const T*>(a.weight), static_cast<const T*>(a.bias), a.y, a.sum,
                      static_cast<T*>(a.mean), static_cast<T*>(a.rstd), a.rows, a.d, a.eps}, context);
  });
  return Status::ok;
}
Status rms_norm(const RmsNormArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) {
    using T = Compute<S>;
    forward<false, S>({a.x, a.residual, static_cast<const T*>(a.weight), nullptr, a.y, a.sum, nullptr,
                       static_cast<T*>(a.rstd), a.rows, a.d, a.eps}, context);
  });
  return Status::ok;
}

// --------------------------------------------------------------------------------------------------------- backward

template <class T>
struct RowsBackward {
  const void *x, *dy, *dsum;
  const T *weight, *mean, *rstd;  // mean: null without means
  void* dx;
  T *dweight, *dbias;
  int64_t rows, d;
  bool accumulate_x, accumulate_weight, accumulate_bias;
  bool sums() const { return dweight || dbias; }
};
template <class Args>
size_t column_workspace(const Args& a) {
  return static_cast<size_t>(chunk_count(a.rows) * 2 * a.d) * 8;
}

// dx = rstd (g - mean(g) - normalised x mean(g normalised x)) with g = dy weight, of kRows rows together, which also add to
// the sums down the columns: rows in order, so it does not matter how many there are.
template <bool kCentred, int kRows, class S>
void backward_rows(const RowsBackward<Compute<S>>& a, int64_t row, bool past, Compute<S>* dweight, Compute<S>* dbias) {
  using V = Vec<S>;
  using T = typename V::T;
  const int64_t d = a.d;
  const S* const x = static_cast<const S*>(a.x) + row * d;
  const S* const dy = static_cast<const S*>(a.dy) + row * d;
  const S* const dsum = a.dsum ? static_cast<const S*>(a.dsum) + row * d : nullptr;
  S* const dx = a.dx ? static_cast<S*>(a.dx) + row * d : nullptr;
  const T* const weight = a.weight;
  V mean[kRows], rstd[kRows], mean_g[kRows], mean_gx[kRows];
  const auto normalised = [&](int r, int64_t i, int lanes) {
    const V v = load<V>(x + r * d + i, lanes);
    return (kCentred ? v - mean[r] : v) * rstd[r];
  };
  for (int r = 0; r < kRows; ++r) {
    mean[r] = kCentred ? V::set(a.mean[row + r]) : V::zero();
    rstd[r] = V::set(a.rstd[row + r]);
    V sum_g[2] = {V::zero(), V::zero()}, sum_gx[2] = {V::zero(), V::zero()};
    const auto more = [&](int chain, int64_t i, int lanes) {
      const V out = load<V>(dy + r * d + i, lanes), g = weight ? out * load<V>(weight + i, lanes) : out;  // 0 in empty lanes
      if constexpr (kCentred) sum_g[chain] = sum_g[chain] + g;
      sum_gx[chain] = fma(g, normalised(r, i, lanes), sum_gx[chain]);
    };
    int64_t i = 0;
    for (; i + 2 * V::W <= d; i += 2 * V::W) {
      more(0, i, V::W);
      more(1, i + V::W, V::W);
    }
    each_vector<V>(d - i, [&](int64_t at, int lanes) { more(0, i + at, lanes); });
    mean_g[r] = V::set(sum(sum_g[0] + sum_g[1]) / static_cast<T>(d));
    mean_gx[r] = V::set(sum(sum_gx[0] + sum_gx[1]) / static_cast<T>(d));
  }
  each_vector<V>(d, [&](int64_t i, int lanes) {
    const V scale = weight ? load<V>(weight + i, lanes) : V::set(T(1));
    V dw = dweight ? load<V>(dweight + i, lanes) : V::zero(), db = dbias ? load<V>(dbias + i, lanes) : V::zero();
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const V out = load<V>(dy + r * d + i, lanes), n = normalised(r, i, lanes), g = out * scale;
      dw = fma(out, n, dw);
      db = db + out;
      if (!dx) continue;
      V v = rstd[r] * fma(-n, mean_gx[r], kCentred ? g - mean_g[r] : g);
      if (dsum) v = load<V>(dsum + r * d + i, lanes) + v;
      if (a.accumulate_x) v = load<V>(dx + r * d + i, lanes) + v;
      past ? v.stream(dx + r * d + i) : store(dx + r * d + i, v, lanes);
    }
    if (dweight) store(dweight + i, dw, lanes);
    if (dbias) store(dbias + i, db, lanes);
  });
}

template <bool kCentred, class S>
void backward(const RowsBackward<Compute<S>>& a, Context& context) {
  using V = Vec<S>;
  using T = typename V::T;
  const int64_t d = a.d, step = chunk_rows(a.rows), chunks = chunk_count(a.rows);
  const bool whole = d % V::W == 0 && reinterpret_cast<uintptr_t>(a.dx) % (V::W * sizeof(S)) == 0;
  const bool past = a.dx && !a.accumulate_x && whole && past_caches<S>(a.rows * d);
  T* const partial = a.sums() ? static_cast<T*>(context.workspace) : nullptr;  // (chunks, 2, D)
  parallel_chunks(context, chunks, [&](int64_t chunk, int) {
    T* const dweight = partial ? partial + chunk * 2 * d : nullptr;
    T* const dbias = partial && kCentred ? dweight + d : nullptr;
    for (int64_t i = 0; partial && i < 2 * d; ++i) dweight[i] = 0;
    int64_t row = chunk * step;
    const int64_t end = min_of(row + step, a.rows);
    for (; row + kTogether <= end; row += kTogether) backward_rows<kCentred, kTogether, S>(a, row, past, dweight, dbias);
    for (; row < end; ++row) backward_rows<kCentred, 1, S>(a, row, past, dweight, dbias);
    if (past) end_stream();
  });
  if (!partial) return;
  parallel_for(context, d, 1024, [&](int64_t begin, int64_t end) {
    const auto total = [&](const T* from, T* to, bool accumulate) {
      each_vector<Vec<T>>(to ? end - begin : 0, [&](int64_t i, int lanes) {
        using W = Vec<T>;
        W v = load<W>(from + begin + i, lanes);
        for (int64_t chunk = 1; chunk < chunks; ++chunk) v = v + load<W>(from + chunk * 2 * d + begin + i, lanes);
        store(to + begin + i, accumulate ? load<W>(to + begin + i, lanes) + v : v, lanes);
      });
    };
    total(partial, a.dweight, a.accumulate_weight);
    total(partial + d, a.dbias, a.accumulate_bias);
  });
}

size_t layer_norm_workspace(const LayerNormBackwardArgs& a, int) { return a.dweight || a.dbias ? column_workspace(a) : 0; }
Status layer_norm_backward(const LayerNormBackwardArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) {
    using T = Compute<S>;
    backward<true, S>({a.x, a.dy, a.dsum, static_cast<const T*>(a.weight), static_cast<const T*>(a.mean),
                       static_cast<const T*>(a.rstd), a.dx, static_cast<T*>(a.dweight), static_cast<T*>(a.dbias), a.rows, a.d,
                       a.accumulate_x, a.accumulate_weight, a.accumulate_bias}, context);
  });
  return Status::ok;
}
size_t rms_norm_workspace(const RmsNormBackwardArgs& a, int) { return a.dweight ? column_workspace(a) : 0; }
Status rms_norm_backward(const RmsNormBackwardArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) {
    using T = Compute<S>;
    backward<false, S>({a.x, a.dy, a.dsum, static_cast<const T*>(a.weight), nullptr, static_cast<const T*>(a.rstd), a.dx,
                        static_cast<T*>(a.dweight), nullptr, a.rows, a.d, a.accumulate_x, a.accumulate_weight, false}, context);
  });
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_norm(KernelTable& table) {
  add_kernel<LayerNormArgs, layer_norm, floating_only>(table, SMELT_KERNEL_NAME("layer_norm"));
  add_kernel<LayerNormBackwardArgs, layer_norm_backward, floating_only, layer_norm_workspace>(
      table, SMELT_KERNEL_NAME("layer_norm_backward"));
  add_kernel<RmsNormArgs, rms_norm, floating_only>(table, SMELT_KERNEL_NAME("rms_norm"));
  add_kernel<RmsNormBackwardArgs, rms_norm_backward, floating_only, rms_norm_workspace>(
      table, SMELT_KERNEL_NAME("rms_norm_backward"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
