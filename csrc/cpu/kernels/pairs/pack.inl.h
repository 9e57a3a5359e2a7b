// Operands of bfloat16 as pairs: two neighbours in the depth are an element of 32 bits to the loops around a tile, which are those
// of float32.
#pragma once
#include "cpu/kernels/gemm_core.inl.h"
#include "pairs.h"  // of the instruction set

namespace smelt {
namespace {

constexpr int kNr = PairTile::kNr, kMr = PairTile::kMr;

// Lane i: even[i] in the lower half, odd[i], if there is one, in the upper half.
inline VecF zip(const bfloat16* even, const bfloat16* odd, int lanes) {
  const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes_below(lanes), even));
  if (!odd) return {_mm512_castsi512_ps(low)};
  return {_mm512_castsi512_ps(_mm512_or_si512(low, _mm512_castps_si512(load<VecF>(odd, lanes).v)))};
}

// A row of B: the pairs of two rows, either of which may be missing, zeros from `count` on.
template <int width>
SMELT_INLINE void zip_row(const bfloat16* even, const bfloat16* odd, int count, float* dst) {
#pragma GCC unroll 2
  for (int i = 0; i < width; i += VecF::W) {
    const int there = min_of(count - i, VecF::W);
    const VecF v = even && there > 0 ? zip(even + i, odd ? odd + i : nullptr, there) : VecF::zero();
    store(dst + i, v, min_of(width - i, VecF::W));
  }
}

// The depth lies across the rows of src, which has `elements` of them: dst[p * width + i] is the pair of rows 2p and 2p + 1 in
// column i, zero from `count` on and behind the last row.
template <int width>
void pack_zipped(const bfloat16* src, int64_t ld, int64_t elements, int64_t pairs, int count, float* dst) {
  const auto row = [&](int64_t p, int columns) __attribute__((always_inline)) {
    const bfloat16* even = src + 2 * p * ld;
    zip_row<width>(even, 2 * p + 1 < elements ? even + ld : nullptr, columns, dst + p * width);
  };
  int64_t p = 0;
  if (count == width)
    for (; p < min_of(pairs, elements / 2); ++p) row(p, width);
  for (; p < pairs; ++p) row(p, 2 * p < elements ? count : 0);
}

// The depth lies along a row of src, which has `elements` left: as pairs, zeros behind them.
inline void copy_pairs(const bfloat16* src, int64_t elements, int64_t pairs, float* dst) {
  const int64_t whole = max_of(int64_t{0}, min_of(elements / 2, pairs));
  each_vector<VecF>(whole, [&](int64_t p, int lanes) {
    store(dst + p, load<VecF>(reinterpret_cast<const float*>(src) + p, lanes), lanes);
  });
  if (whole == pairs) return;
  __builtin_memset(dst + whole, 0, sizeof(float) * (pairs - whole));
  if (elements > 2 * whole) __builtin_memcpy(dst + whole, src + 2 * whole, sizeof(bfloat16));
}

// Rows whose depth lies along them, transposed on the way: dst[p * width + i] is pair p of row i.
template <int width>
void pack_transposed(const bfloat16* src, int64_t ld, int64_t elements, int64_t pairs, int count, float* dst) {
  constexpr int kB = kTransposeBlock;
  static_assert(width % kB == 0);
  const int64_t whole = min_of(elements / 2, pairs) / kB * kB;  // squares of words that are all there
  for (int i = 0; i < width; i += kB) {
    int64_t p = 0;
    if (i + kB <= count)
      for (; p < whole; p += kB)
        transpose_square(src + i * ld + 2 * p, ld * static_cast<int64_t>(sizeof(bfloat16)), dst + p * width + i, width);
    for (; p < pairs; p += kB) {
      float square[kB * kB], across[kB * kB];
      for (int j = 0; j < kB; ++j)
        copy_pairs(src + (i + j) * ld + 2 * p, i + j < count ? elements - 2 * p : 0, kB, square + j * kB);
      transpose_square(square, sizeof(float) * kB, across, kB);
      for (int64_t q = 0; q < min_of(int64_t{kB}, pairs - p); ++q)
        __builtin_memcpy(dst + (p + q) * width + i, across + q * kB, sizeof(float) * kB);
    }
  }
}

// Rows of A to tiles of 16 rows by 16 pairs, (pairs / 16, 32, 16).
inline void pack_tiles(const bfloat16* src, int64_t ld, int64_t elements, int64_t pairs, int count, float* dst) {
  for (int64_t p = 0; p < pairs; p += 16)
    for (int i = 0; i < kMr; ++i, dst += 16) {
      const bfloat16* from = src + i * ld + 2 * p;
      if (i < count && elements >= 2 * p + 32)
        VecF::load(reinterpret_cast<const float*>(from)).store(dst);
      else
        copy_pairs(from, i < count ? elements - 2 * p : 0, 16, dst);
    }
}

// Likewise where the depth lies across the rows of src.
inline void pack_zipped_tiles(const bfloat16* src, int64_t ld, int64_t elements, int64_t pairs, int count, float* dst) {
  constexpr int kB = kTransposeBlock;
  float zipped[16 * kMr];
  for (int64_t p = 0; p < pairs; p += 16, dst += 16 * kMr) {
    pack_zipped<kMr>(src + 2 * p * ld, ld, elements - 2 * p, 16, count, zipped);
    for (int q = 0; q < 16; q += kB)
      for (int i = 0; i < kMr; i += kB) transpose_square(zipped + q * kMr + i, sizeof(float) * kMr, dst + i * 16 + q, 16);
  }
}

}  // namespace
}  // namespace smelt
