// The AVX-512 that vec.h is written in, as pairs of 256-bit registers: so that every instruction set's kernels are tested on
// any CPU with AVX2. Development builds only (SMELT_EMULATE_ISA). The names hide those of <immintrin.h> within the namespace.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#undef _mm512_cmp_ps_mask  // macros in some compilers' headers
#undef _mm512_roundscale_ps
#undef _mm512_extractf32x8_ps
#undef _mm512_slli_epi32
#undef _mm512_srli_epi32
#undef _mm512_cvtps_ph

#define SMELT_EMULATED __attribute__((always_inline)) inline

namespace smelt {
namespace {

struct __m512 {
  __m256 h[2];
};
struct __m512i {
  __m256i h[2];
};

#define SMELT_BINARY(name, type, half) \
  SMELT_EMULATED type name(type a, type b) { return {{half(a.h[0], b.h[0]), half(a.h[1], b.h[1])}}; }
SMELT_BINARY(_mm512_add_ps, __m512, _mm256_add_ps)
SMELT_BINARY(_mm512_sub_ps, __m512, _mm256_sub_ps)
SMELT_BINARY(_mm512_mul_ps, __m512, _mm256_mul_ps)
SMELT_BINARY(_mm512_div_ps, __m512, _mm256_div_ps)
SMELT_BINARY(_mm512_max_ps, __m512, _mm256_max_ps)
SMELT_BINARY(_mm512_min_ps, __m512, _mm256_min_ps)
SMELT_BINARY(_mm512_xor_ps, __m512, _mm256_xor_ps)
SMELT_BINARY(_mm512_add_epi32, __m512i, _mm256_add_epi32)
SMELT_BINARY(_mm512_sub_epi32, __m512i, _mm256_sub_epi32)
SMELT_BINARY(_mm512_and_si512, __m512i, _mm256_and_si256)
SMELT_BINARY(_mm512_or_si512, __m512i, _mm256_or_si256)
#undef SMELT_BINARY

SMELT_EMULATED __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) {
  return {{_mm256_fmadd_ps(a.h[0], b.h[0], c.h[0]), _mm256_fmadd_ps(a.h[1], b.h[1], c.h[1])}};
}
SMELT_EMULATED __m512 _mm512_sqrt_ps(__m512 a) { return {{_mm256_sqrt_ps(a.h[0]), _mm256_sqrt_ps(a.h[1])}}; }
SMELT_EMULATED __m512 _mm512_set1_ps(float x) { return {{_mm256_set1_ps(x), _mm256_set1_ps(x)}}; }
SMELT_EMULATED __m512i _mm512_set1_epi32(int x) { return {{_mm256_set1_epi32(x), _mm256_set1_epi32(x)}}; }
SMELT_EMULATED __m512 _mm512_setzero_ps() { return _mm512_set1_ps(0); }
SMELT_EMULATED __m512 _mm512_abs_ps(__m512 a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {{_mm256_andnot_ps(sign, a.h[0]), _mm256_andnot_ps(sign, a.h[1])}};
}
SMELT_EMULATED __m512 _mm512_roundscale_ps(__m512 a, int mode) {
  const auto half = [mode](__m256 x) {
    return (mode & 3) == _MM_FROUND_TO_NEG_INF ? _mm256_floor_ps(x)
           : (mode & 3) == _MM_FROUND_TO_ZERO  ? _mm256_round_ps(x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC)
                                               : _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  };
  return {{half(a.h[0]), half(a.h[1])}};
}
SMELT_EMULATED float _mm512_reduce_max_ps(__m512 a) {
  float lanes[16];
  std::memcpy(lanes, &a, sizeof lanes);
  float most = lanes[0];
  for (float lane : lanes) most = lane > most ? lane : most;
  return most;
}

SMELT_EMULATED __m512i _mm512_castps_si512(__m512 a) { return {{_mm256_castps_si256(a.h[0]), _mm256_castps_si256(a.h[1])}}; }
SMELT_EMULATED __m512 _mm512_castsi512_ps(__m512i a) { return {{_mm256_castsi256_ps(a.h[0]), _mm256_castsi256_ps(a.h[1])}}; }
SMELT_EMULATED __m256 _mm512_castps512_ps256(__m512 a) { return a.h[0]; }
SMELT_EMULATED __m256 _mm512_extractf32x8_ps(__m512 a, int part) { return a.h[part]; }
SMELT_EMULATED __m512i _mm512_slli_epi32(__m512i a, int n) {
  return {{_mm256_slli_epi32(a.h[0], n), _mm256_slli_epi32(a.h[1], n)}};
}
SMELT_EMULATED __m512i _mm512_srli_epi32(__m512i a, int n) {
  return {{_mm256_srli_epi32(a.h[0], n), _mm256_srli_epi32(a.h[1], n)}};
}
SMELT_EMULATED __m512i _mm512_cvtps_epi32(__m512 a) { return {{_mm256_cvtps_epi32(a.h[0]), _mm256_cvtps_epi32(a.h[1])}}; }
SMELT_EMULATED __m512 _mm512_cvtepi32_ps(__m512i a) { return {{_mm256_cvtepi32_ps(a.h[0]), _mm256_cvtepi32_ps(a.h[1])}}; }
SMELT_EMULATED __m512 _mm512_scalef_ps(__m512 a, __m512 n) {
  float lanes[16], powers[16];
  std::memcpy(lanes, &a, sizeof lanes);
  std::memcpy(powers, &n, sizeof powers);
  for (int i = 0; i < 16; ++i)
    lanes[i] = powers[i] == powers[i] ? __builtin_ldexpf(lanes[i], static_cast<int>(powers[i])) : powers[i];
  std::memcpy(&a, lanes, sizeof lanes);
  return a;
}
SMELT_EMULATED __m512i _mm512_cvtepu16_epi32(__m256i a) {
  return {{_mm256_cvtepu16_epi32(_mm256_castsi256_si128(a)), _mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1))}};
}
SMELT_EMULATED __m512i _mm512_cvtepu8_epi32(__m128i a) {
  return {{_mm256_cvtepu8_epi32(a), _mm256_cvtepu8_epi32(_mm_srli_si128(a, 8))}};
}
SMELT_EMULATED __m128i _mm512_cvtepi32_epi8(__m512i a) {
  uint32_t wide[16];
  uint8_t narrow[16];
  std::memcpy(wide, &a, sizeof wide);
  for (int i = 0; i < 16; ++i) narrow[i] = static_cast<uint8_t>(wide[i]);
  __m128i r;
  std::memcpy(&r, narrow, sizeof r);
  return r;
}
SMELT_EMULATED __m256i _mm512_cvtepi32_epi16(__m512i a) {
  uint32_t wide[16];
  uint16_t narrow[16];
  std::memcpy(wide, &a, sizeof wide);
  for (int i = 0; i < 16; ++i) narrow[i] = static_cast<uint16_t>(wide[i]);
  __m256i r;
  std::memcpy(&r, narrow, sizeof r);
  return r;
}
SMELT_EMULATED __m512 _mm512_cvtph_ps(__m256i a) {
  return {{_mm256_cvtph_ps(_mm256_castsi256_si128(a)), _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1))}};
}
SMELT_EMULATED __m256i _mm512_cvtps_ph(__m512 a, int) {
  return _mm256_setr_m128i(_mm256_cvtps_ph(a.h[0], _MM_FROUND_TO_NEAREST_INT),
                           _mm256_cvtps_ph(a.h[1], _MM_FROUND_TO_NEAREST_INT));
}

