// softmax, and cross entropy over logits, which are read from memory once: the largest so far is taken out of each block of a row,
// so nothing overflows (Milakov and Gimelshein, 2018).
#include "cpu/kernels/common.inl.h"
#include "cpu/kernels/families.h"

namespace smelt {
namespace {

constexpr int64_t kGrain = 8192;

int64_t row_grain(int64_t n) { return max_of(int64_t{1}, kGrain / max_of(n, int64_t{1})); }

// Elements whose largest is taken, then their exponentials while they are in the first cache.
constexpr int64_t kBlock = 2048;

// The largest of n > 0 elements. A NaN may be passed over: the sum of the exponentials has it.
template <class V, class S>
inline typename V::T largest(const S* x, int64_t n) {
  using T = typename V::T;
  if (n < V::W) {
    T best = from_storage(x[0]);
    for (int64_t i = 1; i < n; ++i) best = max_of(best, static_cast<T>(from_storage(x[i])));
    return best;
  }
  V a = V::load(x + n - V::W), b = a, c = a, d = a;  // the last vector may overlap the others
  int64_t i = 0;
  for (; i + 4 * V::W <= n; i += 4 * V::W) {
    a = max(V::load(x + i), a);
    b = max(V::load(x + i + V::W), b);
    c = max(V::load(x + i + 2 * V::W), c);
    d = max(V::load(x + i + 3 * V::W), d);
  }
  for (; i + V::W <= n; i += V::W) a = max(V::load(x + i), a);
  return max_lane(max(max(a, b), max(c, d)));
}

// The largest of a row, or 0 of -inf alone, and the sum of e^(x - largest).
template <class T>
struct RowScale {
  T largest, total;
};

// Rows that are done look by look, so that one row's chains wait for no others; long ones for themselves.
constexpr int kMostTogether = 4;
constexpr int64_t kShort = 1024;
int rows_together(int64_t n) { return n <= kShort ? kMostTogether : 1; }

// Elements from one that is looked at a second time to the one whose first look comes next.
int64_t to_next(int64_t n) { return min_of(n, kBlock) * rows_together(n); }

// One look at a row, block by block, behind the first block's largest; the sum so far shrinks when a larger element comes.
// `powers` (n) and `tops` (blocks), where they are given, take e^(x - top) of each block's elements, with the largest so far for
// its top.
template <bool kKeep, class S>
inline RowScale<Compute<S>> row_scale(const S* x, int64_t n, Compute<S> first, Compute<S>* powers = nullptr,
                                      Compute<S>* tops = nullptr) {
  using V = Vec<S>;
  using E = Wide<S>;
  using T = Compute<S>;
  T best = 0, shift = 0, total = 0;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t count = min_of(kBlock, n - begin);
    const T here = begin == 0 ? first : largest<V>(x + begin, count), before = shift;
    best = begin == 0 || best < here ? here : best;
    shift = best == -static_cast<T>(__builtin_inf()) ? T(0) : best;
    const E top = E::set(shift);
    E acc = E::zero();
    const S* const next = x + begin + to_next(n);  // memory has time for it meanwhile
    each_vector<E>(count, [&](int64_t i, int lanes) {
      fetch<E>(next + i);
      const E e = exp_small(load<E>(x + begin + i, lanes) - top);
      if constexpr (kKeep) store(powers + begin + i, e, lanes);
      acc = acc + keep_lanes(e, lanes);
    });
    // Nothing so far means that all was -inf, whatever `before` is.
    total = total == 0 ? sum(acc) : total * std::exp(before - shift) + sum(acc);
    if constexpr (kKeep) tops[begin / kBlock] = best;
  }
  return {shift, total};
}

// For some rows together first the largest of their first blocks, then scales(row, that, r), then each(row, its scale, r), r being
// a row's number among them.
template <class S, class Scales, class Each>
inline void each_scaled(const S* x, int64_t n, int64_t begin, int64_t end, const Scales& scales, const Each& each) {
  using T = Compute<S>;
  const int together = rows_together(n);
  T first[kMostTogether];
  RowScale<T> scale[kMostTogether];
  for (int64_t row = begin; row < end; row += together) {
    const int count = static_cast<int>(min_of(static_cast<int64_t>(together), end - row));
    for (int r = 0; r < count; ++r) first[r] = largest<Vec<S>>(x + (row + r) * n, min_of(n, kBlock));
    for (int r = 0; r < count; ++r) scale[r] = scales(row + r, first[r], r);
    for (int r = 0; r < count; ++r) each(row + r, scale[r], r);
  }
}

// Of each thread some rows of exponentials, and the tops of their blocks.
int64_t scratch_row(int64_t n) { return round_up(n + ceil_div(n, kBlock), 16); }
size_t softmax_workspace(const SoftmaxArgs& a, int threads) {
  const int64_t size = a.dtype == DType::float64 ? 8 : 4;
  return a.log ? 0 : static_cast<size_t>(threads * rows_together(a.n) * scratch_row(a.n) * size);
}

template <class S>
void softmax_run(const SoftmaxArgs& a, Context& context) {
  using V = Vec<S>;
  using T = typename V::T;
  const int64_t n = a.n;
  const S* const x = static_cast<const S*>(a.x);
  S* const y = static_cast<S*>(a.y);
  const bool past = past_caches<S>(a.rows * n);
  parallel_for(context, n ? a.rows : 0, row_grain(n), [&](int64_t begin, int64_t end, int thread) {
    if (a.log) {
      each_scaled(
          x, n, begin, end, [&](int64_t row, T first, int) { return row_scale<false>(x + row * n, n, first); },
          [&](int64_t row, RowScale<T> scale, int) {
            const S* const own = x + row * n;
            const V shift = V::set(scale.largest), log_total = V::set(std::log(scale.total));
            each_written<V>(y + row * n, n, past,
                            [&](int64_t i, int lanes) { return (load<V>(own + i, lanes) - shift) - log_total; });
          });
    } else {
      T* const scratch = static_cast<T*>(context.workspace) + thread * rows_together(n) * scratch_row(n);
      const auto powers = [&](int r) { return scratch + r * scratch_row(n); };
      each_scaled(
          x, n, begin, end,
          [&](int64_t row, T first, int r) { return row_scale<true>(x + row * n, n, first, powers(r), powers(r) + n); },
          [&](int64_t row, RowScale<T> scale, int r) {
            const T *const e = powers(r), *const tops = e + n;
            for (int64_t from = 0; from < n; from += kBlock) {
              const T top = tops[from / kBlock], share = top == scale.largest ? T(1) : std::exp(top - scale.largest);
              const V factor = V::set(share / scale.total);
              each_written<V>(y + row * n + from, min_of(kBlock, n - from), past,
                              [&](int64_t i, int lanes) { return load<V>(e + from + i, lanes) * factor; });
            }
          });
    }
    if (past) end_stream();
  });
}

Status softmax(const SoftmaxArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) { softmax_run<S>(a, context); });
  return Status::ok;
}

