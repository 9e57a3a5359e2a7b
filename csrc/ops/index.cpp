// Reading and writing by index.
#include "ops/common.h"

namespace smelt {
namespace {

Tensor as_index(const char* op, const Tensor& index) {
  require_type(index.dtype() == DType::int64 || index.dtype() == DType::int32 || index.dtype() == DType::uint8, op,
               "indices must be integers, got ", index.dtype());
  return dense(cast(index, DType::int64));
}

void fill_zero(const Tensor& y) {
  launch(FillArgs{.y = y.data(), .n = y.numel(), .value = {}, .dtype = y.dtype()}, y.device());
}

// Adds rows of the gradient where rows were taken.
struct TakeNode final : Node {
  TakeNode(const char* name, int along, const Tensor& positions, int64_t no_gradient)
      : Node(name), axis(along), skip(no_gradient), index(positions) {}
  void backward(GradContext& g) override {
    const Tensor dy = g.dy(), position = index.get();
    const AxisView view(g.input_shape(0), axis);
    const GradTarget dx = g.target(0);
    launch(PutArgs{.dy = dy.data(), .index = position.as<int64_t>(), .dx = dx.tensor.data(), .outer = view.outer,
                   .n = view.n, .m = position.numel(), .inner = view.inner, .skip = skip, .dtype = dy.dtype(),
                   .assign = false, .accumulate = dx.accumulate},
           dy.device());
  }
  void free_saved() override { index = {}; }
  int axis;
  int64_t skip;
  Saved index;
};

struct GatherNode final : Node {
  GatherNode(int along, const Tensor& positions) : Node("gather"), axis(along), index(positions) {}
  void backward(GradContext& g) override {
    const Tensor dy = g.dy(), position = index.get();
    const AxisView view(g.input_shape(0), axis);
    const GradTarget dx = g.target(0);
    if (!dx.accumulate) fill_zero(dx.tensor);
    launch(ScatterAddArgs{.x = dy.data(), .index = position.as<int64_t>(), .y = dx.tensor.data(), .outer = view.outer,
                          .n = view.n, .m = dy.shape()[axis], .inner = view.inner, .dtype = dy.dtype()},
           dy.device());
  }
  void free_saved() override { index = {}; }
  int axis;
  Saved index;
};

Tensor run_gather(const Tensor& x, const Tensor& index, int axis) {
  Tensor y = empty(index.shape(), x.dtype(), x.device());
  const AxisView view(x.shape(), axis);
  launch(GatherArgs{.x = x.data(), .index = index.as<int64_t>(), .y = y.data(), .outer = view.outer, .n = view.n,
                    .m = index.shape()[axis], .inner = view.inner, .dtype = x.dtype()},
         x.device());
  return y;
}

struct ScatterAddNode final : Node {
  ScatterAddNode(int along, const Tensor& positions) : Node("scatter_add"), axis(along), index(positions) {}
  void backward(GradContext& g) override {
    const Tensor dy = g.dy();
    if (g.needs(0)) g.give(0, dy);
    if (g.needs(1)) g.give(1, run_gather(dy, index.get(), axis));
  }
  void free_saved() override { index = {}; }
  int axis;
  Saved index;
};

// gather and scatter_add: index runs over x's shape but for the axis.
void check_along(const char* op, const Tensor& x, const Tensor& index, int axis) {
  require(x.rank() == index.rank() && x.shape().with(axis, 0) == index.shape().with(axis, 0), op,
          "index must have the shape of the tensor but for axis ", axis, ", got ", index.shape(), " for ", x.shape());
}

}  // namespace

void check_index(const Tensor& index, int64_t low, int64_t high, const char* what, std::optional<int64_t> ignore) {
  if (index.numel() == 0) return;
  const char* const op = current_op();
  // The kernel always ignores one value: where none is to be, one that is valid anyway.
  if (!ignore && low >= high)
    fail(ErrorKind::index, op, what, " must be in [", low, ", ", high, "), which is empty");
  launch(CheckIndexArgs{.index = index.data(), .n = index.numel(), .low = low, .high = high, .ignore = ignore.value_or(low),
                        .dtype = index.dtype(), .what = what,
                        .ticket = index.device().kind == DeviceKind::cpu ? 0 : fault_ticket(what, low, high)},
         index.device());
}

Tensor take(const Tensor& x_in, const Tensor& index_in, int64_t axis_in) {
  OpScope scope("take");
  const Tensor x = dense(x_in), index = as_index("take", index_in);
  require_same_device("take", {&x, &index});
  const int axis = normalize_axis("take", axis_in, x.rank());
  const AxisView view(x.shape(), axis);
  check_index(index, 0, view.n, "index");
  Shape shape(x.shape().begin(), axis);
  for (int64_t extent : index.shape()) shape.push_back(extent);
  for (int i = axis + 1; i < x.rank(); ++i) shape.push_back(x.shape()[i]);
  Tensor y = empty(shape, x.dtype(), x.device());
  launch(TakeArgs{.x = x.data(), .index = index.as<int64_t>(), .y = y.data(), .outer = view.outer, .n = view.n,
                  .m = index.numel(), .inner = view.inner, .dtype = x.dtype()},
         x.device());
  if (needs_grad(x)) attach(make_ref<TakeNode>("take", axis, index, -1), {&x}, {&y});
  return y;
}

Tensor embedding(const Tensor& index_in, const Tensor& weight, int64_t padding_index) {
  OpScope scope("embedding");
  require_same_device("embedding", {&index_in, &weight});
  require(weight.rank() == 2, "embedding", "weight must be (rows, features), got shape ", weight.shape());
  const Tensor index = as_index("embedding", index_in);
  const int64_t rows = weight.shape()[0], features = weight.shape()[1];
  check_index(index, 0, rows, "index");
  Shape shape = index.shape();
  shape.push_back(features);
  Tensor y = empty(shape, weight.dtype(), weight.device());
  launch(TakeArgs{.x = weight.data(), .index = index.as<int64_t>(), .y = y.data(), .outer = 1, .n = rows,
                  .m = index.numel(), .inner = features, .dtype = weight.dtype()},
         weight.device());
  if (needs_grad(weight)) attach(make_ref<TakeNode>("embedding", 0, index, padding_index), {&weight}, {&y});
  return y;
}

Tensor gather(const Tensor& x_in, const Tensor& index_in, int64_t axis_in) {
  OpScope scope("gather");
  const Tensor x = dense(x_in), index = as_index("gather", index_in);
  require_same_device("gather", {&x, &index});
  const int axis = normalize_axis("gather", axis_in, x.rank());
  check_along("gather", x, index, axis);
  check_index(index, 0, x.shape()[axis], "index");
  Tensor y = run_gather(x, index, axis);
  if (needs_grad(x)) attach(make_ref<GatherNode>(axis, index), {&x}, {&y});
  return y;
}

Tensor scatter_add(const Tensor& x_in, const Tensor& index_in, const Tensor& values_in, int64_t axis_in) {
  OpScope scope("scatter_add");
  const Tensor x = dense(x_in), index = as_index("scatter_add", index_in), values = dense(values_in);
  require_same_device("scatter_add", {&x, &index, &values});
  require_same_dtype("scatter_add", "the tensor", x, "values", values);
  const int axis = normalize_axis("scatter_add", axis_in, x.rank());
  check_along("scatter_add", x, index, axis);
  require(index.shape() == values.shape(), "scatter_add", "index and values must have one shape, got ", index.shape(),
          " and ", values.shape());
  check_index(index, 0, x.shape()[axis], "index");
  Tensor y = copy(x);
  const AxisView view(x.shape(), axis);
  launch(ScatterAddArgs{.x = values.data(), .index = index.as<int64_t>(), .y = y.data(), .outer = view.outer,
                        .n = view.n, .m = index.shape()[axis], .inner = view.inner, .dtype = x.dtype()},
         x.device());
  if (needs_grad(x, values)) attach(make_ref<ScatterAddNode>(axis, index), {&x, &values}, {&y});
  return y;
}

Tensor nonzero(const Tensor& mask_in) {
  OpScope scope("nonzero");
  const Tensor mask = dense(cast(mask_in, DType::bool_));
  Tensor index = empty(Shape{mask.numel()}, DType::int64, mask.device());
  Tensor count = empty(Shape{}, DType::int64, mask.device());
  launch(NonzeroArgs{.x = mask.data(), .index = index.as<int64_t>(), .count = count.as<int64_t>(), .n = mask.numel()},
         mask.device());
  return alias(index, Shape{item(count).i});
}

void put(const Tensor& y, const Tensor& index_in, const Tensor& values_in) {
  OpScope scope("assign");
  check_writable("assign", y);
  require(!y.transposed(), "assign", "a transposed view cannot be written; write to the tensor itself");
  NoGrad no_grad;
  const Tensor index = as_index("assign", index_in);
  const AxisView view(y.shape(), 0);
  check_index(index, 0, view.n, "index");
  Shape shape = index.shape();
  for (int i = 1; i < y.rank(); ++i) shape.push_back(y.shape()[i]);
  Tensor values = expand(dense(cast(values_in, y.dtype())), shape);
  require_same_device("assign", {&y, &index, &values});
  if (&values.storage() == &y.storage()) values = copy(values);
  y.storage().bump_version();
  launch(PutArgs{.dy = values.data(), .index = index.as<int64_t>(), .dx = y.data(), .outer = 1, .n = view.n,
                 .m = index.numel(), .inner = view.inner, .skip = -1, .dtype = y.dtype(), .assign = true,
                 .accumulate = true},
         y.device());
}

}  // namespace smelt
