// Losses, each one pass forward and one backward.
#include "ops/autocast.h"
#include "ops/common.h"

namespace smelt {
namespace {

struct CrossEntropyNode final : Node {
  CrossEntropyNode(const Tensor& x, const Tensor& y, const Tensor& w, const Tensor& lse_in, const Tensor& total_in,
                   const CrossEntropyArgs& forward)
      : Node("cross_entropy"), logits(x), labels(y), weight(w), lse(lse_in), total(total_in), args(forward) {}
  void backward(GradContext& g) override {
    const Tensor dloss = g.dy(), x = logits.get(), y = labels.get(), w = weight.get(), l = lse.get(), t = total.get();
    const GradTarget dx = g.target(0);
    launch(CrossEntropyBackwardArgs{.logits = x.data(), .labels = y.as<int64_t>(), .weight = w ? w.data() : nullptr,
                                    .lse = l.data(), .total_weight = t.data(), .dloss = dloss.data(),
                                    .dlogits = dx.tensor.data(), .rows = args.rows, .classes = args.classes,
                                    .ignore_index = args.ignore_index, .label_smoothing = args.label_smoothing,
                                    .dtype = args.dtype, .reduction = args.reduction, .accumulate = dx.accumulate},
           dloss.device());
  }
  void free_saved() override { logits = labels = weight = lse = total = {}; }
  Saved logits, labels, weight, lse, total;
  CrossEntropyArgs args;
};

void check_cross_entropy(const Tensor& logits, const Tensor& labels, const Tensor& weight, double smoothing) {
  require_floating("cross_entropy", "logits", logits);
  require(logits.rank() >= 2, "cross_entropy", "logits must be (..., classes) with at least 2 axes, got shape ",
          logits.shape());
  require_type(is_integral(labels.dtype()), "cross_entropy", "labels must be integers, got ", labels.dtype());
  const Shape expected(logits.shape().begin(), logits.rank() - 1);
  require(labels.shape() == expected, "cross_entropy", "labels must be ", expected, " for logits ", logits.shape(),
          ", got ", labels.shape());
  require(logits.shape().back() >= 1, "cross_entropy", "needs at least 1 class, got logits ", logits.shape());
  require(smoothing >= 0 && smoothing < 1, "cross_entropy", "label_smoothing must be in [0, 1), got ", smoothing);
  if (weight) {
    require(weight.shape() == Shape{logits.shape().back()}, "cross_entropy", "weight must be (", logits.shape().back(),
            ",), one for each class, got ", weight.shape());
    const DType wide = is_half(logits.dtype()) ? DType::float32 : logits.dtype();
    require_type(weight.dtype() == wide, "cross_entropy", "weight is ", weight.dtype(), ", logits is ", wide,
                 ": both must have one dtype");
  }
}

const char* loss_name(LossOp op) {
  static const char* const kNames[] = {"mse_loss", "l1_loss", "huber_loss", "binary_cross_entropy_with_logits"};
  return kNames[static_cast<int>(op)];
}

struct LossNode final : Node {
  LossNode(const Tensor& x_in, const Tensor& t, const Tensor& p, const LossArgs& forward)
      : Node(loss_name(forward.op)), x(x_in), target(t), pos_weight(p), args(forward) {}
  void backward(GradContext& g) override {
    const Tensor dloss = g.dy(), in = x.get(), t = target.get(), p = pos_weight.get();
    for (int input : {0, 1}) {
      if (!g.needs(input)) continue;
      const GradTarget d = g.target(input);
      launch(LossBackwardArgs{.x = in.data(), .target = t.data(), .pos_weight = p ? p.data() : nullptr,
                              .dloss = dloss.data(), .dx = d.tensor.data(), .n = args.n, .period = args.period,
                              .delta = args.delta, .sign = input == 0 ? 1.0 : -1.0, .dtype = args.dtype,
                              .op = args.op, .reduction = args.reduction, .accumulate = d.accumulate},
             dloss.device());
    }
  }
  void free_saved() override { x = target = pos_weight = {}; }
  Saved x, target, pos_weight;
  LossArgs args;
};

}  // namespace

Tensor cross_entropy(const Tensor& logits_in, const Tensor& labels_in, const Tensor& weight_in, double label_smoothing,
                     int64_t ignore_index, Reduction reduction) {
  OpScope scope("cross_entropy");
  static_assert(policy_of("cross_entropy") == Policy::float32);
  // Halves are read as they are where a kernel can; what comes out is float32 all the same.
  CrossEntropyArgs asked{};
  asked.dtype = logits_in.dtype();
  const bool direct = supported(asked, logits_in.device());
  const Tensor logits = dense(direct ? logits_in : in_float32(logits_in));
  const Tensor weight = weight_in ? in_float32(weight_in) : weight_in;
  const DType dtype = is_half(logits.dtype()) ? DType::float32 : logits.dtype();
  require_same_device("cross_entropy", {&logits, &labels_in, &weight});
  const Shape per_row = logits.rank() ? Shape(logits.shape().begin(), logits.rank() - 1) : Shape{};
  const Shape result = reduction == Reduction::none ? per_row : Shape{};
  if (!dry_run::holds([&] { check_cross_entropy(logits, labels_in, weight, label_smoothing); }))
    return empty(result, dtype, logits.device());
  const Tensor labels = dense(cast(labels_in, DType::int64));
  const int64_t classes = logits.shape().back();
  check_index(labels, 0, classes, "labels", ignore_index);

  Tensor loss = empty(result, dtype, logits.device());
  Tensor lse = empty(Shape{per_row.numel(), 2}, dtype, logits.device());
  Tensor total = empty(Shape{}, dtype, logits.device());
  const CrossEntropyArgs args{.logits = logits.data(), .labels = labels.as<int64_t>(),
                              .weight = weight ? weight.data() : nullptr, .loss = loss.data(), .lse = lse.data(),
                              .total_weight = total.data(), .rows = per_row.numel(), .classes = classes,
                              .ignore_index = ignore_index, .label_smoothing = label_smoothing,
                              .dtype = logits.dtype(), .reduction = reduction};
  launch(args, logits.device());
  if (needs_grad(logits))
    attach(make_ref<CrossEntropyNode>(logits, labels, weight, lse, total, args), {&logits}, {&loss});
  return loss;
}

Tensor pointwise_loss(LossOp op, const Tensor& x_in, const Tensor& target_in, const Tensor& pos_weight, double delta,
                      Reduction reduction) {
  const char* const name = loss_name(op);
  OpScope scope(name);
  static_assert(policy_of("mse_loss") == Policy::float32 && policy_of("l1_loss") == Policy::float32);
  static_assert(policy_of("huber_loss") == Policy::float32);
  static_assert(policy_of("binary_cross_entropy_with_logits") == Policy::float32);
  const Tensor x = dense(in_float32(x_in)), target = dense(in_float32(target_in));
  require_same_device(name, {&x, &target, &pos_weight});
  const Shape result = reduction == Reduction::none ? x.shape() : Shape{};
  const bool good = dry_run::holds([&] {
    require_floating(name, "input", x);
    require(x.shape() == target.shape(), name, "input and target must have one shape, got ", x.shape(), " and ",
            target.shape());
    require_same_dtype(name, "input", x, "target", target);
    require(op != LossOp::huber || delta > 0, name, "delta must be positive, got ", delta);
    require(!(op == LossOp::bce_with_logits && target.requires_grad()), name, "targets must not require a gradient");
    if (pos_weight) {
      const bool scalar = pos_weight.rank() == 0;
      require(scalar || (x.rank() > 0 && pos_weight.shape() == Shape{x.shape().back()}), name,
              "pos_weight must be a scalar or have one value for each of the last axis, got shape ",
              pos_weight.shape(), " for input ", x.shape());
      require_same_dtype(name, "pos_weight", pos_weight, "input", x);
    }
  });
  if (!good) return empty(result, x.dtype(), x.device());
  Tensor loss = empty(result, x.dtype(), x.device());
  const LossArgs args{.x = x.data(), .target = target.data(), .pos_weight = pos_weight ? pos_weight.data() : nullptr,
                      .loss = loss.data(), .n = x.numel(), .period = pos_weight ? pos_weight.numel() : 1,
                      .delta = delta, .dtype = x.dtype(), .op = op, .reduction = reduction};
  launch(args, x.device());
  if (needs_grad(x, target)) attach(make_ref<LossNode>(x, target, pos_weight, args), {&x, &target}, {&loss});
  return loss;
}

}  // namespace smelt
