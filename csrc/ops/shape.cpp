// Creation, views, and everything that only moves elements.
#include <cstring>
#include <numeric>

#include "ops/autocast.h"
#include "ops/common.h"

namespace smelt {
namespace {

int64_t stride_of(const Shape& shape, int axis) { return shape.product(axis + 1, shape.rank()); }

Strided<2> slice_walk(const Shape& whole, const std::vector<SliceAxis>& axes) {
  // Stride 0 is the part's (dense), stride 1 the whole's.
  Shape part;
  for (const SliceAxis& a : axes) part.push_back(a.length);
  Strided<2> walk;
  for (int i = 0; i < part.rank(); ++i) walk.append(part[i], {stride_of(part, i), stride_of(whole, i) * axes[i].step});
  return walk;
}

int64_t slice_offset(const Shape& whole, const std::vector<SliceAxis>& axes) {
  int64_t offset = 0;
  for (int i = 0; i < whole.rank(); ++i) offset += axes[i].start * stride_of(whole, i);
  return offset;
}

Strided<2> swapped(const Strided<2>& walk) {
  Strided<2> out = walk;
  std::swap(out.stride[0], out.stride[1]);
  return out;
}

// Passes the gradient on with another shape or type.
struct IdentityNode final : Node {
  explicit IdentityNode(const char* name) : Node(name) {}
  void backward(GradContext& g) override {
    g.give(0, cast(alias(g.dy(), g.input_shape(0)), g.input_dtype(0)));
  }
};

struct DeviceNode final : Node {
  explicit DeviceNode(Device source) : Node("to"), from(source) {}
  void backward(GradContext& g) override { g.give(0, to_device(g.dy(), from)); }
  Device from;
};

struct SwapLastNode final : Node {
  SwapLastNode() : Node("swapaxes") {}
  void backward(GradContext& g) override { g.give(0, swap_last(g.dy())); }
};

struct PermuteNode final : Node {
  explicit PermuteNode(std::vector<int64_t> axes) : Node("permute"), inverse(axes.size()) {
    for (size_t i = 0; i < axes.size(); ++i) inverse[axes[i]] = static_cast<int64_t>(i);
  }
  void backward(GradContext& g) override { g.give(0, permute(g.dy(), inverse)); }
  std::vector<int64_t> inverse;
};

struct ExpandNode final : Node {
  ExpandNode() : Node("expand") {}
  void backward(GradContext& g) override { g.give_reduced(0, g.dy()); }
};

struct SliceNode final : Node {
  SliceNode(const char* name, std::vector<SliceAxis> part) : Node(name), axes(std::move(part)) {}
  void backward(GradContext& g) override {
    const Tensor dy = g.dy();
    const Shape& whole = g.input_shape(0);
    const GradTarget target = g.target(0);
    if (!target.accumulate)
      launch(FillArgs{.y = target.tensor.data(), .n = whole.numel(), .value = {}, .dtype = dy.dtype()}, dy.device());
    char* first = at(target.tensor, slice_offset(whole, axes));
    copy_strided(slice_walk(whole, axes), dy.data(), first, dy.dtype(), dy.device(), target.accumulate);
  }
  std::vector<SliceAxis> axes;
};

struct ConcatNode final : Node {
  ConcatNode(int join_axis) : Node("concat"), axis(join_axis) {}
  void backward(GradContext& g) override {
    const Tensor dy = g.dy();
    int64_t begin = 0;
    for (int i = 0; i < static_cast<int>(inputs.size()); ++i) {
      const Shape part = dy.shape().with(axis, extents[i]);
      if (g.needs(i)) {
        std::vector<SliceAxis> axes(part.rank());
        for (int d = 0; d < part.rank(); ++d) axes[d] = {d == axis ? begin : 0, part[d], 1};
        const GradTarget target = g.target(i);
        copy_strided(swapped(slice_walk(dy.shape(), axes)), at(dy, slice_offset(dy.shape(), axes)),
                     target.tensor.data(), dy.dtype(), dy.device(), target.accumulate);
      }
      begin += extents[i];
    }
  }
  int axis;
  std::vector<int64_t> extents;
};

struct PadNode final : Node {
  explicit PadNode(std::vector<SliceAxis> part) : Node("pad"), axes(std::move(part)) {}
  void backward(GradContext& g) override { g.give(0, slice(g.dy(), axes)); }
  std::vector<SliceAxis> axes;
};

// a + b, extents of one axis.
int64_t added(const char* op, int64_t a, int64_t b) {
  int64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) fail(ErrorKind::memory, op, "extents ", a, " and ", b, " add up beyond 64 bits");
  return sum;
}

Tensor identity(const char* op, const Tensor& x, Tensor y) {
  if (needs_grad(x)) attach(make_ref<IdentityNode>(op), {&x}, {&y});
  return y;
}

}  // namespace

