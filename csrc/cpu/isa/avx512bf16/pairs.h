// Sums of products of pairs of bfloat16, 16 at a time: AVX512_BF16.
#pragma once
#include "cpu/kernels/gemm_tile.inl.h"

namespace smelt {
namespace {

#ifdef SMELT_EMULATE_ISA
// Lane i: c + the product of the upper halves, + that of the lower ones.
inline VecF multiply_add_pairs(VecF a, VecF b, VecF c) {
  const auto upper = [](VecF x) {
    return VecF{_mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x.v), _mm512_set1_epi32(-65536)))};
  };
  const auto lower = [](VecF x) { return VecF{_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(x.v), 16))}; };
  return fma(lower(a), lower(b), fma(upper(a), upper(b), c));
}
#else
inline VecF multiply_add_pairs(VecF a, VecF b, VecF c) {
  return {_mm512_dpbf16_ps(c.v, (__m512bh)a.v, (__m512bh)b.v)};
}
#endif

// A tile of vectors in registers, as in float32; an element is a pair of bfloat16, neighbours in the depth.
struct PairTile {
  using Vector = VecF;
  static constexpr int kMr = kTileM, kVectors = kTileVectors, kNr = kVectors * VecF::W;
  static constexpr int kDepthStep = 1;
  static constexpr bool kNarrows = true;
  static constexpr int64_t kPitch = kBlockK + 16;
  static constexpr int64_t kPanel = kMr * kPitch;
  static constexpr LayoutA kLayout = LayoutA::rows, kLayoutTransposed = LayoutA::interleaved;
  struct Scope {};
  static VecF multiply_add(VecF a, VecF b, VecF c) { return multiply_add_pairs(a, b, c); }
  template <LayoutA layout, class C>
  static void run(int64_t k, const float* a, const float* b, C* const* c_rows, int rows, int columns,
                  const Epilogue<float>& e) {
    run_tile<PairTile, layout>(k, a, b, c_rows, rows, columns, e);
  }

  // The most that can be had: operations done from registers, with kProbe elements as operands.
  static constexpr int64_t kProbe = 2 * VecF::W;
  static double probe(const float* data, int64_t rounds) {
    constexpr int kSums = 12;
    const VecF a = VecF::load(data), b = VecF::load(data + VecF::W);
    VecF sums[kSums];
    for (int i = 0; i < kSums; ++i) sums[i] = VecF::zero();
    for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
      for (int i = 0; i < kSums; ++i) sums[i] = multiply_add_pairs(a, b, sums[i]);
    }
    VecF total = sums[0];
    for (int i = 1; i < kSums; ++i) total = total + sums[i];
    volatile float sink = sum(total);
    (void)sink;
    return 4.0 * kSums * VecF::W * static_cast<double>(rounds);
  }
};

}  // namespace
}  // namespace smelt
