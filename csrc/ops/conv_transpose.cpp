// Transposed convolution: the input gradient of a convolution as an op of its own. With the weight (in, rows, columns,
// out / groups) in the memory of the convolution that it is the transpose of, all three passes are that convolution's kernels:
// forward is its input gradient, the gradient of x its forward, the gradient of the weight its own with x and dy exchanged.
#include "ops/autocast.h"
#include "ops/common.h"
#include "ops/conv.h"

namespace smelt {
namespace {

// The shape is the convolution's, from y (N, H, W, C) to x (N, P, Q, K).
struct ConvTransposeNode final : Node {
  ConvTransposeNode(const char* name, Saved x_in, Saved w, Saved for_activation, const ConvShape& s, Activation act)
      : Node(name), x(std::move(x_in)), weight(std::move(w)), y(std::move(for_activation)), shape(s), activation(act) {}

  void backward(GradContext& g) override {
    const Tensor in = x.get(), w = weight.get();
    Tensor dy = g.dy();
    if (activation != Activation::none) dy = activation_backward(activation, y.get(), dy);
    if (g.needs(1)) {
      const GradTarget dw = g.target(1);
      launch(Conv2dBackwardWeightArgs{.x = dy.data(), .dy = in.data(), .dw = dw.tensor.data(), .shape = shape,
                                      .dtype = dy.dtype(), .dw_dtype = dw.tensor.dtype(), .accumulate = dw.accumulate},
             dy.device());
    }
    if (g.needs(2)) {
      const GradTarget db = g.target(2);
      launch(ReduceArgs{.x = dy.data(), .y = db.tensor.data(), .index = nullptr, .outer = 1,
                        .n = shape.n * shape.h * shape.w, .inner = shape.c, .dtype = dy.dtype(), .y_dtype = db.tensor.dtype(),
                        .op = ReduceOp::sum, .accumulate = db.accumulate},
             dy.device());
    }
    if (g.needs(0)) input_gradient(g, dy, w);
  }
  void free_saved() override { x = weight = y = {}; }

  // A convolution writes one dtype and does not add: what the target wants beyond that is a pass of its own.
  void input_gradient(GradContext& g, const Tensor& dy, const Tensor& w) const {
    const GradTarget target = g.target(0);
    const bool straight = !target.accumulate && target.tensor.dtype() == dy.dtype();
    const Tensor dx = straight ? target.tensor : empty(target.tensor.shape(), dy.dtype(), dy.device());
    launch(Conv2dArgs{.x = dy.data(), .w = w.data(), .bias = nullptr, .y = dx.data(), .shape = shape, .dtype = dy.dtype(),
                      .activation = Activation::none},
           dy.device());
    if (straight) return;
    launch(CastArgs{.x = dx.data(), .y = target.tensor.data(), .n = dx.numel(), .from = dx.dtype(),
                    .to = target.tensor.dtype(), .accumulate = target.accumulate},
           dy.device());
  }

