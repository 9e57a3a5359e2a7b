// What batch and group normalisation share: statistics and sums down the columns of (rows, C). Statistics are (mean, M2) of blocks of rows,
// merged in order: the mean of squares minus the square of the mean would lose everything when the mean is large. Means are
// those of differences to a first value, and blocks are short, so that errors grow neither with the mean nor with the number of
// rows. Parameters and statistics of halves are float32.
#pragma once
#include "cpu/kernels/common.inl.h"
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
  using V = Vec<S>;
  using T = Compute<S>;
  const S *x, *residual;
  S* y;
  const T *mean, *scale, *bias;
  int64_t c;
  bool relu, past;
  void operator()(int64_t begin, int64_t end) const {
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

// ----------------------------------------------------------------------------------------------------------- backward

// The largest number that is 0 once it is stored: half of the smallest subnormal one, which goes to the even neighbour.
template <class S>
constexpr Compute<S> kStoredAsZero = 0;
template <>
constexpr float kStoredAsZero<bfloat16> = 0x1p-134f;
template <>
constexpr float kStoredAsZero<float16> = 0x1p-25f;

// The gradient before a relu that was given `in`, or gave `in`, and stored its result as an S.
template <class S, class V>
inline V before_relu(V in, V g) {
  return select(V::set(kStoredAsZero<S>) < in, g, select(is_nan(in), in, V::zero()));
}

// The sums of g and of g times the normalised x down columns, and then dx = a g - b - (x - mean) d with constants of each column.
template <class S>
struct Slopes {
  using V = Vec<S>;
  using T = Compute<S>;
  const S *x, *y, *dy;  // y: of a relu behind a residual, or null
  const T* relu_bias;   // with it x tells what came out of the relu; or null
  const T *mean, *rstd, *factor;
  int64_t c;

  V gradient(int64_t at, V centred, int64_t i, int lanes) const {  // behind the activation
    const V g = load<V>(dy + at, lanes);
    if (!y && !relu_bias) return g;
    return before_relu<S>(y ? load<V>(y + at, lanes) : centred * load<V>(factor + i, lanes) + load<V>(relu_bias + i, lanes), g);
  }
  V centred(int64_t at, int64_t i, int lanes) const { return load<V>(x + at, lanes) - load<V>(mean + i, lanes); }

  void sums(int64_t begin, int64_t end, T* sum_g, T* sum_gx) const {
    down_columns<V>(begin, end, c, sum_g, sum_gx, [&](int64_t at, int64_t i, int lanes, V& s, V& t) {
      const V middle = centred(at, i, lanes), g = gradient(at, middle, i, lanes);
      s = s + g;
      t = fma(g, middle * load<V>(rstd + i, lanes), t);
    });
  }
  // b and d: two constants of each column.
  void dx(int64_t begin, int64_t end, const T* b, const T* d, S* dx, bool accumulate, bool past, S* dresidual,
          bool accumulate_residual, bool residual_past) const {
    each_row<V>(begin, end, c, [&](int64_t at, int64_t i, int lanes) {
      const V middle = centred(at, i, lanes), g = gradient(at, middle, i, lanes);
      if (dx) {
        V v = fma(load<V>(factor + i, lanes), g, -load<V>(b + i, lanes));
        v = fma(-middle, load<V>(d + i, lanes), v);
        put(dx + at, accumulate ? load<V>(dx + at, lanes) + v : v, lanes, past);
      }
      if (dresidual) put(dresidual + at, accumulate_residual ? load<V>(dresidual + at, lanes) + g : g, lanes, residual_past);
    });
    if (past || residual_past) end_stream();
  }
};

}  // namespace
}  // namespace smelt
