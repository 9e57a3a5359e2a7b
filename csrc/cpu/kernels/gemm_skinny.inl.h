// Products of very few rows or columns, or small altogether, straight from the source: packing would cost more than the
// product.
//
//   direct_product  small, b as it is stored: a tile in registers, as in gemm_tile.inl.h
//   dot_product     c = a b^T, both with the depth along a row: dot products of rows
//   row_product     few rows times b as it is stored: multiples of whole rows of b are added up
#pragma once
#include "cpu/kernels/gemm_core.inl.h"

namespace smelt {
namespace {

// Few rows or columns over a depth that is long beside them.
inline bool by_dots(const GemmArgs& a) {
  const int64_t few = min_of(a.m, a.n);
  return !a.column_sums && !a.transpose_a && a.transpose_b && few <= 24 && a.k >= 64 * min_of(few, int64_t{4});
}
inline bool by_rows(const GemmArgs& a) { return !a.column_sums && !a.transpose_b && a.m <= 6; }

// So small that both operands stay in the first cache.
inline bool by_direct_tiles(const GemmArgs& a) {
  return !a.column_sums && !a.transpose_b && a.m * a.n <= 4096 && a.k <= 64;
}

// R rows and two vectors of columns, `whole` or up to that; element(i, p) is one of a.
template <class V, int R, bool whole, class S, class A, class C>
__attribute__((noinline)) void direct_tile(int64_t k, const A& element, const S* b, int64_t ldb, C* const* c_rows, int columns,
                                           const Epilogue<typename V::T>& e) {
  V acc[R][2];
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) acc[i][0] = acc[i][1] = V::zero();
  const int first = whole ? V::W : min_of(columns, V::W), second = whole ? V::W : columns - first;
  for (int64_t p = 0; p < k; ++p, b += ldb) {
    const V b0 = load<V>(b, first), b1 = second == 0 ? V::zero() : load<V>(b + V::W, second);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      const V a = V::set(element(i, p));
      acc[i][0] = add_product(acc[i][0], a, b0);
      acc[i][1] = add_product(acc[i][1], a, b1);
    }
  }
  write_tile<V, R, 2>(acc, c_rows, R, columns, e);
}

// Rows from i on in steps of R, the rest in smaller ones.
template <class V, int R, class S, class C>
void direct_rows(const Extent& x, int64_t i, const S* a, int64_t row_step, int64_t depth_step, const S* b, int64_t ldb, C* c,
                 int64_t ldc, const Epilogue<typename V::T>& whole) {
  for (; i + R <= x.m; i += R) {
    const S* rows = a + i * row_step;
    const auto element = [=](int r, int64_t p) -> typename V::T { return from_storage(rows[r * row_step + p * depth_step]); };
    for (int64_t j = 0; j < x.n; j += 2 * V::W) {
      C* c_rows[R];
      for (int r = 0; r < R; ++r) c_rows[r] = c + (i + r) * ldc + j;
      Epilogue<typename V::T> e = whole;
      if (e.bias) e.bias += j;
      const int columns = static_cast<int>(min_of(x.n - j, int64_t{2 * V::W}));
      if (columns == 2 * V::W)
        direct_tile<V, R, true>(x.k, element, b + j, ldb, c_rows, columns, e);
      else
        direct_tile<V, R, false>(x.k, element, b + j, ldb, c_rows, columns, e);
    }
  }
  if constexpr (R > 1)
    if (i < x.m) direct_rows<V, (R > 4 ? 4 : R / 2)>(x, i, a, row_step, depth_step, b, ldb, c, ldc, whole);
}

template <class V, class S, class C>
void direct_product(const Extent& x, bool transpose_a, const S* a, int64_t lda, const S* b, int64_t ldb, C* c, int64_t ldc,
                    const Epilogue<typename V::T>& e) {
  direct_rows<V, 6>(x, 0, a, transpose_a ? 1 : lda, transpose_a ? lda : 1, b, ldb, c, ldc, e);
}

