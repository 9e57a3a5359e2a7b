// Convolution over channels-last images; one dimension is a picture of one row.
#include "ops/autocast.h"
#include "ops/common.h"
#include "ops/conv.h"

namespace smelt {
namespace {

struct ConvNode final : Node {
  ConvNode(const char* name, Saved x_in, Saved w, Saved for_activation, const Conv2dArgs& forward)
      : Node(name), x(std::move(x_in)), weight(std::move(w)), y(std::move(for_activation)), shape(forward.shape),
        activation(forward.activation) {}

  void backward(GradContext& g) override {
    const Tensor in = x.get(), w = weight.get();
    Tensor dy = g.dy();
    if (activation != Activation::none) dy = activation_backward(activation, y.get(), dy);
    if (g.needs(1)) {
      const GradTarget dw = g.target(1);
      launch(Conv2dBackwardWeightArgs{.x = in.data(), .dy = dy.data(), .dw = dw.tensor.data(), .shape = shape,
                                      .dtype = dy.dtype(), .dw_dtype = dw.tensor.dtype(), .accumulate = dw.accumulate},
             dy.device());
    }
    if (g.needs(2)) {
      const GradTarget db = g.target(2);
      launch(ReduceArgs{.x = dy.data(), .y = db.tensor.data(), .index = nullptr, .outer = 1,
                        .n = shape.n * shape.p * shape.q, .inner = shape.k, .dtype = dy.dtype(), .y_dtype = db.tensor.dtype(),
                        .op = ReduceOp::sum, .accumulate = db.accumulate},
             dy.device());
    }
    if (g.needs(0)) {
      const GradTarget dx = g.target(0);
      launch(Conv2dBackwardInputArgs{.dy = dy.data(), .w = w.data(), .dx = dx.tensor.data(), .shape = shape,
                                     .dtype = dy.dtype(), .dx_dtype = dx.tensor.dtype(), .accumulate = dx.accumulate},
             dy.device());
    }
  }
  void free_saved() override { x = weight = y = {}; }