// softmax: dx = y (dy - sum(dy y));  log_softmax: dx = dy - e^y sum(dy).
template <class S>
void softmax_backward_run(const SoftmaxBackwardArgs& a, Context& context) {
  using V = Wide<S>;
  const bool past = !a.accumulate && past_caches<S>(a.rows * a.n);
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
      each_written<V>(dx, a.n, past, [&](int64_t i, int lanes) {
        const V g = load<V>(dy + i, lanes), out = load<V>(y + i, lanes);
        const V d = a.log ? g - exp_small(out) * total : out * (g - total);
        return a.accumulate ? load<V>(dx + i, lanes) + d : d;
      });
    }
    if (past) end_stream();
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
  const T* weight = static_cast<const T*>(a.weight);
  const T smoothing = static_cast<T>(a.label_smoothing);
  T* losses = static_cast<T*>(context.workspace);
  T* weights = losses + a.rows;
  const S* const logits = static_cast<const S*>(a.logits);
  const auto finish = [&](int64_t row, RowScale<T> scale, int) {
    const S* const x = logits + row * a.classes;
    const T maximum = scale.largest, log_sum = std::log(scale.total);
    static_cast<T*>(a.lse)[2 * row] = maximum;
    static_cast<T*>(a.lse)[2 * row + 1] = log_sum;
    const int64_t label = a.labels[row];
    losses[row] = weights[row] = 0;
    if (label == a.ignore_index) return;
    const T w = weight ? weight[label] : T(1);
    T loss = w * ((maximum - from_storage(x[label])) + log_sum);
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
  };
  parallel_for(context, a.rows, row_grain(a.classes), [&](int64_t begin, int64_t end) {
    each_scaled(
        logits, a.classes, begin, end,
        [&](int64_t row, T first, int) { return row_scale<false>(logits + row * a.classes, a.classes, first); }, finish);
  });
  double total = 0, total_weight = 0;
  for (int64_t row = 0; row < a.rows; ++row) {
    total += losses[row];
    total_weight += weights[row];
  }
  *static_cast<T*>(a.total_weight) = static_cast<T>(total_weight);
  T* out = static_cast<T*>(a.loss);
  if (a.reduction == Reduction::none) {
    for (int64_t row = 0; row < a.rows; ++row) out[row] = losses[row];
  } else {
    *out = static_cast<T>(a.reduction == Reduction::mean ? total / total_weight : total);
  }
}

