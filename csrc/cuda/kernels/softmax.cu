// softmax, and cross entropy over logits: the row's maximum is taken out first, so nothing overflows.
#include "cuda/common/rows.cuh"

namespace smelt {
namespace {

// The largest element of a row, NaN when it has one, and the sum of e^(x - largest).
template <int kLanes, class S, class T>
SMELT_WORD void row_scale(const S* x, int64_t n, T* shared, T* largest, T* total) {
  using V = One<T>;
  using Row = RowThreads<kLanes>;
  T best = from_storage(x[0]);
  for (int64_t i = Row::first(); i < n; i += kLanes) best = max_nan(V::set(best), V::set(from_storage(x[i]))).v;
  best = Row::largest(best, shared);
  T sum = 0;
  for (int64_t i = Row::first(); i < n; i += kLanes) sum += exp(V::set(from_storage(x[i]) - best)).v;
  *largest = best;
  *total = Row::sum(sum, shared);
}

template <class S, int kLanes>
__global__ void softmax_kernel(SoftmaxArgs a) {
  using Row = RowThreads<kLanes>;
  using T = Compute<S>;
  using V = One<T>;
  SMELT_SHARED(T, shared, Row::kWarps);
  // Threads beyond the last row do it once more, and write nothing.
  const int64_t row = min_of(Row::row(), a.rows - 1);
  const S* x = static_cast<const S*>(a.x) + row * a.n;
  S* y = static_cast<S*>(a.y) + row * a.n;
  T largest, total;
  row_scale<kLanes>(x, a.n, shared, &largest, &total);
  if (row != Row::row()) return;
  const T scale = T{1} / total, log_total = std::log(total);
  for (int64_t i = Row::first(); i < a.n; i += kLanes) {
    const V d = V::set(from_storage(x[i]) - largest);
    y[i] = to_storage<S>(a.log ? d.v - log_total : exp(d).v * scale);
  }
}

Status softmax(const SoftmaxArgs& a, Context& context) noexcept {
  if (a.n == 0) return Status::ok;
  return with_floating(a.dtype, [&]<class S>(S) {
    return launch_rows(context, softmax_kernel<S, 32>, softmax_kernel<S, kThreads>, a.rows, a.n, a);
  });
}

// softmax: dx = y (dy - sum(dy y));  log_softmax: dx = dy - e^y sum(dy).
template <class S, int kLanes>
__global__ void softmax_backward_kernel(SoftmaxBackwardArgs a) {
  using Row = RowThreads<kLanes>;
  using T = Compute<S>;
  using V = One<T>;
  SMELT_SHARED(T, shared, Row::kWarps);
  const int64_t row = min_of(Row::row(), a.rows - 1);
  const S* y = static_cast<const S*>(a.y) + row * a.n;
  const S* dy = static_cast<const S*>(a.dy) + row * a.n;
  S* dx = static_cast<S*>(a.dx) + row * a.n;
  T sum = 0;
  for (int64_t i = Row::first(); i < a.n; i += kLanes)
    sum += a.log ? from_storage(dy[i]) : from_storage(dy[i]) * from_storage(y[i]);
  const T total = Row::sum(sum, shared);
  if (row != Row::row()) return;
  for (int64_t i = Row::first(); i < a.n; i += kLanes) {
    const T g = from_storage(dy[i]), out = from_storage(y[i]);
    T d = a.log ? g - exp(V::set(out)).v * total : out * (g - total);
    if (a.accumulate) d = from_storage(dx[i]) + d;
    dx[i] = to_storage<S>(d);
  }
}

Status softmax_backward(const SoftmaxBackwardArgs& a, Context& context) noexcept {
  if (a.n == 0) return Status::ok;
  return with_floating(a.dtype, [&]<class S>(S) {
    return launch_rows(context, softmax_backward_kernel<S, 32>, softmax_backward_kernel<S, kThreads>, a.rows, a.n, a);
  });
}

// ---------------------------------------------------------------------------------------------------- cross entropy

// Of each row its loss and weight, in `losses` (rows) and then (rows); the formula is the CPU's.
template <class S, int kLanes>
__global__ void cross_entropy_rows(CrossEntropyArgs a, S* losses) {
  using Row = RowThreads<kLanes>;
  SMELT_SHARED(S, shared, Row::kWarps);
  const int64_t row = min_of(Row::row(), a.rows - 1);
  const S* x = static_cast<const S*>(a.logits) + row * a.classes;
  const S* weight = static_cast<const S*>(a.weight);
  S largest, total;
  row_scale<kLanes>(x, a.classes, shared, &largest, &total);
  const S log_sum = std::log(total), smoothing = static_cast<S>(a.label_smoothing);
  S spread = 0;
  if (smoothing > 0)
    for (int64_t i = Row::first(); i < a.classes; i += kLanes) {
      const S l = (largest - x[i]) + log_sum;
      spread += weight ? l * weight[i] : l;
    }
  spread = Row::sum(spread, shared);
  if (row != Row::row() || Row::first() != 0) return;
  static_cast<S*>(a.lse)[2 * row] = largest;
  static_cast<S*>(a.lse)[2 * row + 1] = log_sum;
  const int64_t label = a.labels[row];
  const bool counts = label != a.ignore_index && label >= 0 && label < a.classes;
  const S w = !counts ? S{0} : weight ? weight[label] : S{1};
  S loss = counts ? w * ((largest - x[label]) + log_sum) : S{0};
  if (counts && smoothing > 0) loss = (S{1} - smoothing) * loss + smoothing / static_cast<S>(a.classes) * spread;
  losses[row] = loss;
  losses[a.rows + row] = w;
  if (a.reduction == Reduction::none) static_cast<S*>(a.loss)[row] = loss;
}

// The sums of losses and weights, by one block.
template <class S>
__global__ void cross_entropy_end(CrossEntropyArgs a, const S* losses) {
  using Row = RowThreads<kThreads>;
  SMELT_SHARED(double, shared, Row::kWarps);
  double loss = 0, weight = 0;
  for (int64_t row = threadIdx.x; row < a.rows; row += kThreads) {
    loss += losses[row];
    weight += losses[a.rows + row];
  }
  loss = Row::sum(loss, shared);
  weight = Row::sum(weight, shared);
  if (threadIdx.x != 0) return;
  *static_cast<S*>(a.total_weight) = static_cast<S>(weight);
  if (a.reduction != Reduction::none) *static_cast<S*>(a.loss) = static_cast<S>(a.reduction == Reduction::mean ? loss / weight : loss);
}

size_t cross_entropy_workspace(const CrossEntropyArgs& a) { return static_cast<size_t>(max_of(a.rows, int64_t{1})) * 2 * 8; }

template <class S>
Status cross_entropy_run(const CrossEntropyArgs& a, Context& context) {
  S* losses = static_cast<S*>(context.workspace);
  const Status status =
      launch_rows(context, cross_entropy_rows<S, 32>, cross_entropy_rows<S, kThreads>, a.rows, a.classes, a, losses);
  if (status != Status::ok) return status;
  return cuda::launch(context, cross_entropy_end<S>, cuda::size3(1), cuda::size3(kThreads), 0, a, losses);
}
Status cross_entropy(const CrossEntropyArgs& a, Context& context) noexcept {
  return with_wide(a.dtype, [&]<class S>(S) { return cross_entropy_run<S>(a, context); });
}

// dx[c] = scale ((1 - e) w[y] (p[c] - [c = y]) + e / C (p[c] sum(w) - w[c]))
template <class S, int kLanes>
__global__ void cross_entropy_backward_kernel(CrossEntropyBackwardArgs a) {
  using V = One<S>;
  using Row = RowThreads<kLanes>;
  SMELT_SHARED(S, shared, Row::kWarps);
  const int64_t row = min_of(Row::row(), a.rows - 1);
  const S* x = static_cast<const S*>(a.logits) + row * a.classes;
  S* dx = static_cast<S*>(a.dlogits) + row * a.classes;
  const S* weight = static_cast<const S*>(a.weight);
  const S smoothing = static_cast<S>(a.label_smoothing), spread = smoothing / static_cast<S>(a.classes);
  S weight_sum = 0;
  for (int64_t i = Row::first(); weight && i < a.classes; i += kLanes) weight_sum += weight[i];
  weight_sum = weight ? Row::sum(weight_sum, shared) : static_cast<S>(a.classes);
  if (row != Row::row()) return;
  const int64_t label = a.labels[row];
  const bool counts = label != a.ignore_index && label >= 0 && label < a.classes;
  S scale = static_cast<const S*>(a.dloss)[a.reduction == Reduction::none ? row : 0];
  if (a.reduction == Reduction::mean) scale /= *static_cast<const S*>(a.total_weight);
  const S direct = counts ? (S{1} - smoothing) * (weight ? weight[label] : S{1}) : S{0};
  const S largest = static_cast<const S*>(a.lse)[2 * row], log_sum = static_cast<const S*>(a.lse)[2 * row + 1];
  const S factor = scale * (direct + spread * weight_sum), even = scale * spread;
  for (int64_t i = Row::first(); i < a.classes; i += kLanes) {
    S d = 0;
    if (counts) {
      d = factor * exp(V::set((x[i] - largest) - log_sum)).v;
      if (smoothing > 0) d = d - even * (weight ? weight[i] : S{1});
    }
    if (a.accumulate) d = dx[i] + d;
    if (i == label && counts) d -= scale * direct;
    if (counts || !a.accumulate) dx[i] = d;
  }
}

Status cross_entropy_backward(const CrossEntropyBackwardArgs& a, Context& context) noexcept {
  return with_wide(a.dtype, [&]<class S>(S) {
    return launch_rows(context, cross_entropy_backward_kernel<S, 32>, cross_entropy_backward_kernel<S, kThreads>, a.rows, a.classes, a);
  });
}

}  // namespace

void cuda::register_softmax(const Taker& taker) {
  add_kernel<SoftmaxArgs, softmax>(taker, "sm80_softmax");
  add_kernel<SoftmaxBackwardArgs, softmax_backward>(taker, "sm80_softmax_backward");
  add_kernel<CrossEntropyArgs, cross_entropy, wide_only, cross_entropy_workspace>(taker, "sm80_cross_entropy");
  add_kernel<CrossEntropyBackwardArgs, cross_entropy_backward, wide_only>(taker, "sm80_cross_entropy_backward");
}

}  // namespace smelt
