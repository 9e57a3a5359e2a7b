// Matrix products of bfloat16 in instructions that multiply pairs: AVX512_BF16 and AMX. A pair, two neighbours in the depth, is
// an element of 32 bits to the loops around a tile, which are those of float32; what differs is how operands become pairs.
// These instructions take subnormal numbers as 0.
#include "cpu/kernels/families.h"
#include "cpu/kernels/gemm_skinny.inl.h"
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

// The depth lies across the rows of src, which has `elements` of them: dst[p * width + i] is the pair of rows 2p and 2p + 1 in
// column i, zero from `count` on and behind the last row.
template <int width>
void pack_zipped(const bfloat16* src, int64_t ld, int64_t elements, int64_t pairs, int count, float* dst) {
  const auto row = [&](int64_t p, int columns) __attribute__((always_inline)) {
    const bfloat16 *even = src + 2 * p * ld, *odd = 2 * p + 1 < elements ? even + ld : nullptr;
#pragma GCC unroll 2
    for (int i = 0; i < width; i += VecF::W) {
      const int there = min_of(columns - i, VecF::W);
      const VecF v = there > 0 ? zip(even + i, odd ? odd + i : nullptr, there) : VecF::zero();
      store(dst + p * width + i, v, min_of(width - i, VecF::W));
    }
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

// One panel of A: `pairs` of the depth from src on.
template <class Shape>
void pack_panel(const GemmArgs& a, const bfloat16* src, int64_t elements, int64_t pairs, int count, float* panel) {
  if constexpr (Shape::kLayout == LayoutA::tiles)
    (a.transpose_a ? pack_zipped_tiles : pack_tiles)(src, a.lda, elements, pairs, count, panel);
  else if (a.transpose_a)
    pack_zipped<kMr>(src, a.lda, elements, pairs, count, panel);
  else
    for (int i = 0; i < count; ++i) copy_pairs(src + i * a.lda, elements, pairs, panel + i * Shape::kPitch);
}

Extent extent_of(const GemmArgs& a) { return {a.m, a.n, round_up(ceil_div(a.k, 2), PairTile::kDepthStep)}; }

// Very few rows or columns are left to the kernel below: packing would cost more than the product.
bool takes(const GemmArgs& a) {
  return a.dtype == DType::bfloat16 && takes_sums(a.dtype, a.c_dtype) && !by_rows(a) && !by_dots(a);
}

size_t one_workspace(const GemmArgs& a, int threads) {
  const size_t product = a.c_dtype == DType::float32 ? product_workspace<PairTile, float>(extent_of(a), threads)
                                                     : product_workspace<PairTile, bfloat16>(extent_of(a), threads);
  return round_up(product, 64) + epilogue_room<PairTile, bfloat16>(a);
}
size_t workspace(const GemmArgs& a, int threads) { return by_batch(a) ? threads * one_workspace(a, 1) : one_workspace(a, threads); }

template <LayoutA layout, class C>
void product(const GemmArgs& a, Context& context, int64_t index, void* memory, bool alone) {
  const auto* pa = static_cast<const bfloat16*>(a.a) + index * a.batch_stride_a;
  const auto* pb = static_cast<const bfloat16*>(a.b) + index * a.batch_stride_b;
  C* const pc = static_cast<C*>(a.c) + index * a.batch_stride_c;
  const Epilogue<float> epilogue = epilogue_of<PairTile, bfloat16>(a, &memory);
  const auto pack_a = [&](int64_t i, int64_t rows, int64_t p, int64_t depth, float* dst, int) {
    each_row_panel<PairTile>(i, rows, dst, [&](int64_t first, int count, float* panel, int) {
      const bfloat16* src = a.transpose_a ? pa + 2 * p * a.lda + first : pa + first * a.lda + 2 * p;
      pack_panel<PairTile>(a, src, a.k - 2 * p, depth, count, panel);
    });
  };
  const auto pack_b = [&](int64_t first, int64_t columns, int64_t p, int64_t depth, float* dst) {
    if (a.transpose_b) {
      each_panel<PairTile>(first, columns, depth, dst, [&](int64_t j, int count, float* panel) {
        pack_transposed<kNr>(pb + j * a.ldb + 2 * p, a.ldb, a.k - 2 * p, depth, count, panel);
      });
      return;
    }
    constexpr int64_t kRows = 8;  // some of all panels before the next ones: what lies together is read together
    for (int64_t r = 0; r < depth; r += kRows)
      each_panel<PairTile>(first, columns, depth, dst, [&](int64_t j, int count, float* panel) {
        pack_zipped<kNr>(pb + 2 * (p + r) * a.ldb + j, a.ldb, a.k - 2 * (p + r), min_of(kRows, depth - r), count, panel + r * kNr);
      });
  };
  blocked_product<PairTile, layout>(context, extent_of(a), epilogue, memory, alone, pack_a, pack_b,
                                    [&](int64_t i) { return pc + i * a.ldc; });
}

template <LayoutA layout>
void run(const GemmArgs& a, Context& context) {
  each_product(a, context, one_workspace(a, 1), [&](Context& own, int64_t index, void* memory, bool alone) {
    if (a.c_dtype == DType::float32)
      product<layout, float>(a, own, index, memory, alone);
    else
      product<layout, bfloat16>(a, own, index, memory, alone);
  });
}

Status gemm(const GemmArgs& a, Context& context) noexcept {
  a.transpose_a ? run<PairTile::kLayoutTransposed>(a, context) : run<PairTile::kLayout>(a, context);
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_gemm(KernelTable& table) {
  add_kernel<GemmArgs, gemm, takes, workspace>(table, SMELT_KERNEL_NAME("gemm"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
