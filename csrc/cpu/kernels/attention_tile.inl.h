// The products of attention on a block of queries and a block of keys: what their operands look like, and one tile of them.
//
// `Operands` says how: WideOperands widens elements to what they are computed in; pairs/attention_bf16.cpp has those of
// instructions that multiply pairs of bfloat16. To both the depth of a product is counted in words of the sums' type: an
// element, or a pair of neighbours in the depth.
#pragma once
#include "cpu/kernels/gemm_pack.inl.h"

namespace smelt {
namespace {

constexpr int64_t kKeys = 128;                    // of a block, a multiple of every tile's columns
constexpr int64_t kDepth = 128;                   // words of a head's features that meet at once
constexpr int64_t kPitch = 128 + 16;              // words from row to row of a block: no power of two
template <class Tile>
constexpr int64_t kRows = round_up(64, Tile::kMr);  // queries of a block
template <class Tile>
constexpr int kTiles = kRows<Tile> / Tile::kMr;

// Columns of a tile's vectors that hold `columns`: tiles are always whole, so that their sums leave from registers.
template <class Tile>
int64_t whole_columns(int64_t columns) {
  constexpr int W = Tile::Vector::W;
  return columns <= W ? W : columns <= 2 * W ? 2 * W : columns <= 3 * W && Tile::kNr > 3 * W ? 3 * W : Tile::kNr;
}

// A row of scores becomes probabilities two vectors at a time.
template <class V>
constexpr int64_t kStep = 2 * V::W;

// A block's scores and gradients of probabilities, (kRows, kPitch) each, and what operands add to them.
template <class T>
struct BackwardRoom {
  T *scores, *dp, *more;
};

template <class Stored>
struct WideOperands {
  using S = Stored;
  using V = Vec<S>;
  using T = typename V::T;
  struct Tile : smelt::Tile<V> {
    static constexpr int64_t kPitch = smelt::kPitch, kPanel = smelt::Tile<V>::kMr * smelt::kPitch;
  };
  using Scope = typename Tile::Scope;
  static constexpr LayoutA kLayoutRows = LayoutA::rows, kLayoutAcross = LayoutA::columns;
  static constexpr int64_t words(int64_t n) { return n; }
  static constexpr int64_t words_before(int64_t n) { return n; }  // whole steps of the depth that end before element n

  // Rows of queries as A, depth [p, p + depth): panel g holds rows g kMr and on.
  static void pack_rows_of_a(const S* src, int64_t ld, int64_t rows, int64_t features, int64_t p, int64_t depth, T* dst) {
    (void)features;
    pack_rows<T>(src + p, ld, depth, static_cast<int>(rows), kPitch, dst);
    if (rows % 2) __builtin_memset(dst + rows * kPitch, 0, sizeof(T) * depth);
  }
  // Columns are rows of the source, the depth lies along them: keys.
  static void pack_across(const S* src, int64_t ld, int64_t features, int64_t depth, int64_t columns, T* dst) {
    (void)features;
    each_panel<Tile>(0, columns, depth, dst, [&](int64_t j, int count, T* panel) {
      pack_transpose<T>(src + j * ld, ld, depth, count, Tile::kNr, panel);
    });
  }
  // Columns are features, the depth lies across the rows of the source.
  static void pack_down(const S* src, int64_t ld, int64_t rows, int64_t columns, T* dst) {
    each_panel<Tile>(0, columns, rows, dst, [&](int64_t j, int count, T* panel) {
      pack_copy<T>(src + j, ld, rows, count, Tile::kNr, panel);
    });
  }

  template <LayoutA layout>
  static void run(int64_t depth, const T* a, const T* b, T* const* c_rows, int rows, int columns, const Epilogue<T>& e) {
    if constexpr (Tile::kVectors > 3)  // heads of 40 and 48 features
      if (columns == 3 * V::W) return three_vectors<layout>(depth, a, b, c_rows, rows, e);
    run_tile<Tile, layout>(depth, a, b, c_rows, rows, columns, e);
  }

  // Where probabilities p and gradients of scores ds go: scores and gradients of probabilities are overwritten.
  static constexpr int64_t kProbabilities = 0;  // words besides the scores, forward; and backward
  static constexpr int64_t kBackward = 0;
  static void put(T* scores, T*, int64_t i, int64_t j, V a, V b) {
    a.store(scores + i * kPitch + j);
    b.store(scores + i * kPitch + j + V::W);
  }
  static const T* probabilities(const T* scores, const T*, int g) { return scores + g * Tile::kPanel; }

  // Rows i and i + 1, two vectors of each.
  static void put(const BackwardRoom<T>& m, int64_t i, int64_t j, const V (&p)[2][2], const V (&ds)[2][2]) {
    for (int r = 0; r < 2; ++r) {
      put(m.scores, nullptr, i + r, j, p[r][0], p[r][1]);
      put(m.dp, nullptr, i + r, j, ds[r][0], ds[r][1]);
    }
  }
  static void finish(const BackwardRoom<T>&, int64_t, int64_t) {}
  static const T* ds_rows(const BackwardRoom<T>& m, int g) { return m.dp + g * Tile::kPanel; }
  // Panel g of keys as rows of A, the depth being queries from `first` on; `room` is that of one such operand.
  static const T* p_across(const BackwardRoom<T>& m, int64_t first, int g, Columns<T>* room) {
    return across(m.scores, first, g, room);
  }
  static const T* ds_across(const BackwardRoom<T>& m, int64_t first, int g, Columns<T>* room) {
    return across(m.dp, first, g, room);
  }

 private:
  template <LayoutA layout, int R = 2>
  static void three_vectors(int64_t depth, const T* a, const T* b, T* const* c_rows, int rows, const Epilogue<T>& e) {
    if constexpr (R < Tile::kMr)
      if (rows > R) return three_vectors<layout, R + 2>(depth, a, b, c_rows, rows, e);
    micro_kernel<Tile, R, 3, layout>(depth, a, b, c_rows, rows, 3 * V::W, e);
  }
  static const T* across(const T* rows, int64_t first, int g, Columns<T>* room) {
    *room = {rows + first * kPitch + g * Tile::kMr, kPitch};
    return reinterpret_cast<const T*>(room);
  }
};

// One tile, c (+)= a b; c has room for whole tiles. Rows are taken two at a time.
template <class Operands, LayoutA layout>
inline void multiply(int64_t depth, const typename Operands::T* a, const typename Operands::T* b, typename Operands::T* c,
                     int64_t ldc, int64_t rows, int64_t columns, bool add) {
  using Tile = typename Operands::Tile;
  using T = typename Operands::T;
  const int whole = static_cast<int>(min_of(round_up(rows, 2), int64_t{Tile::kMr}));
  T* c_rows[Tile::kMr];
  for (int i = 0; i < Tile::kMr; ++i) c_rows[i] = c + min_of(i, whole - 1) * ldc;
  Operands::template run<layout>(depth, a, b, c_rows, whole, static_cast<int>(whole_columns<Tile>(columns)),
                                 Epilogue<T>{T{1}, nullptr, Activation::none, add, true});
}

}  // namespace
}  // namespace smelt
