// Pointwise losses: the map and its sum in one pass. Sums of chunks, cut by shape alone, are added in order.
#include "cpu/kernels/common.inl.h"
#include "cpu/kernels/families.h"
#include "formulas/loss.inl.h"

namespace smelt {
namespace {

constexpr int64_t kChunk = 8192;

// Weights of the positive term for elements i ...: one, or one for each of the last axis.
template <class V, class S>
inline V positive(const S* weights, int64_t period, int64_t i, int lanes) {
  if (!weights) return c<V>(1);
  if (period == 1) return V::set(weights[0]);
  S buffer[V::W] = {};
  for (int l = 0; l < lanes; ++l) buffer[l] = weights[(i + l) % period];
  return V::load(buffer);
}

size_t loss_workspace(const LossArgs& a, int) { return static_cast<size_t>(ceil_div(a.n, kChunk)) * 8; }

template <class S>
void loss_run(const LossArgs& a, Context& context) {
  using V = Vec<S>;
  const S* x = static_cast<const S*>(a.x);
  const S* t = static_cast<const S*>(a.target);
  const S* weights = static_cast<const S*>(a.pos_weight);
  S* out = static_cast<S*>(a.loss);
  S* partial = static_cast<S*>(context.workspace);
  const int64_t chunks = ceil_div(a.n, kChunk);
  with_loss(a.op, [&]<LossOp op>(LossTag<op>) {
    parallel_chunks(context, chunks, [&](int64_t chunk, int) {
      const int64_t begin = chunk * kChunk, count = min_of(a.n - begin, kChunk);
      V acc = V::zero();
      each_vector<V>(count, [&](int64_t offset, int lanes) {
        const int64_t i = begin + offset;
        const V v = value<op>(load<V>(x + i, lanes), load<V>(t + i, lanes), c<V>(a.delta),
                              positive<V>(weights, a.period, i, lanes));
        if (a.reduction == Reduction::none)
          store(out + i, v, lanes);
        else
          acc = acc + keep_lanes(v, lanes);
      });
      if (a.reduction != Reduction::none) partial[chunk] = sum(acc);
    });
  });
  if (a.reduction == Reduction::none) return;
  double total = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) total += partial[chunk];
  *out = static_cast<S>(a.reduction == Reduction::mean ? total / static_cast<double>(a.n) : total);
}

Status loss(const LossArgs& a, Context& context) noexcept {
  with_wide(a.dtype, [&]<class S>(S) { loss_run<S>(a, context); });
  return Status::ok;
}

template <class S>
void loss_backward_run(const LossBackwardArgs& a, Context& context) {
  using V = Vec<S>;
  const S* x = static_cast<const S*>(a.x);
  const S* t = static_cast<const S*>(a.target);
  const S* weights = static_cast<const S*>(a.pos_weight);
  const S* dloss = static_cast<const S*>(a.dloss);
  S* dx = static_cast<S*>(a.dx);
  const bool each = a.reduction == Reduction::none;
  double factor = a.sign;
  if (a.reduction == Reduction::mean) factor /= static_cast<double>(max_of(a.n, int64_t{1}));
  const V scale = each ? c<V>(factor) : c<V>(factor * dloss[0]);
  with_loss(a.op, [&]<LossOp op>(LossTag<op>) {
    parallel_for(context, a.n, kChunk, [&](int64_t begin, int64_t end) {
      each_vector<V>(end - begin, [&](int64_t offset, int lanes) {
        const int64_t i = begin + offset;
        V d = scale * slope<op>(load<V>(x + i, lanes), load<V>(t + i, lanes), c<V>(a.delta),
                                positive<V>(weights, a.period, i, lanes));
        if (each) d = d * load<V>(dloss + i, lanes);
        if (a.accumulate) d = load<V>(dx + i, lanes) + d;
        store(dx + i, d, lanes);
      });
    });
  });
}

Status loss_backward(const LossBackwardArgs& a, Context& context) noexcept {
  with_wide(a.dtype, [&]<class S>(S) { loss_backward_run<S>(a, context); });
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_loss(KernelTable& table) {
  add_kernel<LossArgs, loss, wide_only, loss_workspace>(table, SMELT_KERNEL_NAME("loss"));
  add_kernel<LossBackwardArgs, loss_backward, wide_only>(table, SMELT_KERNEL_NAME("loss_backward"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
