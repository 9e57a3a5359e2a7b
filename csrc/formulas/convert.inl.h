// A number of one element type as another.
#pragma once
#include "core/kernels.h"
#include "formulas/types.inl.h"

namespace smelt {
namespace {

// float32 on the way to a half type: rounded to odd, so that the second rounding is the only one that counts.
SMELT_INLINE float to_odd(float x) { return x; }
template <class T>
SMELT_INLINE float to_odd(T x) {
  const double wide = static_cast<double>(x);
  float narrow = static_cast<float>(wide);
  if (static_cast<double>(narrow) == wide || wide != wide) return narrow;
  uint32_t bits = __builtin_bit_cast(uint32_t, narrow);
  const bool above = __builtin_fabs(static_cast<double>(narrow)) > __builtin_fabs(wide);
  return __builtin_bit_cast(float, (above ? bits - 1 : bits) | 1u);
}

// The bits of a scalar in a dtype.
inline uint64_t scalar_bits(Scalar value, DType dtype) {
  switch (dtype) {
    case DType::float64: return __builtin_bit_cast(uint64_t, value.f);
    case DType::float32: return __builtin_bit_cast(uint32_t, static_cast<float>(value.f));
    case DType::bfloat16: return to_bfloat16(to_odd(value.f)).bits;
    case DType::float16: return to_float16(to_odd(value.f)).bits;
    case DType::bool_: return value.f != 0 || value.i != 0;
    default: return static_cast<uint64_t>(value.i);
  }
}

template <class F>
auto with_element(DType dtype, const F& f) {
  switch (dtype) {
    case DType::float32: return f(float{});
    case DType::float64: return f(double{});
    case DType::bfloat16: return f(bfloat16{});
    case DType::float16: return f(float16{});
    case DType::int64: return f(int64_t{});
    case DType::int32: return f(int32_t{});
    case DType::bool_: return f(bool{});
    default: return f(uint8_t{});
  }
}

// A number of any type as To: floats to integers truncate, what does not fit saturates, NaN becomes 0.
template <class To, class From>
SMELT_INLINE To convert(From x) {
  auto wide = from_storage(x);
  if constexpr (__is_same(To, bool)) {
    return wide != 0;
  } else if constexpr (__is_same(To, bfloat16) || __is_same(To, float16)) {
    return to_storage<To>(to_odd(wide));
  } else if constexpr (is_real<To> || !is_real<decltype(wide)>) {
    return static_cast<To>(wide);
  } else {
    constexpr bool kUnsigned = __is_same(To, uint8_t);
    constexpr double kLow = kUnsigned ? 0 : sizeof(To) == 4 ? -2147483648.0 : -9223372036854775808.0;
    constexpr double kHigh = kUnsigned ? 255 : sizeof(To) == 4 ? 2147483647.0 : 9223372036854775807.0;
    const double d = wide;
    if (!(d > kLow)) return d != d ? To{0} : static_cast<To>(kLow);
    if (d >= kHigh) return kUnsigned ? To(255) : sizeof(To) == 4 ? To(2147483647) : To(9223372036854775807LL);
    return static_cast<To>(d);
  }
}

}  // namespace
}  // namespace smelt
