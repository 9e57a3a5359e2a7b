// Optimizer updates over flat buffers: one launch, one pass, four numbers a thread. What changes from step to step is read from
// the step block in the device's memory.
#include "cuda/common/rows.cuh"

namespace smelt {
namespace {

constexpr int64_t kPiece = 8192;  // elements whose squares one block adds
constexpr int kEach = 4;          // elements of a thread: segments begin at multiples of 64

// The active segment that element i lies in, or null.
SMELT_WORD const Segment* segment_at(const Segment* segments, int64_t count, int64_t i) {
  int64_t low = 0, high = count;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (segments[middle].offset <= i ? low : high) = middle;
  }
  const Segment* const s = segments + low;
  return s->active && i < s->offset + s->length ? s : nullptr;
}
// How many of the four from i belong to it.
SMELT_WORD int part_of(const Segment& s, int64_t i) { return static_cast<int>(min_of(s.offset + s.length - i, int64_t{kEach})); }

// --------------------------------------------------------------------------------------------------------- the norm

template <class S>
__global__ void square_pieces(SumSquaresArgs a, double* partial) {
  using Row = RowThreads<kThreads>;
  SMELT_SHARED(double, shared, Row::kWarps);
  const int64_t begin = blockIdx.x * kPiece, end = min_of(begin + kPiece, a.size);
  double sum = 0;  // the square of a finite gradient may be beyond float32
  for (int64_t i = begin + static_cast<int>(threadIdx.x) * kEach; i < end; i += kThreads * kEach) {
    const Segment* const s = segment_at(a.segments, a.count, i);
    for (int j = 0; s && j < part_of(*s, i); ++j) {
      const double g = static_cast<const S*>(a.grad)[i + j];
      sum += g * g;
    }
  }
  sum = Row::sum(sum, shared);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}
__global__ void square_end(SumSquaresArgs a, const double* partial, int64_t pieces) {
  SMELT_SHARED(double, shared, RowThreads<kThreads>::kWarps);
  const double sum = sum_parts(partial, pieces, shared);
  if (threadIdx.x == 0) *a.sum = sum;
}

size_t sum_squares_workspace(const SumSquaresArgs& a) { return static_cast<size_t>(ceil_div(a.size, kPiece)) * sizeof(double); }

Status sum_squares(const SumSquaresArgs& a, Context& context) noexcept {
  const int64_t pieces = ceil_div(a.size, kPiece);
  auto* partial = static_cast<double*>(context.workspace);
  if (pieces) {
    const Status status = with_wide(a.dtype, [&]<class S>(S) {
      return cuda::launch(context, square_pieces<S>, cuda::size3(pieces), cuda::size3(kThreads), 0, a, partial);
    });
    if (status != Status::ok) return status;
  }
  return cuda::launch(context, square_end, cuda::size3(1), cuda::size3(kThreads), 0, a, partial, pieces);
}

__global__ void clip_scale_kernel(ClipScaleArgs a) {
  if (threadIdx.x != 0) return;
  double total = 0;
  for (int64_t i = 0; i < a.count; ++i) total += a.sums[i];
  const double norm = std::sqrt(total);
  if (!a.block->failed) *a.norm = norm;
  const bool finite = norm - norm == 0;
  if (!finite) {
    if (!a.block->skip) ++a.block->skipped;
    a.block->skip = 1;
  }
  a.block->grad_scale = finite && norm > a.max_norm ? a.max_norm / norm : 1.0;
}
Status clip_scale(const ClipScaleArgs& a, Context& context) noexcept {
  return cuda::launch(context, clip_scale_kernel, cuda::size3(1), cuda::size3(32), 0, a);
}

template <class S>
__global__ void guard_loss_kernel(GuardLossArgs a, DeviceFault* fault) {
  if (threadIdx.x != 0) return;
  const auto loss = from_storage(*static_cast<const S*>(a.loss));
  if ((loss - loss != 0 || fault->ticket) && !a.block->failed) {
    a.block->failed = a.block->step;
    a.block->fault = *fault;
    fault->ticket = 0;
  }
  if (a.block->failed) a.block->skip = 1;
}
Status guard_loss(const GuardLossArgs& a, Context& context) noexcept {
  return with_floating(a.dtype, [&]<class S>(S) { return cuda::launch(context, guard_loss_kernel<S>, cuda::size3(1), cuda::size3(32), 0, a, context.fault); });
}

bool whole_packs(const RestoreArgs& a) { return aligned16(a.from) && aligned16(a.to) && a.bytes % 16 == 0; }

__global__ void restore_kernel(RestoreArgs a) {
  const int64_t i = grid_thread() * 16;
  if (i < a.bytes && a.block->failed) cuda::store16(static_cast<char*>(a.to) + i, cuda::load16(static_cast<const char*>(a.from) + i));
}
Status restore(const RestoreArgs& a, Context& context) noexcept {
  if (a.bytes == 0) return Status::ok;
  return cuda::launch(context, restore_kernel, cuda::blocks_for(ceil_div(a.bytes, 16), kThreads), cuda::size3(kThreads), 0, a);
}

// ------------------------------------------------------------------------------------------------------- the updates

// Four elements of a flat buffer; flat buffers are multiples of 64 elements long, so that the last four are there too.
template <class S>
struct Four {
  S e[kEach];
  SMELT_WORD static Four load(const S* p) {
    Four f;
    if constexpr (sizeof(S) == 4) {
      f = std::bit_cast<Four>(cuda::load16(p));
    } else {
      for (int j = 0; j < kEach; ++j) f.e[j] = p[j];
    }
    return f;
  }
  SMELT_WORD void store(S* p, int count) const {
    if constexpr (sizeof(S) == 4) {
      if (count == kEach) return cuda::store16(p, std::bit_cast<cuda::Bytes16>(*this));
    }
    SMELT_UNROLL
    for (int j = 0; j < kEach; ++j)
      if (j < count) p[j] = e[j];
  }
};

// The parameter, and its bfloat16 copy where there is one.
template <class S>
SMELT_WORD void store_both(void* param, void* mirror, int64_t i, const Four<S>& p, int count) {
  p.store(static_cast<S*>(param) + i, count);
  if constexpr (sizeof(S) == 4) {
    auto* const copy = static_cast<bfloat16*>(mirror) + i;
    if (!mirror) return;
    if (count == kEach) {
      uint32_t pair[2];
      for (int j = 0; j < 2; ++j) pair[j] = to_bfloat16(p.e[2 * j]).bits | static_cast<uint32_t>(to_bfloat16(p.e[2 * j + 1]).bits) << 16;
      *reinterpret_cast<uint64_t*>(copy) = pair[0] | static_cast<uint64_t>(pair[1]) << 32;
      return;
    }
    SMELT_UNROLL
    for (int j = 0; j < kEach; ++j)
      if (j < count) copy[j] = to_bfloat16(p.e[j]);
  }
}

template <class S>
__global__ void sgd_kernel(SgdArgs a) {
  const int64_t i = grid_thread() * kEach;
  if (i >= a.size || a.block->skip) return;
  const Segment* const segment = segment_at(a.segments, a.count, i);
  if (!segment) return;
  const StepBlock::Group& group = a.block->group[segment->group];
  const int count = part_of(*segment, i);
  const S scale = static_cast<S>(a.block->grad_scale), lr = static_cast<S>(group.lr), decay = static_cast<S>(group.weight_decay);
  const S mu = static_cast<S>(group.beta1);
  S* const momentum = static_cast<S*>(a.momentum);
  Four<S> p = Four<S>::load(static_cast<const S*>(a.param) + i), g = Four<S>::load(static_cast<const S*>(a.grad) + i), m = {};
  if (momentum) m = Four<S>::load(momentum + i);
  for (int j = 0; j < kEach; ++j) {
    S d = std::fma(decay, p.e[j], g.e[j] * scale);
    if (momentum) {
      m.e[j] = std::fma(mu, m.e[j], d);
      d = a.nesterov ? std::fma(mu, m.e[j], d) : m.e[j];
    }
    p.e[j] = std::fma(-lr, d, p.e[j]);
  }
  if (momentum) m.store(momentum + i, count);
  store_both(a.param, a.mirror, i, p, count);
}

template <class S>
__global__ void adam_kernel(AdamArgs a) {
  const int64_t i = grid_thread() * kEach;
  if (i >= a.size || a.block->skip) return;
  const Segment* const segment = segment_at(a.segments, a.count, i);
  if (!segment) return;
  const StepBlock::Group& group = a.block->group[segment->group];
  const int count = part_of(*segment, i);
  const auto value = [](double x) { return static_cast<S>(x); };
  const S scale = value(a.block->grad_scale), beta1 = value(group.beta1), beta2 = value(group.beta2), eps = value(group.eps);
  const S rest1 = value(1 - group.beta1), rest2 = value(1 - group.beta2);
  const S step = value(group.lr * group.inverse_bias_correction1), correction2 = value(group.inverse_sqrt_bias_correction2);
  const S coupled = value(a.decoupled ? 0 : group.weight_decay), keep = value(a.decoupled ? 1 - group.lr * group.weight_decay : 1);
  S* const exp_avg = static_cast<S*>(a.exp_avg) + i;
  S* const exp_avg_sq = static_cast<S*>(a.exp_avg_sq) + i;
  Four<S> p = Four<S>::load(static_cast<const S*>(a.param) + i), grad = Four<S>::load(static_cast<const S*>(a.grad) + i);
  Four<S> m = Four<S>::load(exp_avg), v = Four<S>::load(exp_avg_sq);
  for (int j = 0; j < kEach; ++j) {
    const S g = std::fma(coupled, p.e[j], grad.e[j] * scale);
    m.e[j] = std::fma(rest1, g, beta1 * m.e[j]);
    v.e[j] = std::fma(rest2 * g, g, beta2 * v.e[j]);
    p.e[j] = p.e[j] * keep - step * m.e[j] / std::fma(std::sqrt(v.e[j]), correction2, eps);
  }
  m.store(exp_avg, count);
  v.store(exp_avg_sq, count);
  store_both(a.param, a.mirror, i, p, count);
}

template <class Args>
Status update(const Args& a, const Context& context, void (*single)(Args), void (*twice)(Args)) {
  if (a.size == 0 || a.count == 0) return Status::ok;
  return cuda::launch(context, a.dtype == DType::float64 ? twice : single, cuda::blocks_for(ceil_div(a.size, kEach), kThreads),
                      cuda::size3(kThreads), 0, a);
}
Status sgd(const SgdArgs& a, Context& context) noexcept { return update(a, context, sgd_kernel<float>, sgd_kernel<double>); }
Status adam(const AdamArgs& a, Context& context) noexcept { return update(a, context, adam_kernel<float>, adam_kernel<double>); }

}  // namespace

void cuda::register_optimizer(const Taker& taker) {
  add_kernel<SumSquaresArgs, sum_squares, wide_only, sum_squares_workspace>(taker, "sm80_sum_squares");
  add_kernel<GuardLossArgs, guard_loss, floating_only>(taker, "sm80_guard_loss");
  add_kernel<RestoreArgs, restore, whole_packs>(taker, "sm80_restore");
  add_kernel<ClipScaleArgs, clip_scale>(taker, "sm80_clip_scale");
  add_kernel<SgdArgs, sgd, wide_only>(taker, "sm80_sgd");
  add_kernel<AdamArgs, adam, wide_only>(taker, "sm80_adam");
}

}  // namespace smelt
