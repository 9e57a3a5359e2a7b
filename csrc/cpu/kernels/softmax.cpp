// softmax, and cross entropy over logits: the row's maximum is taken out first, so nothing overflows.
#include "cpu/kernels/common.inl.h"
#include "cpu/kernels/families.h"

namespace smelt {
namespace {

constexpr int64_t kGrain = 8192;

int64_t row_grain(int64_t n) { return max_of(int64_t{1}, kGrain / max_of(n, int64_t{1})); }

// Maximum of a row, NaN when it has one.
template <class V, class S>
Compute<S> row_max(const S* x, int64_t n) {
  using T = typename V::T;
  T best = from_storage(x[0]);
  V acc = V::set(best);
  each_vector<V>(n, [&](int64_t i, int lanes) {
    // Empty lanes hold 0 after the load: give them a real element.
    V v = load<V>(x + i, lanes);
    if (lanes < V::W) {
      T buffer[V::W];
      v.store(buffer);
      for (int l = lanes; l < V::W; ++l) buffer[l] = best;
      v = V::load(buffer);
    }
    acc = max_nan(acc, v);
  });
  T lanes[V::W];
  acc.store(lanes);
  for (int i = 0; i < V::W; ++i) {
    if (lanes[i] != lanes[i]) return lanes[i];
    best = lanes[i] > best ? lanes[i] : best;
  }
  return best;
}

// The sum of e^(x - max) over a row; a row of -inf alone counts as a maximum of 0.
template <class V, class S>
Compute<S> exp_sum(const S* x, int64_t n, Compute<S> maximum) {
  V acc = V::zero();
  each_vector<V>(n, [&](int64_t i, int lanes) {
    acc = acc + keep_lanes(exp(load<V>(x + i, lanes) - V::set(maximum)), lanes);
  });
  return sum(acc);
}

template <class S>
void softmax_run(const SoftmaxArgs& a, Context& context) {
  using V = Vec<S>;
  using T = typename V::T;
  parallel_for(context, a.n ? a.rows : 0, row_grain(a.n), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const S* x = static_cast<const S*>(a.x) + row * a.n;
      S* y = static_cast<S*>(a.y) + row * a.n;
      const T maximum = row_max<V>(x, a.n);
      const T total = exp_sum<V>(x, a.n, maximum);
      const V shift = V::set(maximum), scale = V::set(T(1) / total), log_total = V::set(std::log(total));
      each_vector<V>(a.n, [&](int64_t i, int lanes) {
        const V d = load<V>(x + i, lanes) - shift;
        store(y + i, a.log ? d - log_total : exp(d) * scale, lanes);
      });
    }
  });
}

Status softmax(const SoftmaxArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) { softmax_run<S>(a, context); });
  return Status::ok;
}

// softmax: dx = y (dy - sum(dy y));  log_softmax: dx = dy - e^y sum(dy).
template <class S>
void softmax_backward_run(const SoftmaxBackwardArgs& a, Context& context) {
  using V = Vec<S>;
  parallel_for(context, a.n ? a.rows : 0, row_grain(a.n), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const S* y = static_cast<const S*>(a.y) + row * a.n;
      const S* dy = static_cast<const S*>(a.dy) + row * a.n;
      S* dx = static_cast<S*>(a.dx) + row * a.n;
      V acc = V::zero();
      each_vector<V>(a.n, [&](int64_t i, int lanes) {
        const V g = load<V>(dy + i, lanes);
        acc = a.log ? acc + g : fma(g, load<V>(y + i, lanes), acc);
      });
      const V total = V::set(sum(acc));
      each_vector<V>(a.n, [&](int64_t i, int lanes) {
        const V g = load<V>(dy + i, lanes), out = load<V>(y + i, lanes);
        V d = a.log ? g - exp(out) * total : out * (g - total);
        if (a.accumulate) d = load<V>(dx + i, lanes) + d;
        store(dx + i, d, lanes);
      });
    }
  });
}

Status softmax_backward(const SoftmaxBackwardArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) { softmax_backward_run<S>(a, context); });
  return Status::ok;
}

// ---------------------------------------------------------------------------------------------------- cross entropy

// Loss and weight of every row, for the sum in order.
size_t cross_entropy_workspace(const CrossEntropyArgs& a, int) { return static_cast<size_t>(a.rows) * 2 * 8; }