// Sums of R rows of a times Q rows of b, to out[i * Q + j].
template <class V, int R, int Q, class S>
__attribute__((noinline)) void dot_tile(int64_t k, const S* a, int64_t lda, const S* b, int64_t ldb, typename V::T* out) {
  V acc[R][Q];
#pragma GCC unroll 4
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < Q; ++j) acc[i][j] = V::zero();
  each_vector<V>(k, [&](int64_t p, int lanes) __attribute__((always_inline)) {
    V av[R];
#pragma GCC unroll 4
    for (int i = 0; i < R; ++i) av[i] = load<V>(a + i * lda + p, lanes);
#pragma GCC unroll 8
    for (int j = 0; j < Q; ++j) {
      const V bv = load<V>(b + j * ldb + p, lanes);
#pragma GCC unroll 4
      for (int i = 0; i < R; ++i) acc[i][j] = fma(av[i], bv, acc[i][j]);
    }
  });
#pragma GCC unroll 4
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < Q; ++j) out[i * Q + j] = sum(acc[i][j]);
}

// R rows times `columns` columns, as many at once as registers hold. Each sum is formed in the same way in every tile.
template <class V, int R, int Q, class S, class C>
void dot_rows(int64_t k, const S* a, int64_t lda, const S* b, int64_t ldb, C* c, int64_t ldc, int64_t columns,
              Epilogue<typename V::T> e) {
  using T = typename V::T;
  int64_t j = 0;
  for (; j + Q <= columns; j += Q) {
    T sums[R * Q];
    dot_tile<V, R, Q>(k, a, lda, b + j * ldb, ldb, sums);
    T* sums_of_row[R];
    C* c_rows[R];
    for (int i = 0; i < R; ++i) {
      sums_of_row[i] = sums + i * Q;
      c_rows[i] = c + i * ldc + j;
    }
    finish_tile<V>(sums_of_row, c_rows, R, Q, e);
    if (e.bias) e.bias += Q;
  }
  if constexpr (Q > 1)
    if (j < columns) dot_rows<V, R, (Q > 4 ? 4 : Q / 2)>(k, a, lda, b + j * ldb, ldb, c + j, ldc, columns - j, e);
}

template <class V, class S, class C>
void dot_product(Context& context, const Extent& x, const S* a, int64_t lda, const S* b, int64_t ldb, C* c, int64_t ldc,
                 const Epilogue<typename V::T>& epilogue, bool alone) {
  // A block of rows of a stays in the second cache while b passes by; some rows of b stay in the first.
  const int64_t row_block = max_of(int64_t{3}, 32768 / max_of(x.k, int64_t{1}) / 3 * 3);
  constexpr int64_t kColumns = 12;
  const auto part = [&](int64_t first_row, int64_t last_row, int64_t first, int64_t last) {
    Epilogue<typename V::T> e = epilogue;
    for (int64_t i0 = first_row; i0 < last_row; i0 += row_block) {
      const int64_t end = min_of(i0 + row_block, last_row);
      for (int64_t j = first; j < last; j += kColumns) {
        const int64_t count = min_of(kColumns, last - j);
        e.bias = epilogue.bias ? epilogue.bias + j : nullptr;
        for (int64_t i = i0; i < end; i += 3) {
          const S* rows = a + i * lda;
          C* out = c + i * ldc + j;
          const int64_t rest = end - i;
          if (rest >= 3)
            dot_rows<V, 3, 4>(x.k, rows, lda, b + j * ldb, ldb, out, ldc, count, e);
          else if (rest == 2)
            dot_rows<V, 2, 6>(x.k, rows, lda, b + j * ldb, ldb, out, ldc, count, e);
          else
            dot_rows<V, 1, 8>(x.k, rows, lda, b + j * ldb, ldb, out, ldc, count, e);
        }
      }
    }
  };
  if (alone || is_small(x)) return part(0, x.m, 0, x.n);
  constexpr int64_t kPiece = 12;  // whole tiles
  const bool by_rows = x.m > x.n;
  parallel_for(context, ceil_div(by_rows ? x.m : x.n, kPiece), 1, [&](int64_t begin, int64_t end) {
    begin *= kPiece;
    end *= kPiece;
    by_rows ? part(begin, min_of(end, x.m), 0, x.n) : part(0, x.m, begin, min_of(end, x.n));
  });
}

