// Max and average pooling, with windows or adaptive, over channels-last images.
#include "ops/common.h"

namespace smelt {
namespace {

struct PoolNode final : Node {
  PoolNode(const char* name, const Pool2dArgs& forward, const Tensor& positions) : Node(name), args(forward) {
    if (positions) index = Saved(positions);
  }
  void backward(GradContext& g) override {
    const Tensor dy = g.dy(), position = index.get();
    const GradTarget dx = g.target(0);
    launch(Pool2dBackwardArgs{.dy = dy.data(), .index = position ? position.data() : nullptr, .dx = dx.tensor.data(),
                              .shape = args.shape, .dtype = args.dtype, .index_dtype = args.index_dtype, .max = args.max,
                              .count_include_pad = args.count_include_pad, .accumulate = dx.accumulate},
           dy.device());
  }
  void free_saved() override { index = {}; }
  Pool2dArgs args;
  Saved index;
};

Tensor run_pool(const char* op, const Tensor& x, const PoolShape& shape, bool max, bool count_include_pad) {
  Tensor y = empty(Shape{shape.n, shape.p, shape.q, shape.c}, x.dtype(), x.device());
  const bool grad = needs_grad(x);
  Tensor index = max && grad ? empty(y.shape(), shape.index_dtype(), x.device()) : Tensor();
  const Pool2dArgs args{.x = x.data(), .y = y.data(), .index = index ? index.data() : nullptr, .shape = shape,
                        .dtype = x.dtype(), .index_dtype = shape.index_dtype(), .max = max, .count_include_pad = count_include_pad};
  launch(args, x.device());
  if (grad) attach(make_ref<PoolNode>(op, args, index), {&x}, {&y});
  return y;
}

PoolShape input_shape(const char* op, const Tensor& x) {
  require(x.rank() == 4, op, "input must be (N, H, W, C), got shape ", x.shape());
  require_floating(op, "input", x);
  require(x.shape()[1] * x.shape()[2] <= INT32_MAX, op, "an image may have at most ", INT32_MAX, " pixels, got shape ",
          x.shape());
  return {.n = x.shape()[0], .h = x.shape()[1], .w = x.shape()[2], .c = x.shape()[3], .p = 0, .q = 0, .kernel = {},
          .stride = {}, .pad = {}, .adaptive = false};
}

// Of windows with strides, or no windows at all where a dry run found them wrong.
PoolShape window_shape(const char* op, const Tensor& x, const Pool2dOptions& o) {
  PoolShape shape = input_shape(op, x);
  const bool good = dry_run::holds([&] {
    require(shape.h >= 1 && shape.w >= 1, op, "images must have at least one pixel, got shape ", x.shape());
    for (int i : {0, 1}) {
      const int64_t extent = i == 0 ? shape.h : shape.w;
      for (const auto& [what, given] : {std::pair{"kernel_size", o.kernel[i]}, std::pair{"stride", o.stride[i]}})
        require(given >= 1 && given <= INT32_MAX, op, what, " must be from 1 to ", INT32_MAX, ", got ", given);
      require(o.padding[i] >= 0 && o.padding[i] <= o.kernel[i] / 2, op,
              "padding must be from 0 to half the kernel, got ", o.padding[i], " for kernel ", o.kernel[i]);
      const int64_t padded = extent + 2 * o.padding[i];
      require(padded >= o.kernel[i], op, "kernel has ", o.kernel[i], i == 0 ? " rows" : " columns",
              ", the padded input has ", padded);
      (i == 0 ? shape.p : shape.q) = (padded - o.kernel[i]) / o.stride[i] + 1;
      shape.kernel[i] = o.kernel[i];
      shape.stride[i] = o.stride[i];
      shape.pad[i] = o.padding[i];
    }
  });
  if (!good) shape.kernel[0] = 0;
  return shape;
}

Tensor window_pool(const char* op, const Tensor& x_in, const Pool2dOptions& o, bool max) {
  OpScope scope(op);
  const Tensor x = dense(x_in);
  const PoolShape shape = window_shape(op, x, o);
  if (!shape.exists()) return empty(Shape{shape.n, 1, 1, shape.c}, x.dtype(), x.device());
  return run_pool(op, x, shape, max, o.count_include_pad);
}

}  // namespace

PoolShape max_pool_shape(const char* op, const Tensor& x, const Pool2dOptions& options) { return window_shape(op, x, options); }
Tensor max_pool2d(const Tensor& x, const Pool2dOptions& options) { return window_pool("max_pool2d", x, options, true); }
Tensor avg_pool2d(const Tensor& x, const Pool2dOptions& options) { return window_pool("avg_pool2d", x, options, false); }

Tensor adaptive_pool2d(const Tensor& x_in, int64_t rows, int64_t columns, bool max) {
  const char* const op = max ? "adaptive_max_pool2d" : "adaptive_avg_pool2d";
  OpScope scope(op);
  const Tensor x = dense(x_in);
  PoolShape shape = input_shape(op, x);
  require(rows >= 1 && columns >= 1, op, "output size must be at least 1x1, got ", rows, "x", columns);
  require(shape.h >= 1 && shape.w >= 1, op, "images must have at least one pixel, got shape ", x.shape());
  shape.p = rows;
  shape.q = columns;
  shape.adaptive = true;
  return run_pool(op, x, shape, max, true);
}

}  // namespace smelt
