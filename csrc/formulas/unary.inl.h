// The elementwise functions and their derivatives, on vectors: used by the unary kernels and by epilogues alike, so
// that fused and unfused forms give the same bits.
#pragma once
#include "core/kernels.h"
#include "formulas/math.inl.h"
#include "formulas/types.inl.h"

namespace smelt {
namespace {

constexpr double kSqrtHalf = 0.70710678118654752440;
constexpr double kGeluTanhScale = 0.79788456080286535588;  // sqrt(2 / pi)
constexpr double kGeluTanhCubic = 0.044715;

template <class V>
SMELT_INLINE V c(double x) {
  return V::set(static_cast<typename V::T>(x));
}

template <UnaryOp op, class V>
SMELT_INLINE V apply(V x, V a, V b) {
  if constexpr (op == UnaryOp::neg) return -x;
  if constexpr (op == UnaryOp::abs) return abs(x);
  if constexpr (op == UnaryOp::sign) {
    const V s = select(V::zero() < x, c<V>(1), select(x < V::zero(), c<V>(-1), V::zero()));
    return select(is_nan(x), x, s);
  }
  if constexpr (op == UnaryOp::square) return x * x;
  if constexpr (op == UnaryOp::sqrt) return sqrt(x);
  if constexpr (op == UnaryOp::rsqrt) return c<V>(1) / sqrt(x);
  if constexpr (op == UnaryOp::reciprocal) return c<V>(1) / x;
  if constexpr (op == UnaryOp::exp) return exp(x);
  if constexpr (op == UnaryOp::expm1) return expm1(x);
  if constexpr (op == UnaryOp::log) return log(x);
  if constexpr (op == UnaryOp::log1p) return log1p(x);
  if constexpr (op == UnaryOp::sin) return per_lane(x, [](auto t) { return std::sin(t); });
  if constexpr (op == UnaryOp::cos) return per_lane(x, [](auto t) { return std::cos(t); });
  if constexpr (op == UnaryOp::tanh) return tanh(x);
  if constexpr (op == UnaryOp::sigmoid) return sigmoid(x);
  if constexpr (op == UnaryOp::erf) return erf(x);
  if constexpr (op == UnaryOp::floor) return floor(x);
  if constexpr (op == UnaryOp::ceil) return -floor(-x);
  if constexpr (op == UnaryOp::round) return round(x);
  if constexpr (op == UnaryOp::trunc) return trunc(x);
  if constexpr (op == UnaryOp::relu) return max_nan(x, V::zero());
  if constexpr (op == UnaryOp::leaky_relu) return select(x < V::zero(), x * a, x);
  if constexpr (op == UnaryOp::elu) return select(x < V::zero(), a * expm1(x), x);
  if constexpr (op == UnaryOp::gelu) return gelu(x);
  if constexpr (op == UnaryOp::gelu_tanh) {
    const V inner = c<V>(kGeluTanhScale) * fma(c<V>(kGeluTanhCubic) * x * x, x, x);
    return c<V>(0.5) * x * (c<V>(1) + tanh(inner));
  }
  if constexpr (op == UnaryOp::silu) return x * sigmoid(x);
  if constexpr (op == UnaryOp::softplus) return softplus(x);
  if constexpr (op == UnaryOp::clip) return min_nan(max_nan(x, a), b);
}

// dx / dy as a factor of dy; s is x, or y for the ops whose derivative is a function of the result.
template <UnaryOp op, class V>
SMELT_INLINE V derivative(V s, V a, V b) {
  const V zero = V::zero(), one = c<V>(1);
  if constexpr (op == UnaryOp::neg) return -one;
  if constexpr (op == UnaryOp::abs) return select(zero < s, one, select(s < zero, -one, select(s == s, zero, s)));
  if constexpr (op == UnaryOp::square) return s + s;
  if constexpr (op == UnaryOp::sqrt) return c<V>(0.5) / s;
  if constexpr (op == UnaryOp::rsqrt) return c<V>(-0.5) * s * s * s;
  if constexpr (op == UnaryOp::reciprocal) return -(s * s);
  if constexpr (op == UnaryOp::exp) return s;
  if constexpr (op == UnaryOp::expm1) return s + one;
  if constexpr (op == UnaryOp::log) return one / s;
  if constexpr (op == UnaryOp::log1p) return one / (one + s);
  if constexpr (op == UnaryOp::sin) return per_lane(s, [](auto t) { return std::cos(t); });
  if constexpr (op == UnaryOp::cos) return per_lane(s, [](auto t) { return -std::sin(t); });
  if constexpr (op == UnaryOp::tanh) return one - s * s;
  if constexpr (op == UnaryOp::sigmoid) return s * (one - s);
  if constexpr (op == UnaryOp::erf) return c<V>(2 * kSqrtHalf * kGeluTanhScale) * exp(-(s * s));
  if constexpr (op == UnaryOp::relu) return select(zero < s, one, select(is_nan(s), s, zero));
  if constexpr (op == UnaryOp::leaky_relu) return select(s < zero, a, one);
  if constexpr (op == UnaryOp::elu) return select(s < zero, a * exp(s), one);
  if constexpr (op == UnaryOp::gelu) return gelu_slope(s);
  if constexpr (op == UnaryOp::gelu_tanh) {
    const V inner = c<V>(kGeluTanhScale) * fma(c<V>(kGeluTanhCubic) * s * s, s, s);
    const V t = tanh(inner);
    const V slope = c<V>(kGeluTanhScale) * fma(c<V>(3 * kGeluTanhCubic) * s, s, one);
    return c<V>(0.5) * (one + t) + c<V>(0.5) * s * (one - t * t) * slope;
  }
  if constexpr (op == UnaryOp::silu) {
    const V g = sigmoid(s);
    return g * (one + s * (one - g));
  }
  if constexpr (op == UnaryOp::softplus) return sigmoid(s);
  if constexpr (op == UnaryOp::clip) return select((a <= s) & (s <= b), one, select(is_nan(s), s, zero));
  return zero;
}

// Of integers.
template <class T>
SMELT_INLINE T integer_op(UnaryOp op, T x, Scalar a, Scalar b) {
  switch (op) {
    case UnaryOp::neg: return static_cast<T>(-static_cast<uint64_t>(x));  // wraps, as unsigned numbers do
    case UnaryOp::abs: return x < 0 ? static_cast<T>(-static_cast<uint64_t>(x)) : x;
    case UnaryOp::sign: return static_cast<T>((x > 0) - (x < 0));
    case UnaryOp::square: return static_cast<T>(static_cast<uint64_t>(x) * static_cast<uint64_t>(x));
    case UnaryOp::relu: return x > 0 ? x : T{0};
    case UnaryOp::clip: {
      const int64_t low = max_of(static_cast<int64_t>(x), a.i);
      return static_cast<T>(min_of(low, b.i));
    }
    default: return x;  // rounding leaves integers alone
  }
}

template <class S>
SMELT_INLINE bool predicate(UnaryOp op, S stored) {
  const auto x = from_storage(stored);
  if (op == UnaryOp::isnan) return x != x;
  if (op == UnaryOp::isinf) return x == x && (x - x) != (x - x);
  return x == 0;  // logical_not
}

// The activation of an epilogue.
template <class V>
SMELT_INLINE V activate(Activation activation, V x) {
  switch (activation) {
    case Activation::none: return x;
    case Activation::relu: return apply<UnaryOp::relu>(x, x, x);
    case Activation::tanh: return apply<UnaryOp::tanh>(x, x, x);
    case Activation::sigmoid: return apply<UnaryOp::sigmoid>(x, x, x);
    case Activation::gelu: return apply<UnaryOp::gelu>(x, x, x);
    case Activation::gelu_tanh: return apply<UnaryOp::gelu_tanh>(x, x, x);
    case Activation::silu: return apply<UnaryOp::silu>(x, x, x);
  }
  return x;
}

// Calls f with the op as a compile-time constant.
template <UnaryOp op>
struct OpTag {
  static constexpr UnaryOp value = op;
};
template <int op = 0, class F>
SMELT_INLINE void with_op(UnaryOp wanted, const F& f) {
  if constexpr (op < static_cast<int>(UnaryOp::isnan)) {
    if (wanted == static_cast<UnaryOp>(op)) return f(OpTag<static_cast<UnaryOp>(op)>{});
    with_op<op + 1>(wanted, f);
  }
}

}  // namespace
}  // namespace smelt