// sums[r][j] += over q of a[q][r] times b[q][j], for R rows and Q rows of b.
template <class V, int R, int Q, class S>
void add_rows(const typename V::T (&a)[Q][R], const S* b, int64_t ldb, int64_t columns, typename V::T* const* sums) {
  each_vector<V>(columns, [&](int64_t j, int lanes) {
    V bv[Q];
    for (int q = 0; q < Q; ++q) bv[q] = load<V>(b + q * ldb + j, lanes);
    for (int r = 0; r < R; ++r) {
      V v = load<V>(sums[r] + j, lanes);
      for (int q = 0; q < Q; ++q) v = fma(V::set(a[q][r]), bv[q], v);
      store(sums[r] + j, v, lanes);
    }
  });
}

constexpr int64_t kRowsAtOnce = 4;

// R rows from row i on, columns [first, last); a(i, p) is an element of a.
template <class V, int R, class S, class C, class A>
void few_rows(int64_t i, int64_t k, const A& a, const S* b, int64_t ldb, C* c, int64_t ldc, int64_t first, int64_t last,
              Epilogue<typename V::T> e) {
  using T = typename V::T;
  constexpr int64_t kColumns = 1024;  // whose sums stay in the first cache
  const T* const bias = e.bias;
  for (int64_t j = first; j < last; j += kColumns) {
    const int64_t count = min_of(kColumns, last - j);
    T sums[R][kColumns];
    T* sums_of_row[R];
    C* c_rows[R];
    for (int r = 0; r < R; ++r) {
      for (int64_t q = 0; q < count; ++q) sums[r][q] = 0;
      sums_of_row[r] = sums[r];
      c_rows[r] = c + (i + r) * ldc + j;
    }
    int64_t p = 0;
    for (; p + kRowsAtOnce <= k; p += kRowsAtOnce) {
      T factors[kRowsAtOnce][R];
      for (int q = 0; q < kRowsAtOnce; ++q)
        for (int r = 0; r < R; ++r) factors[q][r] = a(i + r, p + q);
      add_rows<V, R, kRowsAtOnce>(factors, b + p * ldb + j, ldb, count, sums_of_row);
    }
    for (; p < k; ++p) {
      T factors[1][R];
      for (int r = 0; r < R; ++r) factors[0][r] = a(i + r, p);
      add_rows<V, R, 1>(factors, b + p * ldb + j, ldb, count, sums_of_row);
    }
    e.bias = bias ? bias + j : nullptr;
    finish_tile<V>(sums_of_row, c_rows, R, static_cast<int>(count), e);
  }
}

template <class V, class S, class C, class A>
void row_product(Context& context, const Extent& x, const A& a, const S* b, int64_t ldb, C* c, int64_t ldc,
                 const Epilogue<typename V::T>& e, bool alone) {
  const auto columns = [&](int64_t first, int64_t last) {
    int64_t i = 0;
    for (; i + 2 <= x.m; i += 2) few_rows<V, 2>(i, x.k, a, b, ldb, c, ldc, first, last, e);
    if (i < x.m) few_rows<V, 1>(i, x.k, a, b, ldb, c, ldc, first, last, e);
  };
  if (alone || is_small(x)) return columns(0, x.n);
  constexpr int64_t kPiece = 64;
  parallel_for(context, ceil_div(x.n, kPiece), 1, [&](int64_t begin, int64_t end) {
    columns(begin * kPiece, min_of(end * kPiece, x.n));
  });
}

}  // namespace
}  // namespace smelt
