// 512-bit vectors: AVX-512 F, BW, VL and DQ.
#pragma once
#ifdef SMELT_EMULATE_ISA
#include "cpu/isa/emulated/avx512.h"
#else
#include <immintrin.h>
#endif

#include "cpu/isa/x86/stream.inl.h"
#include "cpu/isa/x86/transpose.inl.h"

namespace smelt {
namespace {

inline __mmask16 lanes_below(int n) { return static_cast<__mmask16>((1u << n) - 1); }  // lanes 0 .. n-1

struct VecF {
  static constexpr int W = 16;
  using T = float;
  struct Mask {
    __mmask16 m;
    friend Mask operator&(Mask a, Mask b) { return {static_cast<__mmask16>(a.m & b.m)}; }
    friend Mask operator|(Mask a, Mask b) { return {static_cast<__mmask16>(a.m | b.m)}; }
    friend Mask operator!(Mask a) { return {static_cast<__mmask16>(~a.m)}; }
    unsigned bits() const { return m; }
  };
  __m512 v;

  static VecF set(float x) { return {_mm512_set1_ps(x)}; }
  static VecF zero() { return {_mm512_setzero_ps()}; }
  static VecF load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static VecF load(const float* p, int n) { return {_mm512_maskz_loadu_ps(lanes_below(n), p)}; }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  void store(float* p, int n) const { _mm512_mask_storeu_ps(p, lanes_below(n), v); }
  // Past the caches, to a multiple of the vector's size.
  void stream(float* p) const { _mm512_stream_ps(p, v); }
  template <class H>
  void stream(H* p) const {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), narrow(p));
  }

  static VecF widen(__m256i h, const bfloat16*) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16))};
  }
  static VecF widen(__m256i h, const float16*) { return {_mm512_cvtph_ps(h)}; }
#ifdef __AVX512BF16__
  __m256i narrow(bfloat16*) const { return (__m256i)_mm512_cvtneps_pbh(v); }  // subnormal numbers become 0
#else
  __m256i narrow(bfloat16*) const {
    const __m512i u = _mm512_castps_si512(v), high = _mm512_srli_epi32(u, 16);
    const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd), 16);
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_mask_or_epi32(rounded, nan, high, _mm512_set1_epi32(0x40)));
  }
#endif
  __m256i narrow(float16*) const { return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }
  template <class H>
  static VecF load(const H* p) {  // a half of either kind
    return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), p);
  }
  template <class H>
  static VecF load(const H* p, int n) {
    return widen(_mm256_maskz_loadu_epi16(lanes_below(n), p), p);
  }
  template <class H>
  void store(H* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(p));
  }
  template <class H>
  void store(H* p, int n) const {
    _mm256_mask_storeu_epi16(p, lanes_below(n), narrow(p));
  }

  // Numbers from 0 to 255 in a byte each.
  static VecF load_bytes(const uint8_t* p) {
    return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
  }
  static VecF load_bytes(const uint8_t* p, int n) {
    uint8_t whole[W] = {};
    for (int i = 0; i < n; ++i) whole[i] = p[i];
    return load_bytes(whole);
  }
  void store_bytes(uint8_t* p) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
  }
  void store_bytes(uint8_t* p, int n) const {
    uint8_t whole[W];
    store_bytes(whole);
    for (int i = 0; i < n; ++i) p[i] = whole[i];
  }

  friend VecF operator+(VecF a, VecF b) { return {_mm512_add_ps(a.v, b.v)}; }
  friend VecF operator-(VecF a, VecF b) { return {_mm512_sub_ps(a.v, b.v)}; }
  friend VecF operator*(VecF a, VecF b) { return {_mm512_mul_ps(a.v, b.v)}; }
  friend VecF operator/(VecF a, VecF b) { return {_mm512_div_ps(a.v, b.v)}; }
  friend VecF operator-(VecF a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))}; }
  friend Mask operator<(VecF a, VecF b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
  friend Mask operator<=(VecF a, VecF b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
  friend Mask operator==(VecF a, VecF b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
};

inline VecF fma(VecF a, VecF b, VecF c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline VecF select(VecF::Mask m, VecF a, VecF b) { return {_mm512_mask_blend_ps(m.m, b.v, a.v)}; }
inline VecF abs(VecF a) { return {_mm512_abs_ps(a.v)}; }
inline VecF sqrt(VecF a) { return {_mm512_sqrt_ps(a.v)}; }
inline VecF floor(VecF a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)}; }
inline VecF trunc(VecF a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC)}; }
inline VecF round(VecF a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
// b where a is not greater (also for a NaN in a or b).
inline VecF max(VecF a, VecF b) { return {_mm512_max_ps(a.v, b.v)}; }
inline VecF min(VecF a, VecF b) { return {_mm512_min_ps(a.v, b.v)}; }
// 2^n for whole n in [-126, 127].
inline VecF exp2_whole(VecF n) {
  const __m512i power = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(power, 23))};
}
// p 2^n for such n.
inline VecF times_exp2(VecF p, VecF n) { return {_mm512_scalef_ps(p.v, n.v)}; }
// x = m 2^e with m in [1, 2); finite, normal, positive x only.
inline void split_exponent(VecF x, VecF* m, VecF* e) {
  const __m512i bits = _mm512_castps_si512(x.v);
  e->v = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_srli_epi32(bits, 23), _mm512_set1_epi32(127)));
  m->v = _mm512_castsi512_ps(
      _mm512_or_si512(_mm512_and_si512(bits, _mm512_set1_epi32(0x7fffff)), _mm512_set1_epi32(0x3f800000)));
}
inline float sum(VecF a) {
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  const __m128 eighth = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
  return _mm_cvtss_f32(_mm_add_ss(eighth, _mm_movehdup_ps(eighth)));
}
inline float max_lane(VecF a) { return _mm512_reduce_max_ps(a.v); }

}  // namespace
}  // namespace smelt
