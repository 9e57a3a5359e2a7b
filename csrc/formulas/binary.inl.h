// Functions of two elements.
#pragma once
#include <cmath>

#include "core/kernels.h"
#include "formulas/math.inl.h"
#include "formulas/types.inl.h"

namespace smelt {
namespace {

// ---------------------------------------------------------------------------------------- arithmetic on floats

template <class T>
SMELT_INLINE T floor_divide(T a, T b) {
  if (b == 0) return a / b;
  // By the exact remainder: a / b itself may round up to the next whole number.
  const T r = std::fmod(a, b);
  const T quotient = (a - r) / b - (r != 0 && (r < 0) != (b < 0) ? T{1} : T{0});
  const T whole = std::floor(quotient);
  if (quotient == 0) return std::copysign(T{0}, a / b);
  return quotient - whole > T{0.5} ? whole + T{1} : whole;
}
// With the sign of b, as in Python.
template <class T>
SMELT_INLINE T remainder_of(T a, T b) {
  const T r = std::fmod(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

template <BinaryOp op, class V>
SMELT_INLINE V apply(V a, V b) {
  if constexpr (op == BinaryOp::add) return a + b;
  if constexpr (op == BinaryOp::sub) return a - b;
  if constexpr (op == BinaryOp::mul) return a * b;
  if constexpr (op == BinaryOp::div) return a / b;
  if constexpr (op == BinaryOp::maximum) return max_nan(a, b);
  if constexpr (op == BinaryOp::minimum) return min_nan(a, b);
  if constexpr (op == BinaryOp::floor_div || op == BinaryOp::remainder || op == BinaryOp::pow) {
    typename V::T x[V::W], y[V::W];
    a.store(x);
    b.store(y);
    for (int i = 0; i < V::W; ++i) {
      if constexpr (op == BinaryOp::floor_div) x[i] = floor_divide(x[i], y[i]);
      if constexpr (op == BinaryOp::remainder) x[i] = remainder_of(x[i], y[i]);
      if constexpr (op == BinaryOp::pow) x[i] = std::pow(x[i], y[i]);
    }
    return V::load(x);
  }
}

// --------------------------------------------------------------------------------------- arithmetic on integers

// Wraps modulo 2^bits; a division by 0 gives 0, as in NumPy.
template <class T>
SMELT_INLINE T integer_op(BinaryOp op, T a, T b) {
  using U = uint64_t;
  switch (op) {
    case BinaryOp::add: return static_cast<T>(static_cast<U>(a) + static_cast<U>(b));
    case BinaryOp::sub: return static_cast<T>(static_cast<U>(a) - static_cast<U>(b));
    case BinaryOp::mul: return static_cast<T>(static_cast<U>(a) * static_cast<U>(b));
    case BinaryOp::maximum: return a > b ? a : b;
    case BinaryOp::minimum: return a < b ? a : b;
    case BinaryOp::floor_div: {
      if (b == 0) return 0;
      if (b == static_cast<T>(-1) && !__is_same(T, uint8_t)) return static_cast<T>(U{0} - static_cast<U>(a));
      const T q = static_cast<T>(a / b);
      return static_cast<T>(q - (a % b != 0 && (a < 0) != (b < 0)));
    }
    case BinaryOp::remainder: {
      if (b == 0 || (b == static_cast<T>(-1) && !__is_same(T, uint8_t))) return 0;
      const T r = static_cast<T>(a % b);
      return static_cast<T>(r != 0 && (r < 0) != (b < 0) ? r + b : r);
    }
    case BinaryOp::pow: {
      if (b < 0) return static_cast<T>(a == 1 ? 1 : a == static_cast<T>(-1) ? (b % 2 ? -1 : 1) : 0);
      U result = 1, base = static_cast<U>(a);
      for (U e = static_cast<U>(b); e; e >>= 1, base *= base)
        if (e & 1) result *= base;
      return static_cast<T>(result);
    }
    default: return 0;
  }
}

template <class T>
SMELT_INLINE bool compare(BinaryOp op, T a, T b) {
  switch (op) {
    case BinaryOp::logical_and: return a != 0 && b != 0;
    case BinaryOp::logical_or: return a != 0 || b != 0;
    case BinaryOp::logical_xor: return (a != 0) != (b != 0);
    case BinaryOp::eq: return a == b;
    case BinaryOp::ne: return a != b;
    case BinaryOp::lt: return a < b;
    case BinaryOp::le: return a <= b;
    case BinaryOp::gt: return a > b;
    default: return a >= b;
  }
}

}  // namespace
}  // namespace smelt
