// Reductions, extrema, scans and sorting.
#include <cmath>

#include "ops/autocast.h"
#include "ops/common.h"

namespace smelt {
namespace {

const char* reduce_name(ReduceOp op, bool mean) {
  static const char* const kNames[] = {"sum", "prod", "max", "min", "any", "all"};
  return mean ? "mean" : kNames[static_cast<int>(op)];
}

DType result_dtype(ReduceOp op, DType dtype) {
  if (op == ReduceOp::any || op == ReduceOp::all) return DType::bool_;
  if ((op == ReduceOp::sum || op == ReduceOp::prod) && !is_floating(dtype)) return DType::int64;
  return dtype;
}

// Runs of neighbouring axes to reduce, innermost last, with x's shape where they are and 1 where not.
struct AxisRun {
  int begin, end;
};
std::vector<AxisRun> runs_of(const bool (&reduced)[kMaxRank], int rank) {
  std::vector<AxisRun> runs;
  for (int axis = 0; axis < rank; ++axis) {
    if (!reduced[axis]) continue;
    if (!runs.empty() && runs.back().end == axis)
      runs.back().end = axis + 1;
    else
      runs.push_back({axis, axis + 1});
  }
  return runs;
}

// Reduces run after run, from the last axis on; `target` takes the result of the last one when given.
Tensor reduce_runs(ReduceOp op, Tensor x, const std::vector<AxisRun>& runs, double scale, const GradTarget* target) {
  const DType stored = x.dtype();
  if (runs.size() > 1 && is_half(stored)) {  // rounded once, at the end
    NoGrad no_grad;
    const Tensor wide = reduce_runs(op, cast(x, DType::float32), runs, scale, nullptr);
    if (!target) return cast(wide, stored);
    launch(CastArgs{.x = wide.data(), .y = target->tensor.data(), .n = wide.numel(), .from = wide.dtype(), .to = stored,
                    .accumulate = target->accumulate},
           x.device());
    return target->tensor;
  }
  for (size_t i = runs.size(); i-- > 0;) {
    const bool last = i == 0;
    Shape shape = x.shape();
    const int64_t n = shape.product(runs[i].begin, runs[i].end);
    for (int axis = runs[i].begin; axis < runs[i].end; ++axis) shape[axis] = 1;
    const DType dtype = result_dtype(op, x.dtype());
    Tensor y = last && target ? target->tensor : empty(shape, dtype, x.device());
    launch(ReduceArgs{.x = x.data(), .y = y.data(), .index = nullptr,
                      .outer = shape.product(0, runs[i].begin), .n = n,
                      .inner = shape.product(runs[i].end, shape.rank()), .scale = last ? scale : 1.0,
                      .dtype = x.dtype(), .y_dtype = dtype, .op = op, .accumulate = last && target && target->accumulate},
           x.device());
    x = y;
  }
  return x;
}

// Which leading and stretched axes undo a broadcast from `shape` to `wide`.
std::vector<AxisRun> broadcast_runs(const Shape& shape, const Shape& wide) {
  bool reduced[kMaxRank] = {};
  const int extra = wide.rank() - shape.rank();
  for (int axis = 0; axis < wide.rank(); ++axis)
    reduced[axis] = axis < extra || (shape[axis - extra] == 1 && wide[axis] != 1);
  return runs_of(reduced, wide.rank());
}

// Spreads the gradient of a sum or mean back over what was summed.
struct SumNode final : Node {
  SumNode(const char* name, Shape with_ones, double factor) : Node(name), kept(with_ones), scale(factor) {}
  void backward(GradContext& g) override {
    const Tensor dy = alias(g.dy(), kept);
    const Shape& shape = g.input_shape(0);
    const GradTarget dx = g.target(0);
    // dx = dy * scale, broadcast: one pass.
    const Tensor factor = full(Shape{}, {scale, 1}, dy.dtype(), dy.device());
    const Strided<2> walk = broadcast_walk<2>(shape, {&dy.shape(), &factor.shape()});
    BinaryArgs args{.a = dy.data(), .b = factor.data(), .y = dx.tensor.data(), .rank = walk.rank, .shape = {},
                    .a_stride = {}, .b_stride = {}, .scalar = {}, .dtype = dy.dtype(), .op = BinaryOp::mul,
                    .accumulate = dx.accumulate};
    std::copy_n(walk.shape, kMaxRank, args.shape);
    std::copy_n(walk.stride[0], kMaxRank, args.a_stride);
    std::copy_n(walk.stride[1], kMaxRank, args.b_stride);
    launch(args, dy.device());
  }
  Shape kept;
  double scale;
};

// max, min and prod over any axes: the gradient is a function of x and y.
struct ReduceNode final : Node {
  ReduceNode(ReduceOp reduce_op, Shape with_ones, const Tensor& x_in, const Tensor& y_in)
      : Node(reduce_name(reduce_op, false)), kind(reduce_op), kept(with_ones), x(x_in), y(Saved::output(y_in)) {}
  void backward(GradContext& g) override {
    const Tensor dy = alias(g.dy(), kept), in = x.get(), out = alias(y.get(), kept);
    if (kind == ReduceOp::prod) {  // y / x, and where x is 0 the product of the others
      g.give(0, binary_plain(BinaryOp::mul, dy, product_of_others(in)));
      return;
    }
    // Equal extrema share the gradient.
    const Tensor hit = cast(binary_plain(BinaryOp::eq, in, out), dy.dtype());
    const Tensor count = sum_to(hit, kept);
    give_binary(g, 0, BinaryOp::mul, hit, expand(binary_plain(BinaryOp::div, dy, count), in.shape()));
  }
  void free_saved() override { x = y = {}; }

