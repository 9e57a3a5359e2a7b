// Layer, RMS and group normalisation.
#include "ops/norm.h"

namespace smelt {
namespace {

// Weight and bias, where given, have one value for each of the last axis.
void check_features(const char* op, const char* what, const Tensor& x,
                    std::initializer_list<std::pair<const char*, const Tensor*>> parameters) {
  for (const auto& [name, t] : parameters) {
    if (!*t) continue;
    require(t->shape() == Shape{x.shape().back()}, op, name, " has ", t->numel(), " ", what, ", input has ", x.shape().back());
    check_parameter(op, name, *t, x);
  }
}

// Layer norm with a mean, RMS norm without. With two outputs the first is x + residual, whose gradient both inputs get.
struct RowNormNode final : Node {
  RowNormNode(const char* name, const Tensor& x_in, const Tensor& w, const Tensor& mean_in, const Tensor& rstd_in)
      : Node(name), x(x_in), weight(w), mean(mean_in), rstd(rstd_in) {}

  void backward(GradContext& g) override {
    const Tensor in = x.get(), w = weight.get(), m = mean.get(), r = rstd.get();
    const bool sums = outputs.size() == 2;
    const Tensor dy = g.dy(sums ? 1 : 0), dsum = sums && g.has_dy(0) ? g.dy(0) : Tensor();
    // Inputs: x, weight and, with a mean, bias; last the residual.
    const int vectors = m ? 2 : 1, last = 1 + vectors;
    const bool both = sums && g.needs(0) && g.needs(last);
    const int first = sums && !g.needs(0) ? last : 0;
    const bool one = !both && g.needs(first);
    Tensor shared;  // the gradient of x + residual is that of either
    if (both) shared = empty(in.shape(), in.dtype(), in.device());
    GradTargets target(g, {one ? first : 1, 1, m ? 2 : 1});
    const int64_t rows = r.numel(), d = in.shape().back();
    void* const dx = both ? shared.data() : one ? target.data(first) : nullptr;
    if (m)
      launch(LayerNormBackwardArgs{.x = in.data(), .weight = data_or_null(w), .mean = m.data(), .rstd = r.data(),
                                   .dy = dy.data(), .dx = dx, .dweight = target.data(1),
                                   .dbias = target.data(2), .rows = rows, .d = d, .dtype = in.dtype(),
                                   .accumulate_x = one && target.accumulate(first), .accumulate_weight = target.accumulate(1),
                                   .accumulate_bias = target.accumulate(2), .dsum = data_or_null(dsum)},
             dy.device());
    else
      launch(RmsNormBackwardArgs{.x = in.data(), .weight = data_or_null(w), .rstd = r.data(), .dy = dy.data(), .dx = dx,
                                 .dweight = target.data(1), .rows = rows, .d = d, .dtype = in.dtype(),
                                 .accumulate_x = one && target.accumulate(first), .accumulate_weight = target.accumulate(1),
                                 .dsum = data_or_null(dsum)},
             dy.device());
    target.finish();
    if (both)
      for (int i : {0, last}) g.give(i, shared);
  }
  void free_saved() override { x = weight = mean = rstd = {}; }

  Saved x, weight, mean, rstd;
};

struct GroupNormNode final : Node {
  GroupNormNode(const Tensor& x_in, const Tensor& w, const Tensor& mean_in, const Tensor& rstd_in, const GroupNormArgs& forward)
      : Node("group_norm"), x(x_in), weight(w), mean(mean_in), rstd(rstd_in), args(forward) {}

  void backward(GradContext& g) override {
    const Tensor dy = g.dy(), in = x.get(), w = weight.get(), m = mean.get(), r = rstd.get();
    GradTargets target(g, {0, 1, 2});
    launch(GroupNormBackwardArgs{.x = in.data(), .weight = data_or_null(w), .mean = m.data(), .rstd = r.data(),
                                 .dy = dy.data(), .dx = target.data(0),
                                 .dweight = target.data(1), .dbias = target.data(2),
                                 .n = args.n, .positions = args.positions, .c = args.c, .groups = args.groups,
                                 .dtype = args.dtype, .accumulate_x = target.accumulate(0),
                                 .accumulate_weight = target.accumulate(1), .accumulate_bias = target.accumulate(2)},
           dy.device());
    target.finish();
  }
  void free_saved() override { x = weight = mean = rstd = {}; }

