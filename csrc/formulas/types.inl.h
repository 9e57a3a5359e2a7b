// Element types as kernels see them: stored, computed in, and chosen by dtype.
#pragma once
#include "core/annotations.h"
#include "core/dtype.h"
#include "core/float16.h"

namespace smelt {
namespace {

template <class T>
constexpr bool is_real = __is_same(T, float) || __is_same(T, double);

template <class A, class B>
SMELT_INLINE constexpr auto min_of(A a, B b) {
  return a < b ? a : b;
}
template <class A, class B>
SMELT_INLINE constexpr auto max_of(A a, B b) {
  return a > b ? a : b;
}
SMELT_INLINE constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
SMELT_INLINE constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// What elements stored as S are computed in.
template <class S>
struct ComputeFor {
  using type = float;
};
template <>
struct ComputeFor<double> {
  using type = double;
};
template <class S>
using Compute = typename ComputeFor<S>::type;

template <class S>
SMELT_INLINE S to_storage(Compute<S> x) {
  if constexpr (__is_same(S, bfloat16))
    return to_bfloat16(x);
  else if constexpr (__is_same(S, float16))
    return to_float16(x);
  else
    return x;
}
SMELT_INLINE float from_storage(bfloat16 x) { return to_float(x); }
SMELT_INLINE float from_storage(float16 x) { return to_float(x); }
template <class S>
SMELT_INLINE S from_storage(S x) {
  return x;
}

// Calls f(S{}) with the storage type of a floating dtype.
template <class F>
auto with_floating(DType dtype, const F& f) {
  switch (dtype) {
    case DType::float64: return f(double{});
    case DType::bfloat16: return f(bfloat16{});
    case DType::float16: return f(float16{});
    default: return f(float{});
  }
}
// Calls f(S{}, R{}) with the storage types of operands and sums: the same, or float32 for sums of halves.
template <class F>
auto with_sums(DType dtype, DType sums, const F& f) {
  return with_floating(dtype, [&]<class S>(S) {
    if constexpr (sizeof(S) == 2)
      if (sums == DType::float32) return f(S{}, float{});
    return f(S{}, S{});
  });
}
inline bool takes_sums(DType dtype, DType sums) {
  return is_floating(dtype) && (sums == dtype || (dtype_size(dtype) == 2 && sums == DType::float32));
}
// Likewise for the two that every kernel computes in.
template <class F>
auto with_wide(DType dtype, const F& f) {
  return dtype == DType::float64 ? f(double{}) : f(float{});
}
template <class F>
auto with_integer(DType dtype, const F& f) {
  switch (dtype) {
    case DType::int64: return f(int64_t{});
    case DType::int32: return f(int32_t{});
    default: return f(uint8_t{});
  }
}
// An unsigned integer of the element's size, for kernels that only move elements.
template <class F>
auto with_bits(DType dtype, const F& f) {
  switch (dtype_size(dtype)) {
    case 8: return f(uint64_t{});
    case 4: return f(uint32_t{});
    case 2: return f(uint16_t{});
    default: return f(uint8_t{});
  }
}

}  // namespace
}  // namespace smelt
