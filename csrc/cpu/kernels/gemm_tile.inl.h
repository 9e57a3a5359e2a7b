// One tile of a matrix product: its shape, the layouts of A, the kernel that sums it up, and what happens at its end.
#pragma once
#include "blocking.h"  // of the instruction set
#include "cpu/kernels/common.inl.h"
#include "formulas/unary.inl.h"

namespace smelt {
namespace {

// How a panel of A lies in memory. Row-major with a constant row pitch or interleaved (k, kMr), whichever is a plain copy of the
// source; or not copied at all, as runs of elements that lie together, each run with a pointer for every row, or as columns
// of the source that lie together; or as whole tiles, for units that read those.
enum class LayoutA { rows, interleaved, runs, columns, tiles };

// Runs of one length that cover the depth: element c of run r of row i is pointers[r * kMr + i][c]. Lies at the start of a
// panel's memory.
template <class T>
struct Runs {
  int64_t length;       // of a run
  int64_t skip;         // elements of the first run that come before this block of the depth
  const T* pointers[];  // (runs, kMr)
};

// Elements of one depth that lie together, and the way to those of the next one. Lies at the start of a panel's memory.
template <class T>
struct Columns {
  const T* first;
  int64_t step;
};

// What happens to a finished element: v = alpha * v, + c (old content or earlier depth blocks), + bias, + residual, activation. A
// result that is narrower than its sums is rounded before each of the last two, as by ops of their own.
template <class T>
struct Epilogue {
  T alpha = 1;
  const T* bias = nullptr;  // (n)
  Activation activation = Activation::none;
  bool add = false;          // to what is in c
  bool last = true;          // depth block: bias, residual and activation
  int64_t residual = 0;      // bytes from an element of c to its residual; 0 where there is none
  T* column_sums = nullptr;  // (n) of the whole product, or null
  T* partial_sums = nullptr;  // those of each panel of rows, (panels, n rounded up to 16)
};

// sum + a b; instruction sets with few registers have their own.
template <class V>
V add_product(V sum, V a, V b) {
  return fma(a, b, sum);
}

// Lanes of the residual that belong to those at c.
template <class V, class C>
V load_residual(const C* c, int64_t distance, int lanes) {
  return load<V>(reinterpret_cast<const C*>(reinterpret_cast<const char*>(c) + distance), lanes);
}

// A tile's sums from memory to where they belong, which may be narrower. Out of line: the sums need all registers.
template <class V, class C>
__attribute__((noinline)) void finish_tile(typename V::T* const* sums, C* const* c_rows, int rows, int columns,
                                           const Epilogue<typename V::T>& e) {
  const V alpha = V::set(e.alpha);
  for (int i = 0; i < rows; ++i)
    each_vector<V>(columns, [&](int64_t j, int lanes) {
      V v = alpha * load<V>(sums[i] + j, lanes);
      if (e.add) v = load<V>(c_rows[i] + j, lanes) + v;
      if (e.last) {
        if (e.bias) v = v + load<V>(e.bias + j, lanes);
        if (e.residual) v = rounded<C>(v) + load_residual<V>(c_rows[i] + j, e.residual, lanes);
        if (e.activation != Activation::none) v = activate(e.activation, rounded<C>(v));
      }
      store(c_rows[i] + j, v, lanes);
    });
}

// A tile's sums from registers. Most tiles of a large product are whole, with no more than a bias and a ReLU at their end.
template <class V, int R, int NV, class C>
SMELT_INLINE void write_tile(const V (&acc)[R][NV], C* const* c_rows, int rows, int columns, const Epilogue<typename V::T>& e) {
  const bool relu = e.last && e.activation == Activation::relu, biased = e.last && e.bias;
  const bool more = e.last && (e.residual || (e.activation != Activation::none && !relu));
  if (rows == R && !more) {
    const bool plain = e.alpha == 1 && !e.add && !biased && !relu;
    const V alpha = V::set(e.alpha);
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) {
      const int lanes = columns - j * V::W;
      if (lanes >= V::W) {
        if (plain) {
#pragma GCC unroll 16
          for (int i = 0; i < R; ++i) acc[i][j].store(c_rows[i] + j * V::W);
          continue;
        }
        const V bias = biased ? V::load(e.bias + j * V::W) : V::zero();
#pragma GCC unroll 16
        for (int i = 0; i < R; ++i) {
          C* c = c_rows[i] + j * V::W;
          V v = alpha * acc[i][j];
          if (e.add) v = V::load(c) + v;
          if (biased) v = v + bias;
          if (relu) v = activate(Activation::relu, v);
          v.store(c);
        }
      } else if (lanes > 0) {
        const V bias = biased ? V::load(e.bias + j * V::W, lanes) : V::zero();
#pragma GCC unroll 16
        for (int i = 0; i < R; ++i) {
          C* c = c_rows[i] + j * V::W;
          V v = alpha * acc[i][j];
          if (e.add) v = V::load(c, lanes) + v;
          if (biased) v = v + bias;
          if (relu) v = activate(Activation::relu, v);
          v.store(c, lanes);
        }
      }
    }
    return;
  }
  typename V::T sums[R * NV * V::W];
  typename V::T* row_sums[R];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    row_sums[i] = sums + i * NV * V::W;
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) acc[i][j].store(row_sums[i] + j * V::W);
  }
  finish_tile<V>(row_sums, c_rows, rows, columns, e);
}

