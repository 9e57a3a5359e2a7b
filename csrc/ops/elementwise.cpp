// Ops on each element by itself, with broadcasting and type promotion (docs/semantics.md).
#include <cmath>
#include <utility>

#include "ops/autocast.h"
#include "ops/common.h"

namespace smelt {
namespace {

// Whether the derivative is computed from the result instead of the input.
bool saves_output(UnaryOp op) {
  switch (op) {
    case UnaryOp::sqrt: case UnaryOp::rsqrt: case UnaryOp::reciprocal: case UnaryOp::exp: case UnaryOp::expm1:
    case UnaryOp::tanh: case UnaryOp::sigmoid: case UnaryOp::relu:
      return true;
    default:
      return false;
  }
}
bool has_gradient(UnaryOp op) {
  return !gives_bool(op) && op != UnaryOp::sign && op != UnaryOp::floor && op != UnaryOp::ceil &&
         op != UnaryOp::round && op != UnaryOp::trunc;
}
// Ops that keep integers as they are; the others turn them into float32.
bool keeps_integers(UnaryOp op) {
  switch (op) {
    case UnaryOp::neg: case UnaryOp::abs: case UnaryOp::sign: case UnaryOp::square: case UnaryOp::floor:
    case UnaryOp::ceil: case UnaryOp::round: case UnaryOp::trunc: case UnaryOp::relu: case UnaryOp::clip:
    case UnaryOp::logical_not:
      return true;
    default:
      return false;
  }
}

struct UnaryNode final : Node {
  UnaryNode(const UnaryArgs& forward, Saved kept) : Node(op_name(forward.op)), args(forward), saved(std::move(kept)) {}
  void backward(GradContext& g) override {
    const Tensor dy = g.dy(), kept = saved.get();
    const GradTarget dx = g.target(0);
    launch(UnaryBackwardArgs{.saved = kept.data(), .dy = dy.data(), .dx = dx.tensor.data(), .n = args.n, .a = args.a,
                             .b = args.b, .dtype = args.dtype, .op = args.op, .accumulate = dx.accumulate},
           dy.device());
  }
  void free_saved() override { saved = {}; }
  UnaryArgs args;
  Saved saved;
};

Tensor run_binary(BinaryOp op, const Tensor& a, const Tensor& b, const Shape& shape) {
  const DType dtype = a.dtype();
  Tensor y = empty(shape, gives_bool(op) ? DType::bool_ : dtype, a.device());
  const Strided<2> walk = broadcast_walk<2>(shape, {&a.shape(), &b.shape()});
  BinaryArgs args{.a = a.data(), .b = b.data(), .y = y.data(), .rank = walk.rank, .shape = {}, .a_stride = {},
                  .b_stride = {}, .scalar = {}, .dtype = dtype, .op = op};
  std::copy_n(walk.shape, kMaxRank, args.shape);
  std::copy_n(walk.stride[0], kMaxRank, args.a_stride);
  std::copy_n(walk.stride[1], kMaxRank, args.b_stride);
  launch(args, a.device());
  return y;
}

// A binary kernel with one operand a number. y and x are dense and of one shape.
void run_scalar(BinaryOp op, const Tensor& x, Scalar scalar, bool scalar_first, const Tensor& y,
                bool accumulate = false) {
  BinaryArgs args{.a = scalar_first ? nullptr : x.data(), .b = scalar_first ? x.data() : nullptr, .y = y.data(),
                  .rank = 1, .shape = {x.numel()}, .a_stride = {1}, .b_stride = {1}, .scalar = scalar,
                  .dtype = x.dtype(), .op = op, .accumulate = accumulate};
  launch(args, x.device());
}

Tensor scalar_plain(BinaryOp op, const Tensor& x, double number, bool number_first = false) {
  Tensor y = empty(x.shape(), gives_bool(op) ? DType::bool_ : x.dtype(), x.device());
  run_scalar(op, x, {number, static_cast<int64_t>(number)}, number_first, y);
  return y;
}

Tensor unary_plain(UnaryOp op, const Tensor& x) {
  Tensor y = empty(x.shape(), x.dtype(), x.device());
  launch(UnaryArgs{.x = x.data(), .y = y.data(), .n = x.numel(), .a = {}, .b = {}, .dtype = x.dtype(), .op = op},
         x.device());
  return y;
}

// 1 where a wins, 1/2 on a tie, 0 elsewhere.
Tensor share_of(BinaryOp op, const Tensor& a, const Tensor& b) {
  const Tensor wins = binary_plain(op == BinaryOp::maximum ? BinaryOp::gt : BinaryOp::lt, a, b);
  const Tensor ties = binary_plain(BinaryOp::eq, a, b);
  const Tensor half = scalar_plain(BinaryOp::mul, cast(ties, a.dtype()), 0.5);
  return binary_plain(BinaryOp::add, cast(wins, a.dtype()), half);
}

struct BinaryNode final : Node {
  BinaryNode(BinaryOp binary, const Tensor& left, const Tensor& right) : Node(op_name(binary)), kind(binary) {
    if (kind == BinaryOp::add || kind == BinaryOp::sub) return;
    a = Saved(left);
    b = Saved(right);
  }
  void backward(GradContext& g) override {
    const Tensor dy = g.dy();
    switch (kind) {
      case BinaryOp::add:
        if (g.needs(0)) g.give_reduced(0, dy);
        if (g.needs(1)) g.give_reduced(1, dy);
        return;
      case BinaryOp::sub:
        if (g.needs(0)) g.give_reduced(0, dy);
        if (g.needs(1)) g.give_reduced(1, unary_plain(UnaryOp::neg, dy));
        return;
      case BinaryOp::mul:
        if (g.needs(0)) give_binary(g, 0, BinaryOp::mul, dy, b.get());
        if (g.needs(1)) give_binary(g, 1, BinaryOp::mul, dy, a.get());
        return;
      case BinaryOp::div: {  // da = dy / b, db = -da * a / b
        const Tensor da = binary_plain(BinaryOp::div, dy, b.get());
        if (g.needs(1)) {
          const Tensor quotient = binary_plain(BinaryOp::div, a.get(), b.get());
          give_binary(g, 1, BinaryOp::mul, unary_plain(UnaryOp::neg, da), quotient);
        }
        if (g.needs(0)) g.give_reduced(0, da);
        return;
      }
      case BinaryOp::pow: return pow_backward(g, dy);
      case BinaryOp::remainder: {  // a - floor(a / b) b
        if (g.needs(1)) {
          const Tensor floor = binary_plain(BinaryOp::floor_div, a.get(), b.get());
          give_binary(g, 1, BinaryOp::mul, unary_plain(UnaryOp::neg, dy), floor);
        }
        if (g.needs(0)) g.give_reduced(0, dy);
        return;
      }
      default:  // maximum, minimum
        if (g.needs(0)) give_binary(g, 0, BinaryOp::mul, dy, share_of(kind, a.get(), b.get()));
        if (g.needs(1)) give_binary(g, 1, BinaryOp::mul, dy, share_of(kind, b.get(), a.get()));
    }
  }
  void free_saved() override { a = b = {}; }

