// Pointwise losses and their slopes in the prediction.
#pragma once
#include "formulas/unary.inl.h"

namespace smelt {
namespace {

template <LossOp op>
struct LossTag {
  static constexpr LossOp value = op;
};
template <class F>
SMELT_INLINE void with_loss(LossOp op, const F& f) {
  switch (op) {
    case LossOp::mse: return f(LossTag<LossOp::mse>{});
    case LossOp::l1: return f(LossTag<LossOp::l1>{});
    case LossOp::huber: return f(LossTag<LossOp::huber>{});
    case LossOp::bce_with_logits: return f(LossTag<LossOp::bce_with_logits>{});
  }
}

template <LossOp op, class V>
SMELT_INLINE V value(V x, V t, V delta, V pos) {
  const V d = x - t;
  if constexpr (op == LossOp::mse) return d * d;
  if constexpr (op == LossOp::l1) return abs(d);
  if constexpr (op == LossOp::huber) {
    const V size = abs(d);
    return select(size <= delta, c<V>(0.5) * d * d, delta * (size - c<V>(0.5) * delta));
  }
  if constexpr (op == LossOp::bce_with_logits) {  // (1 - t) log(1 + e^x) + pos t log(1 + e^-x)
    const V rest = log1p(exp(-abs(x)));
    return fma(c<V>(1) - t, max_nan(x, V::zero()) + rest, pos * t * (max_nan(-x, V::zero()) + rest));
  }
}

template <LossOp op, class V>
SMELT_INLINE V slope(V x, V t, V delta, V pos) {
  const V d = x - t;
  if constexpr (op == LossOp::mse) return d + d;
  if constexpr (op == LossOp::l1) return apply<UnaryOp::sign>(d, d, d);
  if constexpr (op == LossOp::huber) return min_nan(max_nan(d, -delta), delta);
  if constexpr (op == LossOp::bce_with_logits) {  // (1 - t) sigmoid(x) - pos t sigmoid(-x), neither as 1 minus the other
    const V e = exp(-abs(x)), large = c<V>(1) / (c<V>(1) + e), small = e * large;
    const auto negative = x < V::zero();
    return (c<V>(1) - t) * select(negative, small, large) - pos * t * select(negative, large, small);
  }
}

}  // namespace
}  // namespace smelt
