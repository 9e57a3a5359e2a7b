// Attention without the matrix of scores in memory (Dao et al., 2022): blocks of queries meet blocks of keys, a row keeps its
// largest score and its sum, and what it has summed up is rescaled when a larger score comes. Backward computes a block's
// probabilities again from the logarithms of the sums (`lse`).
//
// Blocks are cut by shape alone and keys are taken in their order, so a row's bits do not depend on who computes it.
#pragma once
#include "cpu/kernels/attention_tile.inl.h"

namespace smelt {
namespace {

constexpr int64_t kHeadPitch = 16;  // words, to which rows of statistics are rounded

// Which keys a query sees, apart from the mask.
struct Visible {
  int64_t keys, offset;  // of the batch; a causal query i sees i + offset + 1 keys
  int64_t of(int64_t query) const { return max_of(int64_t{0}, min_of(keys, query + offset + 1)); }
  int64_t first_query(int64_t key) const { return max_of(int64_t{0}, key - offset); }
};
template <class Args>
Visible visible(const Args& a, int64_t batch) {
  const int64_t there = a.lengths ? max_of(int64_t{0}, min_of(a.lengths[batch], a.shape.tk)) : a.shape.tk;
  return {there, a.causal ? a.shape.tk - a.shape.tq : there};
}

template <class T>
constexpr T kNothing = -static_cast<T>(__builtin_inff());

// Element number `place` of a mask, as a number to add to a score.
template <class T>
T mask_value(const void* mask, DType dtype, int64_t place) {
  if (dtype == DType::bool_) return static_cast<const uint8_t*>(mask)[place] ? T(0) : kNothing<T>;
  return with_floating(dtype, [&]<class S>(S) { return static_cast<T>(from_storage(static_cast<const S*>(mask)[place])); });
}

// Rows of a mask as numbers to add to scores.
template <class V>
class MaskRows {
 public:
  using T = typename V::T;
  template <class Args>
  MaskRows(const Args& a, int64_t batch, int64_t head)
      : mask_(a.mask), dtype_(a.mask_dtype), first_(batch * a.mask_stride[0] + head * a.mask_stride[1]),
        row_(a.mask_stride[2]), key_(a.mask_stride[3]) {}
  explicit operator bool() const { return mask_; }

  // For keys [key, key + n), rounded up to whole steps; what comes behind them is not seen.
  const T* row(int64_t query, int64_t key, int64_t n) {
    const int64_t begin = first_ + query * row_ + key * key_;
    if (begin == begin_ && n <= filled_) return values_;
    begin_ = begin;
    filled_ = n;
    if (dtype_ == DType::bool_) {
      const auto* p = static_cast<const uint8_t*>(mask_) + begin;
      for (int64_t j = 0; j < n; ++j) values_[j] = p[j * key_] ? T(0) : kNothing<T>;
    } else {
      with_floating(dtype_, [&]<class S>(S) {
        const S* p = static_cast<const S*>(mask_) + begin;
        for (int64_t j = 0; j < n; ++j) values_[j] = static_cast<T>(from_storage(p[j * key_]));
      });
    }
    return values_;
  }

 private:
  const void* mask_;
  DType dtype_;
  int64_t first_, row_, key_, begin_ = -1, filled_ = 0;
  T values_[kKeys];
};

// A block: rows [row, row + rows) of a head, keys [key, key + keys), and how far each tile of rows sees.
template <class Operands>
struct Block {
  using Tile = typename Operands::Tile;
  using V = typename Operands::V;
  int64_t row, rows, key, keys;
  int64_t limit[kTiles<Tile>];  // scores that a tile computes: those of its last row, in whole steps
  int tiles;

