// What random bits become.
#pragma once
#include <cmath>

#include "core/philox.h"
#include "formulas/types.inl.h"

namespace smelt {
namespace {

// [0, 1), in as many bits as the type has.
template <class S>
SMELT_INLINE double unit(uint32_t bits) {
  constexpr int kBits = __is_same(S, bfloat16) ? 8 : __is_same(S, float16) ? 11 : 24;
  return static_cast<double>(bits >> (32 - kBits)) * (1.0 / (1 << kBits));
}

// [low, high) as S.
template <class S>
SMELT_INLINE S uniform_in(uint32_t bits, double low, double high) {
  const S v = to_storage<S>(static_cast<Compute<S>>(low + (high - low) * unit<S>(bits)));
  // Rounding to S must not reach the open end.
  return from_storage(v) >= high && high > low ? to_storage<S>(static_cast<Compute<S>>(low)) : v;
}

// Box and Muller: lanes 0 and 1 give a pair of normal deviates, so do lanes 2 and 3.
SMELT_INLINE double normal_deviate(uint32_t first, uint32_t second, bool sine) {
  const double u = (static_cast<double>(first) + 1.0) * 0x1p-32;  // (0, 1]
  const double angle = 6.283185307179586 * (static_cast<double>(second) * 0x1p-32);
  return std::sqrt(-2.0 * std::log(u)) * (sine ? std::sin(angle) : std::cos(angle));
}

// Uniform over [low, high) by the upper half of a product; the bias is below range / 2^32, and for wider ranges 64 bits
// of a second draw are taken.
SMELT_INLINE int64_t integer_in(uint32_t bits, uint32_t extra, int64_t low, int64_t high) {
  const uint64_t range = static_cast<uint64_t>(high) - static_cast<uint64_t>(low);
  const uint64_t wide = static_cast<uint64_t>(bits) << 32 | extra;
  const auto above = static_cast<uint64_t>((static_cast<unsigned __int128>(wide) * range) >> 64);
  return static_cast<int64_t>(static_cast<uint64_t>(low) + above);
}

// Kept when the 32 bits are at least p 2^32: an exact comparison of integers.
inline uint64_t dropout_threshold(double p) { return static_cast<uint64_t>(p * 4294967296.0); }

}  // namespace
}  // namespace smelt