// Masks: bit i of 16 for lane i.
SMELT_EMULATED __m256i lanes_of(__mmask16 m, int half) {
  const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(m >> (8 * half)), bits), bits);
}
SMELT_EMULATED __mmask16 _mm512_cmp_ps_mask(__m512 a, __m512 b, int how) {
  int bits = 0;
  for (int i = 0; i < 2; ++i) {
    const __m256 r = how == _CMP_LT_OQ      ? _mm256_cmp_ps(a.h[i], b.h[i], _CMP_LT_OQ)
                     : how == _CMP_LE_OQ    ? _mm256_cmp_ps(a.h[i], b.h[i], _CMP_LE_OQ)
                     : how == _CMP_EQ_OQ    ? _mm256_cmp_ps(a.h[i], b.h[i], _CMP_EQ_OQ)
                                            : _mm256_cmp_ps(a.h[i], b.h[i], _CMP_UNORD_Q);
    bits |= _mm256_movemask_ps(r) << (8 * i);
  }
  return static_cast<__mmask16>(bits);
}
SMELT_EMULATED __m512 _mm512_mask_blend_ps(__mmask16 m, __m512 a, __m512 b) {
  return {{_mm256_blendv_ps(a.h[0], b.h[0], _mm256_castsi256_ps(lanes_of(m, 0))),
           _mm256_blendv_ps(a.h[1], b.h[1], _mm256_castsi256_ps(lanes_of(m, 1)))}};
}
SMELT_EMULATED __m512i _mm512_mask_or_epi32(__m512i source, __mmask16 m, __m512i a, __m512i b) {
  const __m512i r = _mm512_or_si512(a, b);
  return {{_mm256_blendv_epi8(source.h[0], r.h[0], lanes_of(m, 0)), _mm256_blendv_epi8(source.h[1], r.h[1], lanes_of(m, 1))}};
}