  Block(const Visible& sight, int64_t row_in, int64_t rows_in, int64_t key_in) : row(row_in), rows(rows_in), key(key_in) {
    keys = max_of(int64_t{0}, min_of(kKeys, sight.of(row + rows - 1) - key));
    tiles = static_cast<int>(ceil_div(rows, Tile::kMr));
    for (int g = 0; g < tiles; ++g) {
      const int64_t seen = sight.of(row + min_of((g + 1) * Tile::kMr, rows) - 1) - key;
      limit[g] = round_up(max_of(int64_t{0}, min_of(kKeys, seen)), kStep<V>);
    }
  }
  int64_t rows_of(int g) const { return min_of(rows - g * Tile::kMr, int64_t{Tile::kMr}); }
  int64_t limit_of(int64_t i) const { return limit[i / Tile::kMr]; }
};

// Scores of a block: c = a b over `depth` words of the features, where a tile sees keys.
template <class Operands>
void block_scores(const Block<Operands>& block, const typename Operands::T* a, const typename Operands::T* b, int64_t depth,
                  typename Operands::T* c) {
  using Tile = typename Operands::Tile;
  for (int64_t p = 0; p < max_of(depth, int64_t{1}); p += kDepth, a += kTiles<Tile> * Tile::kPanel)
    for (int64_t j = 0; j < block.limit[block.tiles - 1]; j += Tile::kNr)
      for (int g = 0; g < block.tiles; ++g)
        if (j < block.limit[g])
          multiply<Operands, Operands::kLayoutRows>(min_of(kDepth, depth - p), a + g * Tile::kPanel,
                                                    b + j * depth + p * Tile::kNr,
                                                    c + g * Tile::kMr * kPitch + j, kPitch, block.rows_of(g),
                                                    min_of(block.limit[g] - j, int64_t{Tile::kNr}), p > 0);
}

// A block's scores times rows of keys or values: c += a b, b being panels of `columns` with `depth` words.
template <class Operands, class A>
void block_rows(const Block<Operands>& block, const A& a, const typename Operands::T* b, int64_t depth, int64_t columns,
                typename Operands::T* c, int64_t ldc) {
  using Tile = typename Operands::Tile;
  for (int64_t j = 0; j < columns; j += Tile::kNr)
    for (int g = 0; g < block.tiles; ++g)
      if (block.limit[g])
        multiply<Operands, Operands::kLayoutRows>(min_of(Operands::words(block.limit[g]), depth), a(g), b + j * depth,
                                                  c + g * Tile::kMr * ldc + j,
                                                  ldc, block.rows_of(g), min_of(columns - j, int64_t{Tile::kNr}), true);
}

// Rows of queries as A, all of their features.
template <class Operands>
void pack_queries(const typename Operands::S* src, int64_t ld, int64_t rows, int64_t features, typename Operands::T* dst) {
  using Tile = typename Operands::Tile;
  const int64_t depth = Operands::words(features);
  for (int64_t p = 0; p < depth; p += kDepth, dst += kTiles<Tile> * Tile::kPanel)
    Operands::pack_rows_of_a(src, ld, rows, features, p, min_of(kDepth, depth - p), dst);
}
template <class Operands>
int64_t queries_words(int64_t features) {
  using Tile = typename Operands::Tile;
  return max_of(int64_t{1}, ceil_div(Operands::words(features), kDepth)) * kTiles<Tile> * Tile::kPanel;
}
// Panels with `columns` columns and `depth` words.
template <class Operands>
int64_t panels_words(int64_t depth, int64_t columns) {
  return depth * round_up(columns, Operands::Tile::kNr);
}

template <class V>
void scale_rows(typename V::T* row, int64_t n, typename V::T factor) {
  for (int64_t j = 0; j < n; j += V::W) (V::load(row + j) * V::set(factor)).store(row + j);
}

// Scores as they go through the exponential function: scaled and masked where that takes more than a factor, and -infinity
// where a key is not seen. Gives the factor that is left.
template <class V>
typename V::T finish_scores(typename V::T* s, int64_t seen, int64_t limit, typename V::T scale, const typename V::T* mask) {
  using T = typename V::T;
  const V nothing = V::set(kNothing<T>);
  const bool now = mask || !(scale > 0);
  if (now) {
    const V factor = V::set(scale);
    each_vector<V>(seen, [&](int64_t j, int lanes) {
      V v = load<V>(s + j, lanes) * factor;
      if (mask) {
        const V m = load<V>(mask + j, lanes);
        v = select(m == nothing, nothing, v + m);
      }
      store(s + j, v, lanes);
    });
  }
  for (int64_t j = max_of(seen, int64_t{0}); j < limit; ++j) s[j] = kNothing<T>;
  return now ? T(1) : scale;
}

template <class T>
T log_of(T x) {
  return std::log(x);
}

}  // namespace
}  // namespace smelt