  Saved x, weight, y;
  ConvShape shape;
  Activation activation;
};

// Output extent of one axis; sets the padding before and after.
int64_t output_extent(const char* op, const char* axis, int64_t input, int64_t kernel, const Conv2dOptions& o, int i,
                      int64_t* before, int64_t* after) {
  const int64_t reach = kernel_reach(op, axis, kernel, o.dilation[i]);
  if (o.same) {
    const int64_t out = (input + o.stride[i] - 1) / o.stride[i];
    const int64_t total = std::max<int64_t>((out - 1) * o.stride[i] + reach - input, 0);
    *before = total / 2;
    *after = total - total / 2;
    return out;
  }
  *before = o.padding[i][0];
  *after = o.padding[i][1];
  const int64_t padded = input + *before + *after;
  require(padded >= reach, op, "kernel reaches over ", reach, " ", axis, ", the padded input has ", padded);
  return (padded - reach) / o.stride[i] + 1;
}

[[noreturn]] void wrong_channels(const char* op, const Shape& x, const Shape& weight, int64_t groups) {
  const int64_t channels = weight[3] * groups;
  if (x[1] == channels)  // the channels stand first
    fail(ErrorKind::value, op, "input has ", x[3], " channels, weight has ", channels,
         "; images are (N, H, W, C), got ", x, ": use smelt.to_nhwc(x)");
  if (groups == 1) fail(ErrorKind::value, op, "weight has ", channels, " input channels, input has ", x[3]);
  fail(ErrorKind::value, op, "weight has ", weight[3], " input channels in each of ", groups, " groups, input has ",
       x[3]);
}

ConvShape conv_shape(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias,
                     const Conv2dOptions& o) {
  require(weight.rank() == 4, op, "weight must be (out_channels, rows, columns, in_channels / groups), got shape ",
          weight.shape());
  require(x.rank() == 4, op, "input must be (N, H, W, C), got shape ", x.shape());
  require_one_dtype(op, "input", x, "weight", weight);
  require_floating(op, "input", x);
  require_windows(op, o);
  ConvShape s{.n = x.shape()[0], .h = x.shape()[1], .w = x.shape()[2], .c = x.shape()[3], .k = weight.shape()[0],
              .r = weight.shape()[1], .s = weight.shape()[2], .p = 0, .q = 0, .stride = {o.stride[0], o.stride[1]},
              .dilation = {o.dilation[0], o.dilation[1]}, .pad = {}, .groups = o.groups};
  require(s.r >= 1 && s.s >= 1, op, "kernel must have at least one row and column, got ", s.r, "x", s.s);
  require_groups(op, s.groups, s.c, s.k);
  if (s.c != weight.shape()[3] * s.groups) wrong_channels(op, x.shape(), weight.shape(), s.groups);
  require(s.k % s.groups == 0, op, "groups must divide the output channels, got ", s.groups, " groups and ", s.k,
          " channels");
  if (bias) {
    require(bias.shape() == Shape{s.k}, op, "bias must be (", s.k, ",), got ", bias.shape());
    require_one_dtype(op, "bias", bias, "weight", weight);
  }
  int64_t after;
  s.p = output_extent(op, "rows", s.h, s.r, o, 0, &s.pad[0], &after);
  s.q = output_extent(op, "columns", s.w, s.s, o, 1, &s.pad[1], &after);
  return s;
}

// The shape that the weight and the options imply when the input does not fit.
Shape implied_shape(const Tensor& x, const Tensor& weight, const Conv2dOptions& o) {
  Shape shape = x.shape();
  while (shape.rank() < 4) shape.push_back(1);
  for (int i : {0, 1}) {
    const int64_t reach = o.dilation[i] * (weight.shape()[1 + i] - 1) + 1, stride = std::max<int64_t>(o.stride[i], 1);
    const int64_t padded = shape[1 + i] + o.padding[i][0] + o.padding[i][1];
    shape[1 + i] = o.same ? (shape[1 + i] + stride - 1) / stride : std::max<int64_t>((padded - reach) / stride + 1, 1);
  }
  return Shape{shape[0], shape[1], shape[2], weight.shape()[0]};
}

}  // namespace

void require_windows(const char* op, const Conv2dOptions& o) {
  constexpr int64_t kLargest = INT32_MAX;  // products of two stay within 64 bits
  for (int i : {0, 1}) {
    require(o.stride[i] >= 1 && o.stride[i] <= kLargest, op, "stride must be from 1 to ", kLargest, ", got ", o.stride[i]);
    require(o.dilation[i] >= 1 && o.dilation[i] <= kLargest, op, "dilation must be from 1 to ", kLargest, ", got ",
            o.dilation[i]);
    for (int64_t padding : o.padding[i])
      require(padding >= 0 && padding <= kLargest, op, "padding must be from 0 to ", kLargest, ", got ", padding);
  }
}

void require_groups(const char* op, int64_t groups, int64_t inputs, int64_t outputs) {
  const int64_t most = std::max({inputs, outputs, int64_t{1}});
  require(groups >= 1, op, "groups must be at least 1, got ", groups);
  require(groups <= most, op, "groups must be at most ", most, ", the number of channels, got ", groups);
}

int64_t kernel_reach(const char* op, const char* axis, int64_t kernel, int64_t dilation) {
  int64_t reach;
  if (__builtin_mul_overflow(kernel - 1, dilation, &reach) || __builtin_add_overflow(reach, 1, &reach) || reach > INT64_MAX / 4)
    fail(ErrorKind::memory, op, "a kernel of ", kernel, " ", axis, " with dilation ", dilation,
         " reaches further than 64 bits can count");
  return reach;
}

Tensor conv2d(const char* op, const Tensor& x_in, const Tensor& weight_in, const Tensor& bias_in,
              const Conv2dOptions& options) {
  OpScope scope(op);
  static_assert(policy_of("conv1d") == Policy::low && policy_of("conv2d") == Policy::low);
  const Tensor x_given = dense(x_in), weight_given = dense(weight_in);
  const Tensor x = working(x_given), weight = working(weight_given), bias = working(bias_in);
  require_same_device(op, {&x, &weight, &bias});
  ConvShape shape{};
  if (!dry_run::holds([&] { shape = conv_shape(op, x_given, weight_given, bias_in, options); }))
    return empty(weight.rank() == 4 ? implied_shape(x, weight, options) : x.shape(), weight.dtype(), x.device());

  const bool grad = needs_grad(x_given, weight_given, bias_in);
  const Activation act = options.activation;
  // As in linear: an activation whose derivative needs its argument runs by itself when a backward follows.
  const bool keep_argument = grad && act != Activation::none && !keeps_result(act);
  Tensor z = empty(Shape{shape.n, shape.p, shape.q, shape.k}, x.dtype(), x.device());
  const Conv2dArgs args{.x = x.data(), .w = weight.data(), .bias = bias ? bias.data() : nullptr, .y = z.data(),
                        .shape = shape, .dtype = x.dtype(), .activation = keep_argument ? Activation::none : act};
  launch(args, x.device());
  if (!grad) return z;
  attach(make_ref<ConvNode>(op, save_working(x, x_given), save_working(weight, weight_given),
                            args.activation == Activation::none ? Saved() : Saved::output(z), args),
         {&x_given, &weight_given, &bias_in}, {&z});
  return keep_argument ? unary(unary_op(act), z) : z;
}

Tensor conv1d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options) {
  OpScope scope("conv1d");
  const auto rank3 = [](const char* what, const Tensor& t, const char* layout) {
    require(t.rank() == 3, "conv1d", what, " must be ", layout, ", got shape ", t.shape());
  };
  rank3("input", x, "(N, L, C)");
  rank3("weight", weight, "(out_channels, taps, in_channels / groups)");
  const Shape& s = x.shape();
  const Shape& w = weight.shape();
  const Tensor y = conv2d("conv1d", reshape(x, {s[0], 1, s[1], s[2]}), reshape(weight, {w[0], 1, w[1], w[2]}), bias,
                          options);
  return reshape(y, {y.shape()[0], y.shape()[2], y.shape()[3]});
}

}  // namespace smelt
