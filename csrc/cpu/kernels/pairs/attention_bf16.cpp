// Attention of bfloat16 in instructions that multiply pairs: AVX512_BF16 and AMX. Scores, sums and the softmax are float32;
// probabilities and the gradients of scores are rounded to bfloat16 for the products that read them.
#include "cpu/kernels/attention_backward.inl.h"
#include "cpu/kernels/attention_forward.inl.h"
#include "cpu/kernels/families.h"
#include "cpu/kernels/pairs/pack.inl.h"

namespace smelt {
namespace {

#ifdef SMELT_EMULATE_ISA
inline VecF neighbours(VecF low, VecF high) {
  bfloat16 rounded[2 * VecF::W];
  low.store(rounded);
  high.store(rounded + VecF::W);
  return VecF::load(reinterpret_cast<const float*>(rounded));
}
inline VecF zipped(VecF even, VecF odd) {
  bfloat16 a[VecF::W], b[VecF::W];
  even.store(a);
  odd.store(b);
  return zip(a, b, VecF::W);
}
#else
// Lanes 2i and 2i + 1 of two vectors that follow each other, as pair i.
inline VecF neighbours(VecF low, VecF high) { return {(__m512)_mm512_cvtne2ps_pbh(high.v, low.v)}; }
// Lane i of both as pair i.
inline VecF zipped(VecF even, VecF odd) {
  alignas(64) static constexpr uint16_t kOrder[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                      8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(odd.v, even.v);
  return {_mm512_castsi512_ps(_mm512_permutexvar_epi16(_mm512_load_si512(kOrder), both))};
}
#endif

constexpr int64_t pair_words(int64_t n) { return round_up(ceil_div(n, 2), PairTile::kDepthStep); }

struct PairOperands {
  using S = bfloat16;
  using V = VecF;
  using T = float;
  static constexpr bool kTiled = PairTile::kLayout == LayoutA::tiles;
  struct Tile : PairTile {
    static constexpr int64_t kPitch = smelt::kPitch, kPanel = PairTile::kMr * smelt::kPitch;
  };
  using Scope = PairTile::Scope;
  static constexpr LayoutA kLayoutRows = PairTile::kLayout, kLayoutAcross = kTiled ? LayoutA::tiles : LayoutA::columns;
  static constexpr int64_t kDepthStep = PairTile::kDepthStep;
  static constexpr int64_t words(int64_t n) { return pair_words(n); }
  static constexpr int64_t words_before(int64_t n) { return n / 2 / kDepthStep * kDepthStep; }

  static void pack_rows_of_a(const S* src, int64_t ld, int64_t rows, int64_t features, int64_t p, int64_t depth, T* dst) {
    const int64_t elements = features - 2 * p;
    if constexpr (kTiled) {
      for (int64_t i = 0; i < rows; i += kMr)
        pack_tiles(src + i * ld + 2 * p, ld, elements, depth, static_cast<int>(min_of(rows - i, int64_t{kMr})),
                   dst + i * kPitch);
    } else {
      for (int64_t i = 0; i < rows; ++i) copy_pairs(src + i * ld + 2 * p, elements, depth, dst + i * kPitch);
      if (rows % 2) __builtin_memset(dst + rows * kPitch, 0, sizeof(T) * depth);
    }
  }
  static void pack_across(const S* src, int64_t ld, int64_t features, int64_t depth, int64_t columns, T* dst) {
    each_panel<Tile>(0, columns, depth, dst, [&](int64_t j, int count, T* panel) {
      pack_transposed<kNr>(src + j * ld, ld, features, depth, count, panel);
    });
  }
  static void pack_down(const S* src, int64_t ld, int64_t rows, int64_t columns, T* dst) {
    each_panel<Tile>(0, columns, words(rows), dst, [&](int64_t j, int count, T* panel) {
      pack_zipped<kNr>(src + j, ld, rows, words(rows), count, panel);
    });
  }

  template <LayoutA layout>
  static void run(int64_t depth, const T* a, const T* b, T* const* c_rows, int rows, int columns, const Epilogue<T>& e) {
    if constexpr (kTiled)
      PairTile::run<layout>(depth, a, b, c_rows, rows, columns, e);
    else
      run_tile<Tile, layout>(depth, a, b, c_rows, rows, columns, e);
  }

  // Sixteen words from `word` on of row i as A: tiles of 16 rows by 16 words, or rows.
  static T* place(T* panels, int64_t i, int64_t word) {
    if constexpr (kTiled)
      return panels + i / kMr * Tile::kPanel + word / 16 * (16 * kMr) + i % kMr * 16;
    else
      return panels + i * kPitch + word;
  }
  static constexpr int64_t kProbabilities = kRows<Tile> * kPitch;
  static void put(T*, T* p, int64_t i, int64_t j, V a, V b) { neighbours(a, b).store(place(p, i, j / 2)); }
  static const T* probabilities(const T*, const T* p, int g) { return p + g * Tile::kPanel; }

  // Besides scores: ds as rows; p and ds with two rows zipped, (kRows / 2, kPitch); and those as tiles of A for tile
  // registers.
  static constexpr int64_t kZipped = pair_words(kRows<Tile>) * kPitch;
  static constexpr int64_t kTilesOfKeys = kTiled ? kKeys * pair_words(kRows<Tile>) : 0;
  static constexpr int64_t kBackward = kRows<Tile> * kPitch + 2 * kZipped + 2 * kTilesOfKeys;
  static T* p_zipped(const BackwardRoom<T>& m) { return m.more + kRows<Tile> * kPitch; }
  static T* ds_zipped(const BackwardRoom<T>& m) { return p_zipped(m) + kZipped; }
  static T* p_tiles(const BackwardRoom<T>& m) { return ds_zipped(m) + kZipped; }
  static T* ds_tiles(const BackwardRoom<T>& m) { return p_tiles(m) + kTilesOfKeys; }

  static void put(const BackwardRoom<T>& m, int64_t i, int64_t j, const V (&p)[2][2], const V (&ds)[2][2]) {
    for (int v = 0; v < 2; ++v) {
      const int64_t at = i / 2 * kPitch + j + v * V::W;
      zipped(p[0][v], p[1][v]).store(p_zipped(m) + at);
      zipped(ds[0][v], ds[1][v]).store(ds_zipped(m) + at);
    }
    for (int r = 0; r < 2; ++r) neighbours(ds[r][0], ds[r][1]).store(place(m.more, i + r, j / 2));
  }
  // Tile registers read tiles: the zipped rows, transposed.
  static void finish(const BackwardRoom<T>& m, int64_t rows, int64_t width) {
    if constexpr (kTiled) {
      const int64_t filled = ceil_div(rows, 2), all = words(rows);
      const auto transpose = [&](T* from, T* to) {
        __builtin_memset(from + filled * kPitch, 0, sizeof(T) * (all - filled) * kPitch);
        constexpr int kB = kTransposeBlock;
        for (int64_t key = 0; key < width; key += kB)
          for (int64_t w = 0; w < all; w += kB)
            transpose_square(from + w * kPitch + key, sizeof(T) * kPitch,
                             to + key / kMr * (kMr * words(kRows<Tile>)) + w / 16 * (16 * kMr) + key % kMr * 16 + w % 16, 16);
      };
      transpose(p_zipped(m), p_tiles(m));
      transpose(ds_zipped(m), ds_tiles(m));
    }
  }
  static const T* ds_rows(const BackwardRoom<T>& m, int g) { return m.more + g * Tile::kPanel; }
  static const T* p_across(const BackwardRoom<T>& m, int64_t first, int g, Columns<T>* room) {
    return across(p_zipped(m), p_tiles(m), first, g, room);
  }
  static const T* ds_across(const BackwardRoom<T>& m, int64_t first, int g, Columns<T>* room) {
    return across(ds_zipped(m), ds_tiles(m), first, g, room);
  }

 private:
  static const T* across(const T* rows, const T* tiles, int64_t first, int g, Columns<T>* room) {
    if constexpr (kTiled) return tiles + g * (kMr * words(kRows<Tile>)) + first * kMr;
    *room = {rows + first * kPitch + g * kMr, kPitch};
    return reinterpret_cast<const T*>(room);
  }
};

Status attention(const AttentionArgs& a, Context& context) noexcept {
  AttentionForward<PairOperands>(a).run(context);
  return Status::ok;
}
size_t workspace(const AttentionArgs& a, int threads) { return AttentionForward<PairOperands>(a).workspace(threads); }
Status attention_backward(const AttentionBackwardArgs& a, Context& context) noexcept {
  AttentionBackward<PairOperands>(a).run(context);
  return Status::ok;
}
size_t backward_workspace(const AttentionBackwardArgs& a, int threads) {
  return AttentionBackward<PairOperands>(a).workspace(threads);
}

bool takes(const AttentionArgs& a) { return a.dtype == DType::bfloat16; }
bool takes_backward(const AttentionBackwardArgs& a) {
  return a.dtype == DType::bfloat16 && takes_sums(a.dtype, a.grad_dtype);
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_attention(KernelTable& table) {
  add_kernel<AttentionArgs, attention, takes, workspace>(table, SMELT_KERNEL_NAME("attention"));
  add_kernel<AttentionBackwardArgs, attention_backward, takes_backward, backward_workspace>(
      table, SMELT_KERNEL_NAME("attention_backward"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
