// Optimizer updates over flat buffers, one pass each.
#include "cpu/kernels/common.inl.h"
#include "cpu/kernels/families.h"

namespace smelt {
namespace {

constexpr int64_t kPiece = 8192;  // elements of the flat buffer

// Calls f(segment, begin, end) for the parts of active segments inside [from, to).
template <class F>
void each_part(const Segment* segments, int64_t count, int64_t from, int64_t to, const F& f) {
  int64_t low = 0, high = count;  // the last segment that begins at or before `from`
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (segments[middle].offset <= from ? low : high) = middle;
  }
  for (int64_t i = low; i < count && segments[i].offset < to; ++i) {
    const int64_t begin = max_of(from, segments[i].offset), end = min_of(to, segments[i].offset + segments[i].length);
    if (segments[i].active && begin < end) f(segments[i], begin, end);
  }
}

template <class Args, class F>
void each_active(const Args& a, Context& context, const F& f) {
  parallel_for(context, ceil_div(a.size, kPiece), 2, [&](int64_t begin, int64_t end) {
    each_part(a.segments, a.count, begin * kPiece, min_of(end * kPiece, a.size), f);
  });
}

// --------------------------------------------------------------------------------------------------------- the norm

size_t sum_squares_workspace(const SumSquaresArgs& a, int) {
  return static_cast<size_t>(ceil_div(a.size, kPiece)) * sizeof(double);
}

template <class S>
void sum_squares_run(const SumSquaresArgs& a, Context& context) {
  const S* grad = static_cast<const S*>(a.grad);
  double* partial = static_cast<double*>(context.workspace);
  const int64_t pieces = ceil_div(a.size, kPiece);
  parallel_chunks(context, pieces, [&](int64_t piece, int) {
    // In double: the square of a finite gradient may be beyond float32.
    double lane[16] = {};
    each_part(a.segments, a.count, piece * kPiece, min_of((piece + 1) * kPiece, a.size),
              [&](const Segment&, int64_t begin, int64_t end) {
                int64_t i = begin;
                for (; i + 16 <= end; i += 16)
                  for (int j = 0; j < 16; ++j) lane[j] += double{grad[i + j]} * double{grad[i + j]};
                for (int j = 0; i < end; ++i, ++j) lane[j] += double{grad[i]} * double{grad[i]};
              });
    double total = 0;
    for (double part : lane) total += part;
    partial[piece] = total;
  });
  double total = 0;
  for (int64_t piece = 0; piece < pieces; ++piece) total += partial[piece];
  *a.sum = total;
}

Status sum_squares(const SumSquaresArgs& a, Context& context) noexcept {
  with_wide(a.dtype, [&]<class S>(S) { sum_squares_run<S>(a, context); });
  return Status::ok;
}

Status clip_scale(const ClipScaleArgs& a, Context&) noexcept {
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
  return Status::ok;
}

Status guard_loss(const GuardLossArgs& a, Context&) noexcept {
  with_floating(a.dtype, [&]<class S>(S) {
    const auto loss = from_storage(*static_cast<const S*>(a.loss));
    if (loss - loss != 0 && !a.block->failed) a.block->failed = a.block->step;
  });
  if (a.block->failed) a.block->skip = 1;
  return Status::ok;
}

Status restore(const RestoreArgs& a, Context&) noexcept {
  if (a.block->failed) __builtin_memcpy(a.to, a.from, static_cast<size_t>(a.bytes));
  return Status::ok;
}

// ------------------------------------------------------------------------------------------------------- the updates

// Only float32 parameters have a mirror.
template <class S>
bfloat16* mirror_of(void* mirror) {
  return __is_same(S, float) ? static_cast<bfloat16*>(mirror) : nullptr;
}
template <class S, class V>
void store_both(S* param, bfloat16* mirror, int64_t i, V v, int lanes) {
  store(param + i, v, lanes);
  if constexpr (__is_same(S, float))
    if (mirror) store(mirror + i, v, lanes);
}

template <class S>
void sgd_run(const SgdArgs& a, Context& context) {
  using V = Vec<S>;
  S* param = static_cast<S*>(a.param);
  S* momentum = static_cast<S*>(a.momentum);
  bfloat16* mirror = mirror_of<S>(a.mirror);
  const S* grad = static_cast<const S*>(a.grad);
  const V grad_scale = V::set(static_cast<S>(a.block->grad_scale));
  each_active(a, context, [&](const Segment& segment, int64_t begin, int64_t end) {
    const StepBlock::Group& group = a.block->group[segment.group];
    const V lr = V::set(static_cast<S>(group.lr)), decay = V::set(static_cast<S>(group.weight_decay));
    const V mu = V::set(static_cast<S>(group.beta1));
    each_vector<V>(end - begin, [&](int64_t offset, int lanes) {
      const int64_t i = begin + offset;
      const V p = load<V>(param + i, lanes);
      V g = fma(decay, p, load<V>(grad + i, lanes) * grad_scale);
      if (momentum) {
        const V m = fma(mu, load<V>(momentum + i, lanes), g);
        store(momentum + i, m, lanes);
        g = a.nesterov ? fma(mu, m, g) : m;
      }
      store_both(param, mirror, i, fma(-lr, g, p), lanes);
    });
  });
}

Status sgd(const SgdArgs& a, Context& context) noexcept {
  if (a.block->skip) return Status::ok;
  with_wide(a.dtype, [&]<class S>(S) { sgd_run<S>(a, context); });
  return Status::ok;
}

template <class S>
void adam_run(const AdamArgs& a, Context& context) {
  using V = Vec<S>;
  S* param = static_cast<S*>(a.param);
  S* exp_avg = static_cast<S*>(a.exp_avg);
  S* exp_avg_sq = static_cast<S*>(a.exp_avg_sq);
  bfloat16* mirror = mirror_of<S>(a.mirror);
  const S* grad = static_cast<const S*>(a.grad);
  const V grad_scale = V::set(static_cast<S>(a.block->grad_scale));
  each_active(a, context, [&](const Segment& segment, int64_t begin, int64_t end) {
    const StepBlock::Group& group = a.block->group[segment.group];
    const auto value = [](double x) { return V::set(static_cast<S>(x)); };
    const V beta1 = value(group.beta1), beta2 = value(group.beta2), eps = value(group.eps);
    const V rest1 = value(1 - group.beta1), rest2 = value(1 - group.beta2);
    const V step = value(group.lr * group.inverse_bias_correction1);
    const V correction2 = value(group.inverse_sqrt_bias_correction2);
    const V coupled = value(a.decoupled ? 0 : group.weight_decay);
    const V keep = value(a.decoupled ? 1 - group.lr * group.weight_decay : 1);
    each_vector<V>(end - begin, [&](int64_t offset, int lanes) {
      const int64_t i = begin + offset;
      const V p = load<V>(param + i, lanes);
      const V g = fma(coupled, p, load<V>(grad + i, lanes) * grad_scale);
      const V m = fma(rest1, g, beta1 * load<V>(exp_avg + i, lanes));
      const V v = fma(rest2 * g, g, beta2 * load<V>(exp_avg_sq + i, lanes));
      store(exp_avg + i, m, lanes);
      store(exp_avg_sq + i, v, lanes);
      const V denominator = fma(sqrt(v), correction2, eps);
      store_both(param, mirror, i, p * keep - step * m / denominator, lanes);
    });
  });
}

Status adam(const AdamArgs& a, Context& context) noexcept {
  if (a.block->skip) return Status::ok;
  with_wide(a.dtype, [&]<class S>(S) { adam_run<S>(a, context); });
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_optimizer(KernelTable& table) {
  add_kernel<SumSquaresArgs, sum_squares, wide_only, sum_squares_workspace>(table, SMELT_KERNEL_NAME("sum_squares"));
  add_kernel<GuardLossArgs, guard_loss, floating_only>(table, SMELT_KERNEL_NAME("guard_loss"));
  add_kernel<RestoreArgs, restore>(table, SMELT_KERNEL_NAME("restore"));
  add_kernel<ClipScaleArgs, clip_scale>(table, SMELT_KERNEL_NAME("clip_scale"));
  add_kernel<SgdArgs, sgd, wide_only>(table, SMELT_KERNEL_NAME("sgd"));
  add_kernel<AdamArgs, adam, wide_only>(table, SMELT_KERNEL_NAME("adam"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