void require_same_device(const char* op, std::initializer_list<const Tensor*> tensors) {
  const Tensor* first = nullptr;
  for (const Tensor* t : tensors) {
    if (!*t) continue;
    if (!first) first = t;
    require(t->device() == first->device(), op, "all tensors must be on one device, got ", first->device(), " and ",
            t->device());
  }
}

void broadcast_strides(const Shape& shape, const Shape& wide, int64_t* strides) {
  int64_t step = 1;
  for (int axis = wide.rank() - 1, own = shape.rank() - 1; axis >= 0; --axis, --own) {
    strides[axis] = own >= 0 && shape[own] != 1 ? step : 0;
    if (own >= 0) step *= shape[own];
  }
}

void copy_strided(const Strided<2>& walk, const void* x, void* y, DType dtype, Device device, bool accumulate) {
  CopyArgs args{.x = x, .y = y, .rank = walk.rank, .shape = {}, .x_stride = {}, .y_stride = {}, .dtype = dtype,
                .accumulate = accumulate};
  std::copy_n(walk.shape, kMaxRank, args.shape);
  std::copy_n(walk.stride[0], kMaxRank, args.x_stride);
  std::copy_n(walk.stride[1], kMaxRank, args.y_stride);
  launch(args, device);
}

Tensor full(const Shape& shape, Scalar value, DType dtype, Device device) {
  Tensor y = empty(shape, dtype, device);
  launch(FillArgs{.y = y.data(), .n = y.numel(), .value = value, .dtype = dtype}, device);
  return y;
}

Tensor arange(Scalar start, Scalar step, int64_t n, DType dtype, Device device) {
  Tensor y = empty(Shape{n}, dtype, device);
  launch(ArangeArgs{.y = y.data(), .n = n, .start = start, .step = step, .dtype = dtype}, device);
  return y;
}

Tensor copy(const Tensor& x) {
  Tensor y = empty(x.shape(), x.dtype(), x.device());
  Strided<2> walk;
  for (int i = 0; i < x.rank(); ++i) {
    int64_t from = stride_of(x.shape(), i);
    if (x.transposed() && i == x.rank() - 2) from = 1;
    if (x.transposed() && i == x.rank() - 1) from = x.shape().back(2);
    walk.append(x.shape()[i], {from, stride_of(x.shape(), i)});
  }
  copy_strided(walk, x.data(), y.data(), x.dtype(), x.device());
  return y;
}

Tensor dense(const Tensor& x) { return x.transposed() ? identity("contiguous", x, copy(x)) : x; }

Tensor cast(const Tensor& x_in, DType dtype) {
  if (x_in.dtype() == dtype) return x_in;
  OpScope scope("cast");
  const Tensor x = dense(x_in);
  Tensor y = empty(x.shape(), dtype, x.device());
  launch(CastArgs{.x = x.data(), .y = y.data(), .n = x.numel(), .from = x.dtype(), .to = dtype}, x.device());
  return is_floating(dtype) && is_floating(x.dtype()) ? identity("cast", x, y) : y;
}

Tensor as_floating(const Tensor& x) { return is_floating(x.dtype()) ? x : cast(x, DType::float32); }

Tensor to_device(const Tensor& x_in, Device device) {
  if (x_in.device() == device) return x_in;
  OpScope scope("to");
  recording::refuse("it copies a tensor from one device to another");
  const Tensor x = dense(x_in);
  Tensor y = empty(x.shape(), x.dtype(), device);
  const size_t bytes = static_cast<size_t>(x.nbytes());
  if (x.device().kind == DeviceKind::cpu)
    backend(device).from_host(device, y.data(), x.data(), bytes);
  else if (device.kind == DeviceKind::cpu)
    backend(x.device()).to_host(x.device(), y.data(), x.data(), bytes);
  else {
    backend(x.device()).synchronize(x.device());  // streams of two devices know nothing of each other
    backend(device).copy(device, y.data(), x.data(), bytes);
    backend(device).synchronize(device);
  }
  if (needs_grad(x)) attach(make_ref<DeviceNode>(x.device()), {&x}, {&y});
  return y;
}