  Saved x, weight, mean, rstd;
  GroupNormArgs args;
};

// ------------------------------------------------------------------- compositions, where a device has no kernel

Tensor mul(const Tensor& a, const Tensor& b) { return binary(BinaryOp::mul, a, b); }
// 1 / root of the mean square over some axes, which are kept.
Tensor inverse_size(const Tensor& x, const std::vector<int64_t>& axes, double eps) {
  const Tensor square = reduce(ReduceOp::sum, unary(UnaryOp::square, x), axes, true, true);
  return unary(UnaryOp::rsqrt, binary(BinaryOp::add, square, Number{{eps, 0}, Number::floating}, false));
}

Tensor composed_rms_norm(const Tensor& x_in, const Tensor& weight, double eps) {
  const Tensor x = in_float32(x_in);
  const Tensor y = mul(x, inverse_size(x, {-1}, eps));
  return cast(weight ? mul(y, weight) : y, x_in.dtype());
}

Tensor composed_group_norm(const Tensor& x_in, int64_t groups, const Tensor& weight, const Tensor& bias, double eps) {
  const Shape& shape = x_in.shape();
  const Tensor x = reshape(in_float32(x_in), {shape[0], shape.product(1, shape.rank() - 1), groups, shape.back() / groups});
  const Tensor centred = binary(BinaryOp::sub, x, reduce(ReduceOp::sum, x, std::vector<int64_t>{1, 3}, true, true));
  Tensor y = reshape(mul(centred, inverse_size(centred, {1, 3}, eps)), {shape.begin(), shape.end()});
  if (weight) y = mul(y, weight);
  if (bias) y = binary(BinaryOp::add, y, bias);
  return cast(y, x_in.dtype());
}

// ------------------------------------------------------------------------------------------------------ the ops

// Row norms of x, or of x + residual: then the sum comes first. `centred`: layer norm, else RMS norm.
std::pair<Tensor, Tensor> row_norm(const char* op, bool centred, const Tensor& x_in, const Tensor& residual_in, bool sums,
                                   const Tensor& weight, const Tensor& bias, double eps) {
  // Under autocast the low dtype wins where input and residual differ.
  const bool together = sums && autocast_on();
  const DType common = together ? common_dtype(x_in.dtype(), residual_in.dtype()) : x_in.dtype();
  const bool low = together && common == autocast_dtype();
  const Tensor x = dense(low ? cast(x_in, common) : x_in);
  const Tensor residual = sums ? dense(low ? cast(residual_in, common) : residual_in) : Tensor();
  require_same_device(op, {&x, &weight, &bias, &residual});
  require(eps > 0, op, "eps must be positive, got ", eps);
  const bool good = dry_run::holds([&] {
    require_floating(op, "input", x);
    require(x.rank() >= 1, op, "input must have at least 1 axis, got shape ()");
    if (sums) {
      require(residual.shape() == x.shape(), op, "residual must have the input's shape ", x.shape(), ", got ", residual.shape());
      require_same_dtype(op, "residual", residual, "input", x);
    }
    check_features(op, "features", x, {{"weight", &weight}, {"bias", &bias}});
  });
  if (!good) {
    Shape implied = x.shape();
    if (weight && x.rank()) implied[x.rank() - 1] = weight.numel();
    return {sums ? empty(implied, x.dtype(), x.device()) : Tensor(), empty(implied, x.dtype(), x.device())};
  }
  const int64_t d = x.shape().back(), rows = x.shape().product(0, x.rank() - 1);
  const DType statistics = statistics_dtype(x);
  Tensor y = empty(x.shape(), x.dtype(), x.device()), rstd = empty(Shape{rows}, statistics, x.device());
  Tensor mean = centred ? empty(Shape{rows}, statistics, x.device()) : Tensor();
  Tensor sum = sums ? empty(x.shape(), x.dtype(), x.device()) : Tensor();
  const auto run = [&](const auto& args) {
    if (!supported(args, x.device())) return false;
    launch(args, x.device());
    return true;
  };
  const bool done =
      centred ? run(LayerNormArgs{.x = x.data(), .weight = data_or_null(weight), .bias = data_or_null(bias), .y = y.data(),
                                  .mean = mean.data(), .rstd = rstd.data(), .rows = rows, .d = d, .eps = eps,
                                  .dtype = x.dtype(), .residual = data_or_null(residual), .sum = data_or_null(sum)})
              : run(RmsNormArgs{.x = x.data(), .weight = data_or_null(weight), .y = y.data(), .rstd = rstd.data(),
                                .rows = rows, .d = d, .eps = eps, .dtype = x.dtype(), .residual = data_or_null(residual),
                                .sum = data_or_null(sum)});
  if (!done) {
    if (sums) sum = binary(BinaryOp::add, x, residual);
    const Tensor& in = sums ? sum : x;
    return {sum, centred ? layer_norm(in, weight, bias, eps) : composed_rms_norm(in, weight, eps)};
  }
  if (!needs_grad(x, weight, bias, residual)) return {sum, y};
  const auto node = make_ref<RowNormNode>(op, sums ? sum : x, weight, mean, rstd);
  std::vector<Tensor> inputs{x, weight};
  if (centred) inputs.push_back(bias);
  if (sums) inputs.push_back(residual);
  std::vector<Tensor> outputs;
  if (sums) outputs.push_back(sum);
  outputs.push_back(y);
  attach(node, inputs, outputs);
  return {sums ? outputs[0] : Tensor(), outputs.back()};
}

}  // namespace

Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps) {
  OpScope scope("layer_norm");
  return row_norm("layer_norm", true, x, {}, false, weight, bias, eps).second;
}
std::pair<Tensor, Tensor> add_layer_norm(const Tensor& x, const Tensor& residual, const Tensor& weight, const Tensor& bias,
                                         double eps) {
  OpScope scope("add_layer_norm");
  return row_norm("add_layer_norm", true, x, residual, true, weight, bias, eps);
}
Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  OpScope scope("rms_norm");
  return row_norm("rms_norm", false, x, {}, false, weight, {}, eps).second;
}
std::pair<Tensor, Tensor> add_rms_norm(const Tensor& x, const Tensor& residual, const Tensor& weight, double eps) {
  OpScope scope("add_rms_norm");
  return row_norm("add_rms_norm", false, x, residual, true, weight, {}, eps);
}