// With smoothing e over C classes: (1 - e) w[y] l[y] + e / C sum_c w[c] l[c], l[c] = (largest - x[c]) + log sum exp(x - largest):
// largest and logarithm stay apart, because of large logits their sum would keep too few digits.
template <class S>
void cross_entropy_run(const CrossEntropyArgs& a, Context& context) {
  using V = Vec<S>;
  using T = typename V::T;
  const S* weight = static_cast<const S*>(a.weight);
  const T smoothing = static_cast<T>(a.label_smoothing);
  T* losses = static_cast<T*>(context.workspace);
  T* weights = losses + a.rows;
  parallel_for(context, a.rows, row_grain(a.classes), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const S* x = static_cast<const S*>(a.logits) + row * a.classes;
      const T maximum = row_max<V>(x, a.classes);
      const T log_sum = std::log(exp_sum<V>(x, a.classes, maximum));
      static_cast<S*>(a.lse)[2 * row] = maximum;
      static_cast<S*>(a.lse)[2 * row + 1] = log_sum;
      const int64_t label = a.labels[row];
      if (label == a.ignore_index) {
        losses[row] = weights[row] = 0;
        continue;
      }
      const T w = weight ? weight[label] : T(1);
      T loss = w * ((maximum - x[label]) + log_sum);
      if (smoothing > 0) {
        V acc = V::zero();
        each_vector<V>(a.classes, [&](int64_t i, int lanes) {
          V v = keep_lanes((V::set(maximum) - load<V>(x + i, lanes)) + V::set(log_sum), lanes);
          if (weight) v = v * load<V>(weight + i, lanes);
          acc = acc + v;
        });
        loss = (T(1) - smoothing) * loss + smoothing / static_cast<T>(a.classes) * sum(acc);
      }
      losses[row] = loss;
      weights[row] = w;
    }
  });
  double total = 0, total_weight = 0;
  for (int64_t row = 0; row < a.rows; ++row) {
    total += losses[row];
    total_weight += weights[row];
  }
  *static_cast<S*>(a.total_weight) = static_cast<S>(total_weight);
  S* out = static_cast<S*>(a.loss);
  if (a.reduction == Reduction::none) {
    for (int64_t row = 0; row < a.rows; ++row) out[row] = losses[row];
  } else {
    *out = static_cast<S>(a.reduction == Reduction::mean ? total / total_weight : total);
  }
}

Status cross_entropy(const CrossEntropyArgs& a, Context& context) noexcept {
  with_wide(a.dtype, [&]<class S>(S) { cross_entropy_run<S>(a, context); });
  return Status::ok;
}

// dx[c] = scale ((1 - e) w[y] (p[c] - [c = y]) + e / C (p[c] sum(w) - w[c]))
template <class S>
void cross_entropy_backward_run(const CrossEntropyBackwardArgs& a, Context& context) {
  using V = Vec<S>;
  const S* weight = static_cast<const S*>(a.weight);
  const S smoothing = static_cast<S>(a.label_smoothing), spread = smoothing / static_cast<S>(a.classes);
  S weight_sum = static_cast<S>(a.classes);
  if (weight) {
    weight_sum = 0;
    for (int64_t i = 0; i < a.classes; ++i) weight_sum += weight[i];
  }
  parallel_for(context, a.rows, row_grain(a.classes), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const S* x = static_cast<const S*>(a.logits) + row * a.classes;
      S* dx = static_cast<S*>(a.dlogits) + row * a.classes;
      const int64_t label = a.labels[row];
      if (label == a.ignore_index) {
        for (int64_t i = 0; !a.accumulate && i < a.classes; ++i) dx[i] = 0;
        continue;
      }
      S scale = static_cast<const S*>(a.dloss)[a.reduction == Reduction::none ? row : 0];
      if (a.reduction == Reduction::mean) scale /= *static_cast<const S*>(a.total_weight);
      const S direct = (S(1) - smoothing) * (weight ? weight[label] : S(1));
      const S* lse = static_cast<const S*>(a.lse) + 2 * row;
      const V factor = V::set(scale * (direct + spread * weight_sum)), maximum = V::set(lse[0]), log_sum = V::set(lse[1]);
      const V even = V::set(scale * spread);
      each_vector<V>(a.classes, [&](int64_t i, int lanes) {
        V d = factor * exp((load<V>(x + i, lanes) - maximum) - log_sum);
        if (smoothing > 0) d = d - even * (weight ? load<V>(weight + i, lanes) : V::set(S(1)));
        if (a.accumulate) d = load<V>(dx + i, lanes) + d;
        store(dx + i, d, lanes);
      });
      dx[label] -= scale * direct;
    }
  });
}

Status cross_entropy_backward(const CrossEntropyBackwardArgs& a, Context& context) noexcept {
  with_wide(a.dtype, [&]<class S>(S) { cross_entropy_backward_run<S>(a, context); });
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_softmax(KernelTable& table) {
  add_kernel<SoftmaxArgs, softmax>(table, SMELT_KERNEL_NAME("softmax"));
  add_kernel<SoftmaxBackwardArgs, softmax_backward>(table, SMELT_KERNEL_NAME("softmax_backward"));
  add_kernel<CrossEntropyArgs, cross_entropy, wide_only, cross_entropy_workspace>(table,
                                                                                 SMELT_KERNEL_NAME("cross_entropy"));
  add_kernel<CrossEntropyBackwardArgs, cross_entropy_backward, wide_only>(table,
                                                                          SMELT_KERNEL_NAME("cross_entropy_backward"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