Status cross_entropy(const CrossEntropyArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) { cross_entropy_run<S>(a, context); });
  return Status::ok;
}

// `value` in the lane of the label, if that is among i, i + 1, ..., else 0.
template <class V>
inline V at_label(int64_t label, int64_t i, typename V::T value) {
  typename V::T buffer[V::W] = {};
  buffer[label - i] = value;
  return load<V>(buffer, V::W);
}

// dx[c] = scale ((1 - e) w[y] (p[c] - [c = y]) + e / C (p[c] sum(w) - w[c]))
template <class S>
void cross_entropy_backward_run(const CrossEntropyBackwardArgs& a, Context& context) {
  using V = Wide<S>;
  using T = typename V::T;
  const T* weight = static_cast<const T*>(a.weight);
  const T smoothing = static_cast<T>(a.label_smoothing), spread = smoothing / static_cast<T>(a.classes);
  T weight_sum = static_cast<T>(a.classes);
  if (weight) {
    weight_sum = 0;
    for (int64_t i = 0; i < a.classes; ++i) weight_sum += weight[i];
  }
  const bool past = !a.accumulate && past_caches<S>(a.rows * a.classes);
  parallel_for(context, a.rows, row_grain(a.classes), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const S* x = static_cast<const S*>(a.logits) + row * a.classes;
      S* dx = static_cast<S*>(a.dlogits) + row * a.classes;
      const int64_t label = a.labels[row];
      if (label == a.ignore_index) {
        if (!a.accumulate) each_written<V>(dx, a.classes, past, [&](int64_t, int) { return V::zero(); });
        continue;
      }
      T scale = static_cast<const T*>(a.dloss)[a.reduction == Reduction::none ? row : 0];
      if (a.reduction == Reduction::mean) scale /= *static_cast<const T*>(a.total_weight);
      const T direct = (T(1) - smoothing) * (weight ? weight[label] : T(1));
      const T* lse = static_cast<const T*>(a.lse) + 2 * row;
      const V factor = V::set(scale * (direct + spread * weight_sum)), maximum = V::set(lse[0]), log_sum = V::set(lse[1]);
      const V even = V::set(scale * spread);
      each_written<V>(dx, a.classes, past, [&](int64_t i, int lanes) {
        V d = factor * exp_small((load<V>(x + i, lanes) - maximum) - log_sum);
        if (smoothing > 0) d = d - even * (weight ? load<V>(weight + i, lanes) : V::set(T(1)));
        if (label - i >= 0 && label - i < lanes) [[unlikely]]
          d = d - at_label<V>(label, i, scale * direct);
        return a.accumulate ? load<V>(dx + i, lanes) + d : d;
      });
    }
    if (past) end_stream();
  });
}

Status cross_entropy_backward(const CrossEntropyBackwardArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) { cross_entropy_backward_run<S>(a, context); });
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_softmax(KernelTable& table) {
  add_kernel<SoftmaxArgs, softmax, floating_only, softmax_workspace>(table, SMELT_KERNEL_NAME("softmax"));
  add_kernel<SoftmaxBackwardArgs, softmax_backward>(table, SMELT_KERNEL_NAME("softmax_backward"));
  add_kernel<CrossEntropyArgs, cross_entropy, floating_only, cross_entropy_workspace>(table,
                                                                                 SMELT_KERNEL_NAME("cross_entropy"));
  add_kernel<CrossEntropyBackwardArgs, cross_entropy_backward, floating_only>(table,
                                                                          SMELT_KERNEL_NAME("cross_entropy_backward"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