  // d a^b / da = b a^(b-1), and 0 where b is 0; d a^b / db = a^b log(a), and 0 where a is 0 and b >= 0.
  void pow_backward(GradContext& g, const Tensor& dy) {
    const Tensor base = a.get(), exponent = b.get();
    const Tensor zero = full(Shape{}, {}, dy.dtype(), dy.device());
    if (g.needs(0)) {
      const Tensor lower = binary_plain(BinaryOp::pow, base, scalar_plain(BinaryOp::sub, exponent, 1));
      const Tensor slope = binary_plain(BinaryOp::mul, exponent, lower);
      const Tensor constant = scalar_plain(BinaryOp::eq, exponent, 0);
      give_binary(g, 0, BinaryOp::mul, dy, where(constant, zero, slope));
    }
    if (g.needs(1)) {
      const Tensor power = binary_plain(BinaryOp::pow, base, exponent);
      const Tensor slope = binary_plain(BinaryOp::mul, power, unary_plain(UnaryOp::log, base));
      const Tensor flat = binary_plain(BinaryOp::logical_and, scalar_plain(BinaryOp::eq, base, 0),
                                       scalar_plain(BinaryOp::ge, exponent, 0));
      give_binary(g, 1, BinaryOp::mul, dy, where(flat, zero, slope));
    }
  }

