// A square of 32-bit words, transposed: dst[j * dst_ld + i] is word j of row i, the rows `src_bytes` apart.
#pragma once
#include <cstdint>

namespace smelt {
namespace {

constexpr int kTransposeBlock = 4;

inline void transpose_square(const void* src, int64_t src_bytes, float* dst, int64_t dst_ld) {
  for (int j = 0; j < kTransposeBlock; ++j)
    for (int i = 0; i < kTransposeBlock; ++i)
      __builtin_memcpy(dst + j * dst_ld + i, static_cast<const char*>(src) + i * src_bytes + 4 * j, 4);
}

}  // namespace
}  // namespace smelt