Tensor reshape(const Tensor& x_in, const std::vector<int64_t>& wanted) {
  OpScope scope("reshape");
  Shape shape;
  int unknown = -1;
  int64_t known = 1;
  bool overflow = false;
  for (size_t i = 0; i < wanted.size(); ++i) {
    require(wanted[i] >= -1, "reshape", "extents must be at least 0, or -1 for one of them, got ", wanted[i]);
    require(wanted[i] != -1 || unknown < 0, "reshape", "only one extent may be -1");
    if (wanted[i] == -1)
      unknown = static_cast<int>(i);
    else
      overflow = __builtin_mul_overflow(known, wanted[i], &known) || overflow;
    shape.push_back(wanted[i]);
  }
  const int64_t numel = x_in.numel();
  if (!overflow && unknown >= 0 && known > 0 && numel % known == 0) {
    shape[unknown] = numel / known;
    known = numel;
  }
  require(!overflow && known == numel && (unknown < 0 || shape[unknown] >= 0), "reshape", "cannot view ", x_in.shape(), " (", numel,
          " elements) as ", shape);
  const Tensor x = dense(x_in);
  return identity("reshape", x, alias(x, shape));
}

Tensor permute(const Tensor& x_in, const std::vector<int64_t>& wanted) {
  OpScope scope("permute");
  const int rank = x_in.rank();
  require(static_cast<int>(wanted.size()) == rank, "permute", "needs ", rank, " axes for shape ", x_in.shape(),
          ", got ", wanted.size());
  std::vector<int64_t> axes(rank);
  bool used[kMaxRank] = {};
  for (int i = 0; i < rank; ++i) {
    axes[i] = normalize_axis("permute", wanted[i], rank);
    require(!used[axes[i]], "permute", "axis ", axes[i], " is named twice");
    used[axes[i]] = true;
  }
  const Tensor x = dense(x_in);
  Shape shape;
  for (int64_t axis : axes) shape.push_back(x.shape()[static_cast<int>(axis)]);
  Tensor y = empty(shape, x.dtype(), x.device());
  Strided<2> walk;
  for (int i = 0; i < rank; ++i)
    walk.append(shape[i], {stride_of(x.shape(), static_cast<int>(axes[i])), stride_of(shape, i)});
  copy_strided(walk, x.data(), y.data(), x.dtype(), x.device());
  if (needs_grad(x)) attach(make_ref<PermuteNode>(axes), {&x}, {&y});
  return y;
}

Tensor swap_last(const Tensor& x) {
  require(x.rank() >= 2, "swapaxes", "needs at least 2 axes, got shape ", x.shape());
  Shape shape = x.shape();
  std::swap(shape[x.rank() - 1], shape[x.rank() - 2]);
  Tensor y = alias(x);
  y.impl()->shape = shape;
  y.impl()->transposed = !x.transposed();
  if (needs_grad(x)) attach(make_ref<SwapLastNode>(), {&x}, {&y});
  return y;
}

Tensor expand(const Tensor& x_in, const Shape& shape) {
  OpScope scope("expand");
  if (x_in.shape() == shape) return x_in;
  const Tensor x = dense(x_in);
  require(broadcast("expand", x.shape(), shape) == shape, "expand", "cannot stretch ", x.shape(), " to ", shape);
  Tensor y = empty(shape, x.dtype(), x.device());
  copy_strided(broadcast_walk<2>(shape, {&x.shape(), &shape}), x.data(), y.data(), x.dtype(), x.device());
  if (needs_grad(x)) attach(make_ref<ExpandNode>(), {&x}, {&y});
  return y;
}

Tensor slice(const Tensor& x_in, const std::vector<SliceAxis>& axes) {
  OpScope scope("slice");
  const Tensor x = dense(x_in);
  Shape shape;
  bool leading = true;
  for (int i = 0; i < x.rank(); ++i) {
    shape.push_back(axes[i].length);
    const bool whole = axes[i].start == 0 && axes[i].length == x.shape()[i] && axes[i].step == 1;
    leading = leading && (whole || (i == 0 && (axes[i].step == 1 || axes[i].length <= 1)));
  }
  const int64_t offset = shape.numel() ? slice_offset(x.shape(), axes) : 0;
  Tensor y;
  if (leading) {
    y = alias(x, shape, offset);
  } else {
    y = empty(shape, x.dtype(), x.device());
    if (shape.numel())
      copy_strided(swapped(slice_walk(x.shape(), axes)), at(x, offset), y.data(), x.dtype(), x.device());
  }
  if (needs_grad(x)) attach(make_ref<SliceNode>("slice", axes), {&x}, {&y});
  return y;
}