// c[i][j] over a tile of `rows` <= R rows and `columns` columns, c_rows[i] being the row's first element of this tile.
template <class Shape, int R, int NV, LayoutA layout, class T, class C>
__attribute__((noinline)) void micro_kernel(int64_t k, const T* a, const T* b, C* const* c_rows, int rows, int columns,
                                            const Epilogue<T>& e) {
  using V = typename Shape::Vector;
  // One vector of columns has too few sums to fill the units: every other step of the depth has sums of its own.
  constexpr int kSets = NV == 1 && Shape::kMr <= 8 ? 2 : 1;
  V sets[kSets][R][NV];
#pragma GCC unroll 2
  for (int u = 0; u < kSets; ++u)
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) sets[u][i][j] = V::zero();

  // The tile of c is asked for now, to be here when the sums are.
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    __builtin_prefetch(c_rows[i], 1);
    __builtin_prefetch(c_rows[i] + columns - 1, 1);
  }

  // One step of the depth, element(i) being that of row i.
  const auto advance = [&](V (&acc)[R][NV], const auto& element) __attribute__((always_inline)) {
    V bv[NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) bv[j] = V::load(b + j * V::W);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const V av = V::set(element(i));
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) acc[i][j] = Shape::multiply_add(av, bv[j], acc[i][j]);
    }
    b += Shape::kNr;
  };
  // Several steps at once: where another thread shares the core's units, every instruction beside the sums counts.
  const auto advance_all = [&](int64_t steps, const auto& element) __attribute__((always_inline)) {
    constexpr int kAtOnce = 4;
    int64_t p = 0;
    for (; p + kAtOnce <= steps; p += kAtOnce)
#pragma GCC unroll 4
      for (int u = 0; u < kAtOnce; ++u)
        advance(sets[u % kSets], [&](int i) __attribute__((always_inline)) { return element(i, p + u); });
    for (; p < steps; ++p) advance(sets[0], [&](int i) __attribute__((always_inline)) { return element(i, p); });
  };
  if constexpr (layout == LayoutA::runs) {
    const auto* runs = reinterpret_cast<const Runs<T>*>(a);
    const T* const* pointers = runs->pointers;
    for (int64_t c = runs->skip; k > 0; c = 0, pointers += Shape::kMr) {
      const int64_t steps = min_of(runs->length - c, k);
      k -= steps;
      advance_all(steps, [&](int i, int64_t p) __attribute__((always_inline)) { return pointers[i][c + p]; });
    }
  } else if constexpr (layout == LayoutA::columns) {
    const auto* columns_of_a = reinterpret_cast<const Columns<T>*>(a);
    const T* const first = columns_of_a->first;
    const int64_t step = columns_of_a->step;
    advance_all(k, [&](int i, int64_t p) __attribute__((always_inline)) { return first[p * step + i]; });
  } else {
    constexpr int64_t kRowStep = layout == LayoutA::rows ? Shape::kPitch : 1, kStep = layout == LayoutA::rows ? 1 : Shape::kMr;
    advance_all(k, [&](int i, int64_t p) __attribute__((always_inline)) { return a[i * kRowStep + p * kStep]; });
  }

  if constexpr (kSets == 2)
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) sets[0][i][0] = sets[0][i][0] + sets[1][i][0];
  write_tile<V, R, NV>(sets[0], c_rows, rows, columns, e);
}

// The smallest micro-kernel that covers the tile: rows in steps of 2, one vector, two or all of them.
template <class Shape, LayoutA layout, int R = 2, class T, class C>
inline void run_tile(int64_t k, const T* a, const T* b, C* const* c_rows, int rows, int columns, const Epilogue<T>& e) {
  if constexpr (R < Shape::kMr) {
    if (rows > R) return run_tile<Shape, layout, R + 2>(k, a, b, c_rows, rows, columns, e);
  }
  if (columns <= Shape::Vector::W) return micro_kernel<Shape, R, 1, layout>(k, a, b, c_rows, rows, columns, e);
  if constexpr (Shape::kVectors > 2)
    if (columns <= 2 * Shape::Vector::W) return micro_kernel<Shape, R, 2, layout>(k, a, b, c_rows, rows, columns, e);
  micro_kernel<Shape, R, Shape::kVectors, layout>(k, a, b, c_rows, rows, columns, e);
}

// What the loops around it know of a tile of M rows by N vectors. This one's elements are those of the product.
template <class V, int M, int N>
struct TileOf {
  using Vector = V;
  static constexpr int kMr = M;
  static constexpr int kVectors = N;
  static constexpr int kNr = kVectors * V::W;
  static constexpr int kDepthStep = 1;             // whole ones make up a product's depth
  static constexpr bool kNarrows = false;          // whether it writes results narrower than the sums
  static constexpr int64_t kPitch = kBlockK + 16;  // of a packed row of A: no power of two
  static constexpr int64_t kPanel = kMr * kPitch;  // elements of a panel of A
  struct Scope {};                                 // what a thread needs while it multiplies
  static V multiply_add(V a, V b, V c) { return add_product(c, a, b); }
  template <LayoutA layout>
  static void run(int64_t k, const typename V::T* a, const typename V::T* b, typename V::T* const* c_rows, int rows, int columns,
                  const Epilogue<typename V::T>& e) {
    run_tile<TileOf, layout>(k, a, b, c_rows, rows, columns, e);
  }
};
// float64 has one lane: a small tile for checks.
template <class V>
struct Tile : TileOf<V, __is_same(V, VecF) ? kTileM : 4, __is_same(V, VecF) ? kTileVectors : 4> {};

}  // namespace
}  // namespace smelt
