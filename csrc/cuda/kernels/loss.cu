// Pointwise losses: the map and its sum in one pass. Sums of chunks, cut by shape alone, are added in order.
#include "cuda/common/rows.cuh"
#include "formulas/loss.inl.h"

namespace smelt {
namespace {

constexpr int64_t kChunk = 8192;

// The weight of the positive term of element i: one for each of the last axis.
template <class S>
SMELT_WORD One<S> positive(const void* weights, int64_t period, int64_t i) {
  return One<S>::set(weights ? static_cast<const S*>(weights)[i % period] : S{1});
}

template <class S>
__global__ void loss_chunks(LossArgs a, double* partial) {
  using V = One<S>;
  using Row = RowThreads<kThreads>;
  SMELT_SHARED(double, shared, Row::kWarps);
  const S* x = static_cast<const S*>(a.x);
  const S* t = static_cast<const S*>(a.target);
  const int64_t begin = blockIdx.x * kChunk, end = min_of(begin + kChunk, a.n);
  double sum = 0;
  with_loss(a.op, [&]<LossOp op>(LossTag<op>) {
    for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
      const V v = value<op>(V::set(x[i]), V::set(t[i]), c<V>(a.delta), positive<S>(a.pos_weight, a.period, i));
      if (a.reduction == Reduction::none)
        static_cast<S*>(a.loss)[i] = v.v;
      else
        sum += v.v;
    }
  });
  if (a.reduction == Reduction::none) return;
  sum = Row::sum(sum, shared);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}
template <class S>
__global__ void loss_end(LossArgs a, const double* partial, int64_t chunks) {
  SMELT_SHARED(double, shared, RowThreads<kThreads>::kWarps);
  const double sum = sum_parts(partial, chunks, shared);
  if (threadIdx.x == 0) *static_cast<S*>(a.loss) = static_cast<S>(a.reduction == Reduction::mean ? sum / static_cast<double>(a.n) : sum);
}

size_t loss_workspace(const LossArgs& a) { return static_cast<size_t>(ceil_div(a.n, kChunk)) * sizeof(double); }

Status loss(const LossArgs& a, Context& context) noexcept {
  return with_wide(a.dtype, [&]<class S>(S) {
    const int64_t chunks = ceil_div(a.n, kChunk);
    auto* partial = static_cast<double*>(context.workspace);
    if (chunks) {
      const Status status = cuda::launch(context, loss_chunks<S>, cuda::size3(chunks), cuda::size3(kThreads), 0, a, partial);
      if (status != Status::ok) return status;
    }
    if (a.reduction == Reduction::none) return Status::ok;
    return cuda::launch(context, loss_end<S>, cuda::size3(1), cuda::size3(kThreads), 0, a, partial, chunks);
  });
}

template <class S>
__global__ void loss_backward_kernel(LossBackwardArgs a) {
  using V = One<S>;
  const int64_t i = grid_thread();
  if (i >= a.n) return;
  const S* dloss = static_cast<const S*>(a.dloss);
  const bool each = a.reduction == Reduction::none;
  double factor = a.sign;
  if (a.reduction == Reduction::mean) factor /= static_cast<double>(a.n);
  const V scale = each ? c<V>(factor) : c<V>(factor * dloss[0]);
  with_loss(a.op, [&]<LossOp op>(LossTag<op>) {
    V d = scale * slope<op>(V::set(static_cast<const S*>(a.x)[i]), V::set(static_cast<const S*>(a.target)[i]), c<V>(a.delta),
                            positive<S>(a.pos_weight, a.period, i));
    if (each) d = d * V::set(dloss[i]);
    S* dx = static_cast<S*>(a.dx) + i;
    if (a.accumulate) d = V::set(*dx) + d;
    *dx = d.v;
  });
}

Status loss_backward(const LossBackwardArgs& a, Context& context) noexcept {
  if (a.n == 0) return Status::ok;
  return with_wide(a.dtype, [&]<class S>(S) {
    return cuda::launch(context, loss_backward_kernel<S>, cuda::blocks_for(a.n, kThreads), cuda::size3(kThreads), 0, a);
  });
}

}  // namespace

void cuda::register_loss(const Taker& taker) {
  add_kernel<LossArgs, loss, wide_only, loss_workspace>(taker, "sm80_loss");
  add_kernel<LossBackwardArgs, loss_backward, wide_only>(taker, "sm80_loss_backward");
}

}  // namespace smelt