  Saved x, weight, y;
  ConvShape shape;
  Activation activation;
};

// Output extent of one axis: the input of a convolution with these options that gives `input`.
int64_t transposed_extent(const char* op, const char* axis, int64_t input, int64_t kernel, const Conv2dOptions& o, int i) {
  require(input >= 1, op, "input must have at least one row and column, got ", input, " ", axis);
  const int64_t limit = std::max(o.stride[i], o.dilation[i]), extra = o.output_padding[i];
  require(extra >= 0 && extra < limit, op, "output_padding must be from 0 to ", limit - 1,
          ", below stride or dilation, got ", extra);
  int64_t out;
  if (__builtin_mul_overflow(input - 1, o.stride[i], &out) ||
      __builtin_add_overflow(out, kernel_reach(op, axis, kernel, o.dilation[i]) + extra, &out))
    fail(ErrorKind::memory, op, input, " ", axis, " with stride ", o.stride[i], " give more than 64 bits can count");
  out -= o.padding[i][0] + o.padding[i][1];
  require(out >= 1, op, "padding must leave at least one of the output's ", axis, ", got ", out, " with padding ",
          o.padding[i][0]);
  return out;
}

[[noreturn]] void wrong_transposed_channels(const char* op, const Shape& x, const Shape& weight) {
  if (x[1] == weight[0])  // the channels stand first
    fail(ErrorKind::value, op, "input has ", x[3], " channels, weight has ", weight[0],
         "; images are (N, H, W, C), got ", x, ": use smelt.to_nhwc(x)");
  fail(ErrorKind::value, op, "weight has ", weight[0], " input channels, input has ", x[3]);
}

ConvShape transposed_shape(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& o) {
  require(weight.rank() == 4, op, "weight must be (in_channels, rows, columns, out_channels / groups), got shape ",
          weight.shape());
  require(x.rank() == 4, op, "input must be (N, H, W, C), got shape ", x.shape());
  require_one_dtype(op, "input", x, "weight", weight);
  require_floating(op, "input", x);
  require_windows(op, o);
  const Shape &in = x.shape(), &w = weight.shape();
  require(w[1] >= 1 && w[2] >= 1, op, "kernel must have at least one row and column, got ", w[1], "x", w[2]);
  require_groups(op, o.groups, w[0], w[3]);
  if (in[3] != w[0]) wrong_transposed_channels(op, in, w);
  require(w[0] % o.groups == 0, op, "groups must divide the input channels, got ", o.groups, " groups and ", w[0],
          " channels");
  ConvShape s{.n = in[0], .h = 0, .w = 0, .c = 0, .k = w[0], .r = w[1], .s = w[2], .p = in[1], .q = in[2],
              .stride = {o.stride[0], o.stride[1]}, .dilation = {o.dilation[0], o.dilation[1]},
              .pad = {o.padding[0][0], o.padding[1][0]}, .groups = o.groups};
  if (__builtin_mul_overflow(w[3], o.groups, &s.c))
    fail(ErrorKind::memory, op, w[3], " channels in each of ", o.groups, " groups are more than 64 bits can count");
  s.h = transposed_extent(op, "rows", s.p, s.r, o, 0);
  s.w = transposed_extent(op, "columns", s.q, s.s, o, 1);
  if (bias) {
    require(bias.shape() == Shape{s.c}, op, "bias must be (", s.c, ",), got ", bias.shape());
    require_one_dtype(op, "bias", bias, "weight", weight);
  }
  return s;
}

// The shape that the weight and the options imply when the input does not fit.
Shape implied_transposed(const Tensor& x, const Tensor& weight, const Conv2dOptions& o) {
  Shape shape = x.shape();
  while (shape.rank() < 4) shape.push_back(1);
  for (int i : {0, 1}) {
    const int64_t reach = o.dilation[i] * (weight.shape()[1 + i] - 1) + 1;
    const int64_t out = (shape[1 + i] - 1) * o.stride[i] + reach + o.output_padding[i] - o.padding[i][0] - o.padding[i][1];
    shape[1 + i] = std::max<int64_t>(out, 1);
  }
  return Shape{shape[0], shape[1], shape[2], weight.shape()[3] * std::max<int64_t>(o.groups, 1)};
}

// The bias in every pixel, which the kernel adds its sums to.
void spread_bias(const Tensor& bias, const Tensor& y) {
  const int64_t channels = bias.numel();
  Strided<2> walk;
  walk.append(channels ? y.numel() / channels : 0, {0, channels});
  walk.append(channels, {1, 1});
  copy_strided(walk, bias.data(), y.data(), y.dtype(), y.device());
}

}  // namespace

Tensor conv_transpose2d(const char* op, const Tensor& x_in, const Tensor& weight_in, const Tensor& bias_in,
                        const Conv2dOptions& options) {
  OpScope scope(op);
  static_assert(policy_of("conv_transpose1d") == Policy::low && policy_of("conv_transpose2d") == Policy::low);
  const Tensor x_given = dense(x_in), weight_given = dense(weight_in);
  const Tensor x = working(x_given), weight = working(weight_given), bias = working(bias_in);
  require_same_device(op, {&x, &weight, &bias});
  ConvShape shape{};
  if (!dry_run::holds([&] { shape = transposed_shape(op, x_given, weight_given, bias_in, options); }))
    return empty(weight.rank() == 4 ? implied_transposed(x, weight, options) : x.shape(), weight.dtype(), x.device());

  const bool grad = needs_grad(x_given, weight_given, bias_in);
  const Activation act = options.activation;
  const Tensor z = empty(Shape{shape.n, shape.h, shape.w, shape.c}, x.dtype(), x.device());
  if (bias) spread_bias(bias, z);
  launch(Conv2dBackwardInputArgs{.dy = x.data(), .w = weight.data(), .dx = z.data(), .shape = shape, .dtype = x.dtype(),
                                 .dx_dtype = z.dtype(), .accumulate = static_cast<bool>(bias)},
         x.device());
  const bool inside = act != Activation::none && (!grad || keeps_result(act));
  Tensor y = z;
  if (inside) {
    const NoGrad no_grad;
    y = unary(unary_op(act), z);
  }
  if (!grad) return y;
  attach(make_ref<ConvTransposeNode>(op, save_working(x, x_given), save_working(weight, weight_given),
                                     inside ? Saved::output(y) : Saved(), shape, inside ? act : Activation::none),
         {&x_given, &weight_given, &bias_in}, {&y});
  return inside || act == Activation::none ? y : unary(unary_op(act), y);
}

Tensor conv_transpose1d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options) {
  OpScope scope("conv_transpose1d");
  require(x.rank() == 3, "conv_transpose1d", "input must be (N, L, C), got shape ", x.shape());
  require(weight.rank() == 3, "conv_transpose1d", "weight must be (in_channels, taps, out_channels / groups), got shape ",
          weight.shape());
  const Shape &s = x.shape(), &w = weight.shape();
  const Tensor y = conv_transpose2d("conv_transpose1d", reshape(x, {s[0], 1, s[1], s[2]}),
                                    reshape(weight, {w[0], 1, w[1], w[2]}), bias, options);
  return reshape(y, {y.shape()[0], y.shape()[2], y.shape()[3]});
}

}  // namespace smelt
