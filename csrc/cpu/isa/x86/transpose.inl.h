// A square of 32-bit words, transposed in 256-bit registers: dst[j * dst_ld + i] is word j of row i, the rows `src_bytes` apart.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace smelt {
namespace {

constexpr int kTransposeBlock = 8;

inline void transpose_square(const void* src, int64_t src_bytes, float* dst, int64_t dst_ld) {
  const auto row = [&](int i) { return reinterpret_cast<const float*>(static_cast<const char*>(src) + i * src_bytes); };
  // Rows i and i + 4 share a register, so the exchange across its halves is done by the loads.
  __m256 r[8];
#pragma GCC unroll 8
  for (int half = 0; half < 2; ++half)
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m128 low = _mm_loadu_ps(row(i) + half * 4);
      const __m128 high = _mm_loadu_ps(row(i + 4) + half * 4);
      r[half * 4 + i] = _mm256_insertf128_ps(_mm256_castps128_ps256(low), high, 1);
    }
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    const __m256* q = r + half * 4;
    const __m256 a = _mm256_unpacklo_ps(q[0], q[1]), b = _mm256_unpackhi_ps(q[0], q[1]);
    const __m256 c = _mm256_unpacklo_ps(q[2], q[3]), d = _mm256_unpackhi_ps(q[2], q[3]);
    float* out = dst + half * 4 * dst_ld;
    _mm256_storeu_ps(out, _mm256_shuffle_ps(a, c, 0x44));
    _mm256_storeu_ps(out + dst_ld, _mm256_shuffle_ps(a, c, 0xee));
    _mm256_storeu_ps(out + 2 * dst_ld, _mm256_shuffle_ps(b, d, 0x44));
    _mm256_storeu_ps(out + 3 * dst_ld, _mm256_shuffle_ps(b, d, 0xee));
  }
}

}  // namespace
}  // namespace smelt
