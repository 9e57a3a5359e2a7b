// Stores past the caches: they save reading what they replace.
#pragma once
#include <immintrin.h>

namespace smelt {
namespace {

// 64 bytes to an address that is a multiple of 64. Narrow pieces: they can follow right on narrow stores to `from`.
inline void stream_line(void* to, const void* from) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    _mm_stream_si128(static_cast<__m128i*>(to) + i, _mm_loadu_si128(static_cast<const __m128i*>(from) + i));
}

// After the last line: other threads see them before anything that comes later.
inline void end_stream() { _mm_sfence(); }

}  // namespace
}  // namespace smelt