  BinaryOp kind;
  Saved a, b;
};

struct ScalarNode final : Node {
  ScalarNode(BinaryOp binary, const Tensor& x, double value, bool is_first)
      : Node(op_name(binary)), kind(binary), number(value), number_first(is_first) {
    const bool linear = kind == BinaryOp::add || kind == BinaryOp::sub || kind == BinaryOp::mul ||
                        (kind == BinaryOp::div && !number_first) || (kind == BinaryOp::remainder && !number_first);
    if (!linear) saved = Saved(x);
  }
  void backward(GradContext& g) override {
    const Tensor dy = g.dy();
    switch (kind) {
      case BinaryOp::add: g.give(0, dy); return;
      case BinaryOp::sub: number_first ? scaled(g, BinaryOp::mul, dy, -1) : g.give(0, dy); return;
      case BinaryOp::mul: scaled(g, BinaryOp::mul, dy, number); return;
      case BinaryOp::div:
        if (!number_first) return scaled(g, BinaryOp::div, dy, number);
        {  // -number / x^2
          const Tensor x = saved.get();
          const Tensor squared = binary_plain(BinaryOp::mul, x, x);
          give_binary(g, 0, BinaryOp::div, scalar_plain(BinaryOp::mul, dy, -number), squared);
        }
        return;
      case BinaryOp::pow: {
        const Tensor x = saved.get();
        Tensor slope;
        if (number_first) {  // number^x log(number); 0^x is flat where x > 0
          const double log = number == 0 ? 0.0 : std::log(number);
          slope = scalar_plain(BinaryOp::mul, scalar_plain(BinaryOp::pow, x, number, true), log);
        } else {
          slope = number == 0 ? full(x.shape(), {}, x.dtype(), x.device())
                              : scalar_plain(BinaryOp::mul, scalar_plain(BinaryOp::pow, x, number - 1), number);
        }
        give_binary(g, 0, BinaryOp::mul, dy, slope);
        return;
      }
      case BinaryOp::remainder:
        if (!number_first) return g.give(0, dy);
        give_binary(g, 0, BinaryOp::mul, unary_plain(UnaryOp::neg, dy),
                    scalar_plain(BinaryOp::floor_div, saved.get(), number, true));
        return;
      default: {  // maximum, minimum
        const Tensor x = saved.get();
        const Tensor other = full(Shape{}, {number, 0}, x.dtype(), x.device());
        give_binary(g, 0, BinaryOp::mul, dy, share_of(kind, x, other));
      }
    }
  }
  void free_saved() override { saved = {}; }

  void scaled(GradContext& g, BinaryOp by, const Tensor& dy, double factor) {
    const GradTarget dx = g.target(0);
    run_scalar(by, dy, {factor, 0}, false, dx.tensor, dx.accumulate);
  }

  BinaryOp kind;
  double number;
  bool number_first;
  Saved saved;
};

struct WhereNode final : Node {
  explicit WhereNode(const Tensor& c) : Node("where"), condition(c) {}
  void backward(GradContext& g) override {
    const Tensor dy = g.dy(), c = condition.get();
    for (int input : {0, 1}) {
      if (!g.needs(input)) continue;
      Tensor part = empty(dy.shape(), dy.dtype(), dy.device());
      run(c, input == 0 ? dy : Tensor(), input == 0 ? Tensor() : dy, part);
      g.give_reduced(input, part);
    }
  }
  void free_saved() override { condition = {}; }

  static void run(const Tensor& c, const Tensor& a, const Tensor& b, const Tensor& y) {
    const Shape one;
    const Strided<3> walk =
        broadcast_walk<3>(y.shape(), {&c.shape(), a ? &a.shape() : &one, b ? &b.shape() : &one});
    WhereArgs args{.condition = c.data(), .a = a ? a.data() : nullptr, .b = b ? b.data() : nullptr, .y = y.data(),
                   .rank = walk.rank, .shape = {}, .condition_stride = {}, .a_stride = {}, .b_stride = {},
                   .dtype = y.dtype()};
    std::copy_n(walk.shape, kMaxRank, args.shape);
    std::copy_n(walk.stride[0], kMaxRank, args.condition_stride);
    std::copy_n(walk.stride[1], kMaxRank, args.a_stride);
    std::copy_n(walk.stride[2], kMaxRank, args.b_stride);
    launch(args, y.device());
  }