// Memory: masked accesses touch the lanes of the mask alone, as an address checker can see.
SMELT_EMULATED __m512 _mm512_loadu_ps(const float* p) { return {{_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}}; }
SMELT_EMULATED void _mm512_storeu_ps(float* p, __m512 a) {
  _mm256_storeu_ps(p, a.h[0]);
  _mm256_storeu_ps(p + 8, a.h[1]);
}
SMELT_EMULATED void _mm512_stream_ps(float* p, __m512 a) {
  _mm256_stream_ps(p, a.h[0]);
  _mm256_stream_ps(p + 8, a.h[1]);
}
template <class T, class P>
SMELT_EMULATED void load_lanes(T* lanes, __mmask16 m, const P* p) {
  for (int i = 0; i < 16; ++i)
    if (m >> i & 1) std::memcpy(lanes + i, reinterpret_cast<const char*>(p) + i * sizeof(T), sizeof(T));
}
template <class T, class P>
SMELT_EMULATED void store_lanes(P* p, __mmask16 m, const T* lanes) {
  for (int i = 0; i < 16; ++i)
    if (m >> i & 1) std::memcpy(reinterpret_cast<char*>(p) + i * sizeof(T), lanes + i, sizeof(T));
}
SMELT_EMULATED __m512 _mm512_maskz_loadu_ps(__mmask16 m, const float* p) {
  float lanes[16] = {};
  load_lanes(lanes, m, p);
  return _mm512_loadu_ps(lanes);
}
SMELT_EMULATED void _mm512_mask_storeu_ps(float* p, __mmask16 m, __m512 a) {
  float lanes[16];
  _mm512_storeu_ps(lanes, a);
  store_lanes(p, m, lanes);
}
template <class P>
SMELT_EMULATED __m256i _mm256_maskz_loadu_epi16(__mmask16 m, const P* p) {
  uint16_t lanes[16] = {};
  load_lanes(lanes, m, p);
  __m256i r;
  std::memcpy(&r, lanes, sizeof r);
  return r;
}
template <class P>
SMELT_EMULATED void _mm256_mask_storeu_epi16(P* p, __mmask16 m, __m256i a) {
  uint16_t lanes[16];
  std::memcpy(lanes, &a, sizeof lanes);
  store_lanes(p, m, lanes);
}

}  // namespace
}  // namespace smelt