Tensor concat(const std::vector<Tensor>& xs_in, int64_t axis_in) {
  OpScope scope("concat");
  require(!xs_in.empty(), "concat", "needs at least one tensor, got none");
  const int rank = xs_in[0].rank();
  require(rank > 0, "concat", "tensors must have at least 1 axis, got shape ()");
  const int axis = normalize_axis("concat", axis_in, rank);
  DType dtype = xs_in[0].dtype();
  for (const Tensor& x : xs_in) dtype = common_dtype(dtype, x.dtype());
  std::vector<Tensor> xs;
  Shape shape = xs_in[0].shape().with(axis, 0);
  bool grad = false;
  for (const Tensor& x_in : xs_in) {
    xs.push_back(dense(cast(x_in, dtype)));
    const Tensor& x = xs.back();
    require_same_device("concat", {&xs[0], &x});
    require(x.rank() == rank && x.shape().with(axis, 0) == shape.with(axis, 0), "concat",
            "shapes must agree but for axis ", axis, ", got ", xs[0].shape(), " and ", x.shape());
    shape[axis] = added("concat", shape[axis], x.shape()[axis]);
    grad = grad || needs_grad(x);
  }
  Tensor y = empty(shape, dtype, xs[0].device());
  auto node = grad ? make_ref<ConcatNode>(axis) : Ref<ConcatNode>();
  int64_t begin = 0;
  for (const Tensor& x : xs) {
    std::vector<SliceAxis> axes(rank);
    for (int d = 0; d < rank; ++d) axes[d] = {d == axis ? begin : 0, x.shape()[d], 1};
    if (x.numel())
      copy_strided(slice_walk(shape, axes), x.data(), at(y, slice_offset(shape, axes)), dtype, y.device());
    begin += x.shape()[axis];
    if (node) node->extents.push_back(x.shape()[axis]);
  }
  if (node) {
    std::vector<Tensor> outputs{y};
    attach(node, xs, outputs);
  }
  return y;
}

Tensor pad(const Tensor& x_in, const std::vector<std::pair<int64_t, int64_t>>& widths, double value) {
  OpScope scope("pad");
  const Tensor x = dense(x_in);
  require(static_cast<int>(widths.size()) == x.rank(), "pad", "needs a (before, after) pair for each of ", x.rank(),
          " axes, got ", widths.size());
  Shape shape = x.shape();
  std::vector<SliceAxis> axes(x.rank());
  for (int i = 0; i < x.rank(); ++i) {
    require(widths[i].first >= 0 && widths[i].second >= 0, "pad", "widths must not be negative, got (",
            widths[i].first, ", ", widths[i].second, ")");
    axes[i] = {widths[i].first, shape[i], 1};
    shape[i] = added("pad", added("pad", shape[i], widths[i].first), widths[i].second);
  }
  Tensor y = full(shape, Scalar{value, static_cast<int64_t>(value)}, x.dtype(), x.device());
  if (x.numel())
    copy_strided(slice_walk(shape, axes), x.data(), at(y, slice_offset(shape, axes)), x.dtype(), x.device());
  if (needs_grad(x)) attach(make_ref<PadNode>(axes), {&x}, {&y});
  return y;
}

void check_writable(const char* op, const Tensor& y) {
  if (grad_enabled() && y.requires_grad())
    fail(ErrorKind::runtime, op, "a tensor that requires a gradient is written under smelt.no_grad() only");
}

void assign(const Tensor& y, const Tensor& x) {
  std::vector<SliceAxis> axes(y.rank());
  for (int i = 0; i < y.rank(); ++i) axes[i] = {0, y.shape()[i], 1};
  assign_slice(y, axes, x);
}

void assign_slice(const Tensor& y, const std::vector<SliceAxis>& axes, const Tensor& x_in) {
  OpScope scope("assign");
  check_writable("assign", y);
  require(!y.transposed(), "assign", "a transposed view cannot be written; write to the tensor itself");
  NoGrad no_grad;
  Shape part;
  for (const SliceAxis& a : axes) part.push_back(a.length);
  Tensor x = expand(dense(cast(x_in, y.dtype())), part);
  require_same_device("assign", {&y, &x});
  if (&x.storage() == &y.storage()) x = copy(x);  // y[1:] = y[:-1]
  y.storage().bump_version();
  if (part.numel() == 0) return;
  copy_strided(slice_walk(y.shape(), axes), x.data(), at(y, slice_offset(y.shape(), axes)), y.dtype(), y.device());
}

Scalar item(const Tensor& x) {
  require(x.numel() == 1, "item", "the tensor must have one element, got shape ", x.shape());
  recording::read_value();
  if (dry_run::active() || !x.data()) fail(ErrorKind::runtime, "check", "a value was read, tensors have none here");
  const bool floating = is_floating(x.dtype());
  NoGrad no_grad;
  const Tensor wide = to_device(cast(x, floating ? DType::float64 : DType::int64), Device{});
  Scalar s;
  if (floating)
    s = {*wide.as<double>(), 0};
  else
    s = {static_cast<double>(*wide.as<int64_t>()), *wide.as<int64_t>()};
  return s;
}

}  // namespace smelt