  Saved condition;
};

bool has_gradient(BinaryOp op) { return !gives_bool(op) && op != BinaryOp::floor_div; }

// The dtype in which `op` works on operands whose promotion is `common`; bool arithmetic is NumPy's.
DType working_dtype(BinaryOp& op, DType common) {
  if (op == BinaryOp::div && !is_floating(common)) return DType::float32;
  if (common != DType::bool_ || gives_bool(op)) return common;
  switch (op) {
    case BinaryOp::add: case BinaryOp::maximum: op = BinaryOp::logical_or; return common;
    case BinaryOp::mul: case BinaryOp::minimum: op = BinaryOp::logical_and; return common;
    case BinaryOp::sub:
      fail(ErrorKind::type, "sub", "bool tensors cannot be subtracted; use ^ or .int()");
    default: return DType::int64;
  }
}

bool fits(Number number, DType dtype) {
  if (number.kind != Number::integer || is_floating(dtype)) return true;
  if (number.huge) return false;
  if (dtype == DType::uint8) return number.value.i >= 0 && number.value.i <= 255;
  if (dtype == DType::int32) return number.value.i >= INT32_MIN && number.value.i <= INT32_MAX;
  return true;
}

}  // namespace

const char* op_name(UnaryOp op) {
  static const char* const kNames[] = {"neg",  "abs",   "sign",    "square",     "sqrt",  "rsqrt", "reciprocal",
                                       "exp",  "expm1", "log",     "log1p",      "sin",   "cos",   "tanh",
                                       "sigmoid", "erf", "floor",  "ceil",       "round", "trunc", "relu",
                                       "leaky_relu", "elu", "gelu", "gelu_tanh", "silu",  "softplus", "clip",
                                       "isnan", "isinf", "logical_not"};
  return kNames[static_cast<int>(op)];
}

const char* op_name(BinaryOp op) {
  static const char* const kNames[] = {"add", "sub", "mul", "div", "floor_div", "remainder", "pow", "maximum",
                                       "minimum", "logical_and", "logical_or", "logical_xor", "eq", "ne", "lt",
                                       "le", "gt", "ge"};
  return kNames[static_cast<int>(op)];
}

UnaryOp unary_op(Activation activation) {
  switch (activation) {
    case Activation::relu: return UnaryOp::relu;
    case Activation::tanh: return UnaryOp::tanh;
    case Activation::sigmoid: return UnaryOp::sigmoid;
    case Activation::gelu: return UnaryOp::gelu;
    case Activation::gelu_tanh: return UnaryOp::gelu_tanh;
    default: return UnaryOp::silu;
  }
}

GradTargets::GradTargets(GradContext& g, std::initializer_list<int> inputs) : g_(g) {
  for (int i : inputs) {
    if (!g.needs(i) || target_[i].tensor) continue;
    for (int j = 0; j < kMost; ++j) apart_[i] = apart_[i] || (j != i && target_[j].tensor && g.same(i, j));
    if (apart_[i])
      target_[i].tensor = empty(g.input_shape(i), g.input_dtype(i), g.input_device(i));
    else
      target_[i] = g.target(i);
  }
}

void GradTargets::finish() {
  for (int i = 0; i < kMost; ++i)
    if (!apart_[i]) target_[i] = {};  // who else holds a gradient that is added to makes a copy of it
  for (int i = 0; i < kMost; ++i)
    if (apart_[i]) g_.give(i, std::exchange(target_[i].tensor, Tensor()));
}

bool keeps_result(Activation a) {
  return a == Activation::relu || a == Activation::tanh || a == Activation::sigmoid;
}

Tensor activation_backward(Activation activation, const Tensor& saved, const Tensor& dy) {
  Tensor dz = empty(dy.shape(), dy.dtype(), dy.device());
  launch(UnaryBackwardArgs{.saved = saved.data(), .dy = dy.data(), .dx = dz.data(), .n = dy.numel(), .a = {}, .b = {},
                           .dtype = dy.dtype(), .op = unary_op(activation), .accumulate = false},
         dy.device());
  return dz;
}

Tensor unary(UnaryOp op, const Tensor& x_in, Scalar a, Scalar b) {
  OpScope scope(op_name(op));
  Tensor x = dense(x_in);
  if (x.dtype() == DType::bool_ && op != UnaryOp::logical_not && !gives_bool(op)) {
    require_type(op != UnaryOp::neg, "neg", "bool tensors have no negative; use ~");
    x = cast(x, keeps_integers(op) ? DType::int64 : DType::float32);
  }
  if (!keeps_integers(op) && !is_floating(x.dtype()) && !gives_bool(op)) x = cast(x, DType::float32);
  Tensor y = empty(x.shape(), gives_bool(op) ? DType::bool_ : x.dtype(), x.device());
  const UnaryArgs args{.x = x.data(), .y = y.data(), .n = x.numel(), .a = a, .b = b, .dtype = x.dtype(), .op = op};
  launch(args, x.device());
  if (has_gradient(op) && needs_grad(x))
    attach(make_ref<UnaryNode>(args, saves_output(op) ? Saved::output(y) : Saved(x)), {&x}, {&y});
  return y;
}

Tensor binary_plain(BinaryOp op, const Tensor& a, const Tensor& b) {
  return run_binary(op, a, b, broadcast(op_name(op), a.shape(), b.shape()));
}

void give_binary(GradContext& g, int input, BinaryOp op, const Tensor& a, const Tensor& b) {
  const Shape& shape = g.input_shape(input);
  if (!(a.shape() == shape && b.shape() == shape)) return g.give_reduced(input, binary_plain(op, a, b));
  const GradTarget target = g.target(input);
  launch(BinaryArgs{.a = a.data(), .b = b.data(), .y = target.tensor.data(), .rank = 1, .shape = {a.numel()},
                    .a_stride = {1}, .b_stride = {1}, .scalar = {}, .dtype = a.dtype(), .op = op,
                    .accumulate = target.accumulate},
         a.device());
}

Tensor binary(BinaryOp op, const Tensor& a_in, const Tensor& b_in) {
  OpScope scope(op_name(op));
  const char* const name = current_op();
  const DType dtype = working_dtype(op, common_dtype(a_in.dtype(), b_in.dtype()));
  const Tensor a = dense(cast(a_in, dtype)), b = dense(cast(b_in, dtype));
  require_same_device(name, {&a, &b});
  Shape shape = a.shape();
  if (!(a.shape() == b.shape()) && !dry_run::holds([&] { shape = broadcast(name, a.shape(), b.shape()); }))
    return empty(a.shape(), gives_bool(op) ? DType::bool_ : dtype, a.device());
  Tensor y = run_binary(op, a, b, shape);
  if (has_gradient(op) && needs_grad(a, b)) attach(make_ref<BinaryNode>(op, a, b), {&a, &b}, {&y});
  return y;
}

Tensor binary(BinaryOp op, const Tensor& x_in, Number number, bool number_first) {
  OpScope scope(op_name(op));
  DType common = x_in.dtype();
  if (number.kind == Number::floating && !is_floating(common)) common = DType::float32;
  if (number.kind == Number::integer && common == DType::bool_) common = DType::int64;
  if (!fits(number, common)) {
    const bool comparison = op >= BinaryOp::eq;
    require(comparison, current_op(), "the number ", number.value.i, " does not fit ", common);
    common = DType::int64;
    if (number.huge) {  // above or below every integer
      common = DType::float64;
      number.value.f = std::copysign(HUGE_VAL, number.value.f);
    }
  }
  const DType dtype = working_dtype(op, common);
  require(!(op == BinaryOp::pow && is_integral(dtype) && !number_first && number.value.i < 0), "pow",
          "integers have no negative integer powers, got exponent ", number.value.i, "; use .float()");
  const Tensor x = dense(cast(x_in, dtype));
  Tensor y = empty(x.shape(), gives_bool(op) ? DType::bool_ : dtype, x.device());
  run_scalar(op, x, number.value, number_first, y);
  if (has_gradient(op) && needs_grad(x))
    attach(make_ref<ScalarNode>(op, x, number.value.f, number_first), {&x}, {&y});
  return y;
}

Tensor where(const Tensor& condition_in, const Tensor& a_in, const Tensor& b_in) {
  OpScope scope("where");
  require_type(condition_in.dtype() == DType::bool_, "where", "condition must be bool, got ", condition_in.dtype());
  const DType dtype = common_dtype(a_in.dtype(), b_in.dtype());
  const Tensor condition = dense(condition_in), a = dense(cast(a_in, dtype)), b = dense(cast(b_in, dtype));
  require_same_device("where", {&condition, &a, &b});
  const Shape shape = broadcast("where", condition.shape(), broadcast("where", a.shape(), b.shape()));
  Tensor y = empty(shape, dtype, a.device());
  WhereNode::run(condition, a, b, y);
  if (needs_grad(a, b)) attach(make_ref<WhereNode>(condition), {&a, &b}, {&y});
  return y;
}

}  // namespace smelt
