// Batch normalisation.
#include "ops/autocast.h"
#include "ops/common.h"
#include "ops/norm.h"

namespace smelt {
namespace {

struct BatchNormNode final : Node {
  BatchNormNode(const BatchNormArgs& forward, const Tensor& x_in, const Tensor& w, const Tensor& mean_in, const Tensor& rstd_in)
      : Node("batch_norm"), rows(forward.rows), c(forward.c), dtype(forward.dtype), activation(forward.activation),
        training(forward.training), pool(forward.pool), x(x_in), weight(w), mean(mean_in), rstd(rstd_in) {}

  void backward(GradContext& g) override {
    const Tensor dy = g.dy(), in = x.get(), w = weight.get(), b = bias.get(), m = mean.get(), r = rstd.get(), out = y.get();
    const Tensor places = index.get();
    GradTargets target(g, {0, 1, 2, 3});
    launch(BatchNormBackwardArgs{.x = in.data(), .y = data_or_null(out), .weight = w.data(), .bias = data_or_null(b),
                                 .mean = m.data(), .rstd = r.data(), .dy = dy.data(), .dx = target.data(0),
                                 .dweight = target.data(1), .dbias = target.data(2), .dresidual = target.data(3),
                                 .rows = rows, .c = c, .dtype = dtype, .activation = activation, .training = training,
                                 .accumulate_x = target.accumulate(0),
                                 .accumulate_weight = target.accumulate(1), .accumulate_bias = target.accumulate(2),
                                 .accumulate_residual = target.accumulate(3), .pool = pool,
                                 .index = data_or_null(places)},
           dy.device());
    target.finish();
  }
  void free_saved() override { x = weight = bias = mean = rstd = y = index = {}; }

  int64_t rows, c;
  DType dtype;
  Activation activation;
  bool training;
  PoolShape pool;
  Saved x, weight, mean, rstd;
  Saved bias;   // of an activation that x tells
  Saved y;      // of an activation behind a residual
  Saved index;  // with a pooling
};

void check_batch_norm(const Tensor& x, std::initializer_list<std::pair<const char*, const Tensor*>> channels,
                      const Tensor& residual, bool training) {
  require_floating("batch_norm", "input", x);
  require(x.rank() >= 2, "batch_norm", "input must have at least 2 axes, the last of them channels, got shape ",
          x.shape());
  const int64_t c = x.shape().back();
  for (const auto& [name, t] : channels) {
    require(t->shape() == Shape{c}, "batch_norm", name, " has ", t->numel(), " channels, input has ", c);
    check_parameter("batch_norm", name, *t, x);
  }
  if (residual) {
    require(residual.shape() == x.shape(), "batch_norm", "residual must have the input's shape ", x.shape(), ", got ",
            residual.shape());
    require_same_dtype("batch_norm", "residual", residual, "input", x);
  }
  require(!training || x.numel() == 0 || x.numel() / c > 1, "batch_norm",
          "training needs more than 1 value a channel, got input ", x.shape());
}

}  // namespace

Tensor batch_norm(const Tensor& x_in, const Tensor& weight, const Tensor& bias, const Tensor& running_mean,
                  const Tensor& running_var, bool training, double momentum, double eps, const Tensor& residual_in,
                  Activation activation, const std::optional<Pool2dOptions>& pool) {
  OpScope scope("batch_norm");
  // Under autocast the low dtype wins where input and residual differ.
  const bool together = residual_in && autocast_on();
  const DType common = together ? common_dtype(x_in.dtype(), residual_in.dtype()) : x_in.dtype();
  const bool low = together && common == autocast_dtype();
  const Tensor x = dense(low ? cast(x_in, common) : x_in);
  const Tensor residual = !residual_in ? residual_in : dense(low ? cast(residual_in, common) : residual_in);
  require_same_device("batch_norm", {&x, &weight, &bias, &running_mean, &running_var, &residual});
  require(activation == Activation::none || activation == Activation::relu, "batch_norm",
          "activation must be None or 'relu'");
  require(momentum >= 0 && momentum <= 1, "batch_norm", "momentum must be from 0 to 1, got ", momentum);
  require(eps > 0, "batch_norm", "eps must be positive, got ", eps);
  if (!dry_run::holds([&] {
        check_batch_norm(x, {{"weight", &weight}, {"bias", &bias}, {"running_mean", &running_mean},
                             {"running_var", &running_var}}, residual, training);
      })) {
    Shape implied = x.shape();
    if (x.rank()) implied[x.rank() - 1] = weight.numel();
    const Tensor y = empty(implied, x.dtype(), x.device());
    return pool && x.rank() == 4 ? max_pool2d(y, *pool) : y;
  }
  const PoolShape windows = pool ? max_pool_shape("batch_norm", x, *pool) : PoolShape{};
  if (pool && !windows.exists()) return empty(Shape{windows.n, 1, 1, windows.c}, x.dtype(), x.device());  // in a dry run
  const int64_t c = x.shape().back();
  BatchNormArgs args{.x = x.data(), .weight = weight.data(), .bias = bias.data(), .residual = data_or_null(residual),
                     .running_mean = running_mean.data(), .running_var = running_var.data(), .mean = nullptr, .rstd = nullptr,
                     .y = nullptr, .rows = c ? x.numel() / c : 0, .c = c, .momentum = momentum, .eps = eps, .dtype = x.dtype(),
                     .activation = activation, .training = training, .pool = windows};
  if (pool && !supported(args, x.device()))
    return max_pool2d(batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps, residual, activation, {}),
                      *pool);
  const bool grad = needs_grad(x, weight, bias, residual);
  Tensor y = empty(pool ? Shape{windows.n, windows.p, windows.q, c} : x.shape(), x.dtype(), x.device());
  Tensor index = pool && grad ? empty(y.shape(), windows.index_dtype(), x.device()) : Tensor();
  const DType statistics = statistics_dtype(x);
  Tensor mean = empty(Shape{c}, statistics, x.device()), rstd = empty(Shape{c}, statistics, x.device());
  if (training && x.numel()) {
    running_mean.storage().bump_version();
    running_var.storage().bump_version();
  }
  args.mean = mean.data();
  args.rstd = rstd.data();
  args.y = y.data();
  args.index = data_or_null(index);
  launch(args, x.device());
  if (!grad) return y;
  const auto node = make_ref<BatchNormNode>(args, x, weight, mean, rstd);
  if (index) node->index = Saved(index);
  if (activation != Activation::none) (residual ? node->y : node->bias) = residual ? Saved::output(y) : Saved(bias);
  attach(node, {&x, &weight, &bias, &residual}, {&y});
  return y;
}

}  // namespace smelt