Tensor group_norm(const Tensor& x_in, int64_t groups, const Tensor& weight, const Tensor& bias, double eps) {
  OpScope scope("group_norm");
  const Tensor x = dense(x_in);
  require_same_device("group_norm", {&x, &weight, &bias});
  require(eps > 0, "group_norm", "eps must be positive, got ", eps);
  require(groups >= 1, "group_norm", "groups must be at least 1, got ", groups);
  const bool good = dry_run::holds([&] {
    require_floating("group_norm", "input", x);
    require(x.rank() >= 2, "group_norm", "input must be (N, ..., C) with at least 2 axes, got shape ", x.shape());
    require(x.shape().back() % groups == 0, "group_norm", "groups must divide the channels, got ", groups, " groups of ",
            x.shape().back(), " channels");
    check_features("group_norm", "channels", x, {{"weight", &weight}, {"bias", &bias}});
  });
  if (!good) {
    Shape implied = x.shape();
    if (weight && x.rank()) implied[x.rank() - 1] = weight.numel();
    return empty(implied, x.dtype(), x.device());
  }
  const int64_t n = x.shape()[0], c = x.shape().back(), positions = x.shape().product(1, x.rank() - 1);
  const DType statistics = statistics_dtype(x);
  Tensor y = empty(x.shape(), x.dtype(), x.device());
  Tensor mean = empty(Shape{n, groups}, statistics, x.device()), rstd = empty(Shape{n, groups}, statistics, x.device());
  const GroupNormArgs args{.x = x.data(), .weight = data_or_null(weight), .bias = data_or_null(bias), .y = y.data(),
                           .mean = mean.data(), .rstd = rstd.data(), .n = n, .positions = positions, .c = c,
                           .groups = groups, .eps = eps, .dtype = x.dtype()};
  if (!supported(args, x.device())) return composed_group_norm(x, groups, weight, bias, eps);
  launch(args, x.device());
  if (needs_grad(x, weight, bias)) attach(make_ref<GroupNormNode>(x, weight, mean, rstd, args), {&x, &weight, &bias}, {&y});
  return y;
}

}  // namespace smelt
