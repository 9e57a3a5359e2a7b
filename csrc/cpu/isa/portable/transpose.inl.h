// A square of floats, transposed: dst[j * dst_ld + i] = src[i * src_ld + j].
#pragma once
#include <cstdint>

namespace smelt {
namespace {

constexpr int kTransposeBlock = 4;

inline void transpose_square(const float* src, int64_t src_ld, float* dst, int64_t dst_ld) {
  for (int j = 0; j < kTransposeBlock; ++j)
    for (int i = 0; i < kTransposeBlock; ++i) dst[j * dst_ld + i] = src[i * src_ld + j];
}

}  // namespace
}  // namespace smelt