  // Exclusive products from both sides, so that zeros need no division.
  Tensor product_of_others(const Tensor& in) {
    bool reduced[kMaxRank] = {};
    for (int axis = 0; axis < in.rank(); ++axis) reduced[axis] = kept[axis] == 1;
    std::vector<int64_t> axes, inverse(in.rank());
    for (int axis = 0; axis < in.rank(); ++axis)
      if (!reduced[axis]) axes.push_back(axis);
    int64_t n = 1;
    for (int axis = 0; axis < in.rank(); ++axis) {
      if (!reduced[axis]) continue;
      axes.push_back(axis);
      n *= in.shape()[axis];
    }
    for (size_t i = 0; i < axes.size(); ++i) inverse[axes[i]] = static_cast<int64_t>(i);
    const Tensor moved = permute(in, axes);
    const int64_t rows = n ? in.numel() / n : 0;
    Tensor others = full(Shape{rows, n}, {1, 1}, in.dtype(), in.device());
    Tensor before = full(Shape{rows, 1}, {1, 1}, in.dtype(), in.device()), after = before;
    const Tensor flat = alias(moved, Shape{rows, n});
    for (int64_t i = 0; i < n; ++i) {
      multiply_column(others, i, before);
      multiply_column(others, n - 1 - i, after);
      before = binary_plain(BinaryOp::mul, before, slice(flat, {{0, rows, 1}, {i, 1, 1}}));
      after = binary_plain(BinaryOp::mul, after, slice(flat, {{0, rows, 1}, {n - 1 - i, 1, 1}}));
    }
    return permute(alias(others, moved.shape()), inverse);
  }
  static void multiply_column(const Tensor& m, int64_t column, const Tensor& factor) {
    const std::vector<SliceAxis> part{{0, m.shape()[0], 1}, {column, 1, 1}};
    assign_slice(m, part, binary_plain(BinaryOp::mul, slice(m, part), factor));
  }

  ReduceOp kind;
  Shape kept;
  Saved x, y;
};

struct ExtremumNode final : Node {
  ExtremumNode(const char* name, int reduced, const Tensor& positions) : Node(name), axis(reduced), index(positions) {}
  void backward(GradContext& g) override {
    const Tensor dy = g.dy(), position = index.get();
    const AxisView view(g.input_shape(0), axis);
    const GradTarget dx = g.target(0);
    if (!dx.accumulate)
      launch(FillArgs{.y = dx.tensor.data(), .n = dx.tensor.numel(), .value = {}, .dtype = dy.dtype()}, dy.device());
    launch(ScatterAddArgs{.x = dy.data(), .index = position.as<int64_t>(), .y = dx.tensor.data(), .outer = view.outer,
                          .n = view.n, .m = dy.numel() / std::max<int64_t>(view.outer * view.inner, 1),
                          .inner = view.inner, .dtype = dy.dtype()},
           dy.device());
  }
  void free_saved() override { index = {}; }
  int axis;
  Saved index;
};

struct CumsumNode final : Node {
  explicit CumsumNode(int along) : Node("cumsum"), axis(along) {}
  void backward(GradContext& g) override {
    const Tensor dy = g.dy();
    const AxisView view(dy.shape(), axis);
    const GradTarget dx = g.target(0);
    launch(CumsumArgs{.x = dy.data(), .y = dx.tensor.data(), .outer = view.outer, .n = view.n, .inner = view.inner,
                      .dtype = dy.dtype(), .reverse = true, .accumulate = dx.accumulate},
           dy.device());
  }
  int axis;
};

}  // namespace

Tensor sum_to(const Tensor& x, const Shape& shape) {
  if (x.shape() == shape) return x;
  return alias(reduce_runs(ReduceOp::sum, dense(x), broadcast_runs(shape, x.shape()), 1, nullptr), shape);
}

void GradContext::give_reduced(int input, const Tensor& grad) {
  const Shape& shape = input_shape(input);
  if (grad.shape() == shape) return give(input, grad);
  const std::vector<AxisRun> runs = broadcast_runs(shape, grad.shape());
  if (runs.empty()) return give(input, alias(dense(grad), shape));  // only axes of extent 1 were added
  const GradTarget out = target(input);
  reduce_runs(ReduceOp::sum, dense(grad), runs, 1, &out);
}

Tensor reduce(ReduceOp op, const Tensor& x_in, const std::optional<std::vector<int64_t>>& axes, bool keepdims,
              bool mean) {
  const char* const name = reduce_name(op, mean);
  OpScope scope(name);
  Tensor x = dense(x_in);
  if (mean) x = as_floating(x);
  static_assert(policy_of("sum") == policy_of("mean") && policy_of("mean") == policy_of("prod"));
  if ((op == ReduceOp::sum || op == ReduceOp::prod) && autocast_on()) x = in_float32(x);
  if (op == ReduceOp::any || op == ReduceOp::all) x = cast(x, DType::bool_);
  const int rank = x.rank();
  bool reduced[kMaxRank] = {};
  if (!axes) std::fill_n(reduced, rank, true);
  for (int64_t axis : axes.value_or(std::vector<int64_t>{})) {
    const int a = normalize_axis(name, axis, rank);
    require(!reduced[a], name, "axis ", axis, " is named twice");
    reduced[a] = true;
  }
  Shape with_ones = x.shape(), squeezed;
  int64_t n = 1;
  for (int axis = 0; axis < rank; ++axis) {
    if (reduced[axis]) {
      n *= x.shape()[axis];
      with_ones[axis] = 1;
    } else {
      squeezed.push_back(x.shape()[axis]);
    }
  }
  const bool extremum = op == ReduceOp::max || op == ReduceOp::min;
  require(!extremum || n > 0 || with_ones.numel() == 0, name, "has no value over zero elements, got shape ", x.shape());

  const double scale = mean ? 1.0 / static_cast<double>(n) : 1.0;  // the mean of nothing is 0 / 0
  const std::vector<AxisRun> runs = runs_of(reduced, rank);
  Tensor y = runs.empty() ? copy(cast(x, result_dtype(op, x.dtype()))) : reduce_runs(op, x, runs, scale, nullptr);
  if (mean && n == 0) y = full(with_ones, {std::nan(""), 0}, x.dtype(), x.device());
  y = alias(y, keepdims ? with_ones : squeezed);
  if (is_floating(x.dtype()) && needs_grad(x)) {
    if (op == ReduceOp::sum)
      attach(make_ref<SumNode>(name, with_ones, scale), {&x}, {&y});
    else
      attach(make_ref<ReduceNode>(op, with_ones, x, y), {&x}, {&y});
  }
  return y;
}

std::pair<Tensor, Tensor> extremum(const char* name, ReduceOp op, const Tensor& x_in, int64_t axis_in,
                                   bool keepdims) {
  OpScope scope(name);
  Tensor x = dense(x_in);
  if (x.dtype() == DType::bool_) x = cast(x, DType::uint8);
  const int axis = normalize_axis(name, axis_in, x.rank());
  const AxisView view(x.shape(), axis);
  require(view.n > 0 || view.outer * view.inner == 0, name, "has no value over zero elements, got shape ", x.shape());
  const Shape shape = keepdims ? x.shape().with(axis, 1) : x.shape().without(axis);
  Tensor values = empty(shape, x.dtype(), x.device()), index = empty(shape, DType::int64, x.device());
  launch(ReduceArgs{.x = x.data(), .y = values.data(), .index = index.as<int64_t>(), .outer = view.outer, .n = view.n,
                    .inner = view.inner, .dtype = x.dtype(), .y_dtype = x.dtype(), .op = op},
         x.device());
  if (is_floating(x.dtype()) && needs_grad(x)) attach(make_ref<ExtremumNode>(name, axis, index), {&x}, {&values});
  return {x_in.dtype() == DType::bool_ ? cast(values, DType::bool_) : values, index};
}

Tensor cumsum(const Tensor& x_in, int64_t axis_in) {
  OpScope scope("cumsum");
  Tensor x = dense(x_in);
  if (!is_floating(x.dtype())) x = cast(x, DType::int64);
  static_assert(policy_of("cumsum") == Policy::float32);
  if (autocast_on()) x = in_float32(x);
  const int axis = normalize_axis("cumsum", axis_in, x.rank());
  const AxisView view(x.shape(), axis);
  Tensor y = empty(x.shape(), x.dtype(), x.device());
  launch(CumsumArgs{.x = x.data(), .y = y.data(), .outer = view.outer, .n = view.n, .inner = view.inner,
                    .dtype = x.dtype(), .reverse = false, .accumulate = false},
         x.device());
  if (needs_grad(x)) attach(make_ref<CumsumNode>(axis), {&x}, {&y});
  return y;
}

std::pair<Tensor, Tensor> sort(const Tensor& x_in, bool descending) {
  OpScope scope("sort");
  const Tensor x = dense(x_in);
  require(x.rank() >= 1, "sort", "needs at least 1 axis, got shape ()");
  const int64_t n = x.shape().back();
  Tensor values = empty(x.shape(), x.dtype(), x.device()), index = empty(x.shape(), DType::int64, x.device());
  launch(SortArgs{.x = x.data(), .y = values.data(), .index = index.as<int64_t>(), .rows = n ? x.numel() / n : 0,
                  .n = n, .dtype = x.dtype(), .descending = descending},
         x.device());
  if (is_floating(x.dtype()) && needs_grad(x))
    attach(make_ref<ExtremumNode>("sort", x.rank() - 1, index), {&x}, {&values});
  return {values, index};
}

}  // namespace smelt
