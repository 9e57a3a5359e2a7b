// Matrix products: linear(x, weight, bias, activation) and matmul with batches and transposed operands.
#include "ops/autocast.h"
#include "ops/common.h"

namespace smelt {
namespace {

struct LinearNode final : Node {
  LinearNode(Saved x_in, Saved w, Saved for_activation, Activation act)
      : Node("linear"), x(std::move(x_in)), weight(std::move(w)), z(std::move(for_activation)), activation(act) {}

  void backward(GradContext& g) override {
    const Tensor in = x.get(), w = weight.get();
    const int64_t k = w.shape()[1], n = w.shape()[0], m = k ? in.numel() / k : 0;
    Tensor dy = g.dy();
    if (activation != Activation::none) dy = activation_backward(activation, z.get(), dy);
    if (g.needs(1)) {  // dw (N, K) = dy^T (N, M) x (M, K)
      const GradTarget dw = g.target(1);
      launch(GemmArgs{.a = dy.data(), .b = in.data(), .bias = nullptr, .c = dw.tensor.data(), .m = n, .n = k, .k = m,
                      .lda = n, .ldb = k, .ldc = k, .dtype = dy.dtype(), .c_dtype = dw.tensor.dtype(),
                      .transpose_a = true, .accumulate = dw.accumulate},
             dy.device());
    }
    if (g.needs(2)) {
      const GradTarget db = g.target(2);
      launch(ReduceArgs{.x = dy.data(), .y = db.tensor.data(), .index = nullptr, .outer = 1, .n = m, .inner = n,
                        .dtype = dy.dtype(), .y_dtype = db.tensor.dtype(), .op = ReduceOp::sum,
                        .accumulate = db.accumulate},
             dy.device());
    }
    if (g.needs(0)) {  // dx (M, K) = dy (M, N) w (N, K)
      const GradTarget dx = g.target(0);
      launch(GemmArgs{.a = dy.data(), .b = w.data(), .bias = nullptr, .c = dx.tensor.data(), .m = m, .n = k, .k = n,
                      .lda = n, .ldb = k, .ldc = k, .dtype = dy.dtype(), .c_dtype = dx.tensor.dtype(),
                      .accumulate = dx.accumulate},
             dy.device());
    }
  }
  void free_saved() override { x = weight = z = {}; }

  Saved x, weight, z;
  Activation activation;
};

void check_linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  require(weight.rank() == 2, "linear", "weight must be (out_features, in_features), got shape ", weight.shape());
  require(x.rank() >= 1, "linear", "input must have at least 1 axis, got shape ()");
  require(x.shape().back() == weight.shape()[1], "linear", "weight has ", weight.shape()[1],
          " input features, input has ", x.shape().back(), " (input ", x.shape(), ", weight ", weight.shape(), ")");
  require_one_dtype("linear", "input", x, "weight", weight);
  require_floating("linear", "input", x);
  if (!bias) return;
  require(bias.shape() == Shape{weight.shape()[0]}, "linear", "bias must be (", weight.shape()[0], ",), got ",
          bias.shape());
  require_one_dtype("linear", "bias", bias, "weight", weight);
}

// How an operand of matmul lies: the lazy transposition and the caller's flag cancel each other.
struct Operand {
  Tensor t;
  bool transposed;      // the stored matrix is the transpose of the operand
  int64_t rows, columns;  // of the operand
  int64_t ld() const { return transposed ? rows : columns; }
  Shape batch() const { return Shape(t.shape().begin(), t.rank() - 2); }
};

Operand operand(const Tensor& t, bool transpose) {
  const int64_t r = t.shape().back(2), c = t.shape().back();
  return {t, t.transposed() != transpose, transpose ? c : r, transpose ? r : c};
}

void run_gemm(const Operand& a, const Operand& b, const Shape& batch, const Tensor& c, bool accumulate) {
  GemmArgs args{.a = a.t.data(), .b = b.t.data(), .bias = nullptr, .c = c.data(), .m = a.rows, .n = b.columns,
                .k = a.columns, .batch = 1, .lda = a.ld(), .ldb = b.ld(), .ldc = b.columns, .dtype = a.t.dtype(),
                .c_dtype = c.dtype(),
                .transpose_a = a.transposed, .transpose_b = b.transposed, .accumulate = accumulate};
  const int64_t count = batch.numel();
  const int64_t size_a = a.rows * a.columns, size_b = b.rows * b.columns, size_c = a.rows * b.columns;
  const int64_t count_a = a.batch().numel(), count_b = b.batch().numel();
  // One call where the batch axes are equal, or one operand has none; else the outer axes are walked.
  if ((count_a == count || count_a == 1) && (count_b == count || count_b == 1)) {
    args.batch = count;
    args.batch_stride_a = count_a == 1 ? 0 : size_a;
    args.batch_stride_b = count_b == 1 ? 0 : size_b;
    args.batch_stride_c = size_c;
    launch(args, c.device());
    return;
  }
  int64_t strides_a[kMaxRank], strides_b[kMaxRank];
  broadcast_strides(a.batch(), batch, strides_a);
  broadcast_strides(b.batch(), batch, strides_b);
  for (int64_t i = 0; i < count; ++i) {
    int64_t offset_a = 0, offset_b = 0;
    for (int64_t axis = batch.rank() - 1, rest = i; axis >= 0; --axis) {
      const int64_t at_axis = rest % batch[static_cast<int>(axis)];
      rest /= batch[static_cast<int>(axis)];
      offset_a += at_axis * strides_a[axis];
      offset_b += at_axis * strides_b[axis];
    }
    args.a = at(a.t, offset_a * size_a);
    args.b = at(b.t, offset_b * size_b);
    args.c = at(c, i * size_c);
    launch(args, c.device());
  }
}

struct MatmulNode final : Node {
  MatmulNode(Saved a_in, Saved b_in, bool ta, bool tb)
      : Node("matmul"), a(std::move(a_in)), b(std::move(b_in)), transpose_a(ta), transpose_b(tb) {}

  void backward(GradContext& g) override {
    const Tensor dc = g.dy();
    // With A = op(a), B = op(b): dA = dC B^T, dB = A^T dC; and da = dA^T where op transposes.
    if (g.needs(0)) {
      const Tensor other = b.get();
      transpose_a ? product(g, 0, operand(other, transpose_b), operand(dc, true))
                  : product(g, 0, operand(dc, false), operand(other, !transpose_b));
    }
    if (g.needs(1)) {
      const Tensor other = a.get();
      transpose_b ? product(g, 1, operand(dc, true), operand(other, transpose_a))
                  : product(g, 1, operand(other, !transpose_a), operand(dc, false));
    }
  }
  void free_saved() override { a = b = {}; }

  static void product(GradContext& g, int input, const Operand& left, const Operand& right) {
    const Shape& shape = g.input_shape(input);
    Shape full = broadcast("matmul", left.batch(), right.batch());
    const Shape batch = full;
    full.push_back(left.rows);
    full.push_back(right.columns);
    if (full == shape) {
      const GradTarget target = g.target(input);
      run_gemm(left, right, batch, target.tensor, target.accumulate);
      return;
    }
    Tensor whole = empty(full, g.input_dtype(input), left.t.device());
    run_gemm(left, right, batch, whole, false);
    g.give_reduced(input, whole);
  }

  Saved a, b;
  bool transpose_a, transpose_b;
};

}  // namespace

Tensor linear(const Tensor& x_in, const Tensor& weight_in, const Tensor& bias_in, Activation activation) {
  OpScope scope("linear");
  static_assert(policy_of("linear") == Policy::low);
  const Tensor x_given = dense(x_in), weight_given = dense(weight_in);
  const Tensor x = working(x_given), weight = working(weight_given), bias = working(bias_in);
  require_same_device("linear", {&x, &weight, &bias});
  if (!dry_run::holds([&] { check_linear(x_given, weight_given, bias_in); })) {
    Shape implied = x.shape();
    if (x.rank() && weight.rank()) implied[x.rank() - 1] = weight.shape()[0];
    return empty(implied, weight.dtype(), x.device());
  }
  const int64_t n = weight.shape()[0], k = weight.shape()[1];
  const Shape shape = x.shape().with(x.rank() - 1, n);
  const int64_t m = shape.product(0, shape.rank() - 1);
  const bool grad = needs_grad(x_given, weight_given, bias_in);
  // Activations whose derivative needs their argument are fused only where no backward follows; same bits either way.
  const bool keep_argument = grad && activation != Activation::none && !keeps_result(activation);

  Tensor z = empty(shape, x.dtype(), x.device());
  launch(GemmArgs{.a = x.data(), .b = weight.data(), .bias = bias ? bias.data() : nullptr, .c = z.data(), .m = m,
                  .n = n, .k = k, .lda = k, .ldb = k, .ldc = n, .dtype = x.dtype(), .c_dtype = z.dtype(),
                  .activation = keep_argument ? Activation::none : activation, .transpose_b = true},
         x.device());
  Tensor y = z;
  if (keep_argument) {
    y = empty(shape, x.dtype(), x.device());
    launch(UnaryArgs{.x = z.data(), .y = y.data(), .n = y.numel(), .a = {}, .b = {}, .dtype = x.dtype(),
                     .op = unary_op(activation)},
           x.device());
  }
  if (grad) {
    Saved kept;
    if (activation != Activation::none) kept = keep_argument ? Saved(z) : Saved::output(y);
    attach(make_ref<LinearNode>(save_working(x, x_given), save_working(weight, weight_given), std::move(kept), activation),
           {&x_given, &weight_given, &bias_in}, {&y});
  }
  return y;
}

Tensor matmul(const Tensor& a_in, const Tensor& b_in, bool transpose_a, bool transpose_b) {
  OpScope scope("matmul");
  require(a_in.rank() >= 1 && b_in.rank() >= 1, "matmul", "operands must have at least 1 axis, got shapes ",
          a_in.shape(), " and ", b_in.shape());
  static_assert(policy_of("matmul") == Policy::low);
  const DType dtype = common_dtype(a_in.dtype(), b_in.dtype());
  require_type(is_floating(dtype), "matmul", "operands must be floating, got ", a_in.dtype(), " and ", b_in.dtype(),
               "; use .float()");
  // What autocast makes of an operand is no step of its own: gradients come in the operand's dtype.
  const bool low = autocast_dtype() != DType::float32 && (dtype == DType::float32 || dtype == autocast_dtype());
  const auto ready = [&](const Tensor& x) { return low && (x.dtype() == DType::float32 || x.dtype() == autocast_dtype()) ? x : cast(x, dtype); };
  Tensor a = ready(a_in), b = ready(b_in);
  require_same_device("matmul", {&a, &b});
  // A vector stands as a row on the left and as a column on the right; that axis goes again at the end.
  const bool row = a.rank() == 1, column = b.rank() == 1;
  require(!(row && transpose_a) && !(column && transpose_b), "matmul", "a vector cannot be transposed");
  if (row) a = reshape(a, {1, a.shape()[0]});
  if (column) b = reshape(b, {b.shape()[0], 1});

  // (B, M, K) times one matrix is a single tall product, forward and backward.
  if (a.rank() > 2 && b.rank() == 2 && !column && !transpose_a && !a.transposed()) {
    std::vector<int64_t> wanted(a.shape().begin(), a.shape().end());
    wanted.back() = b.shape()[transpose_b ? 0 : 1];
    return reshape(matmul(reshape(a, {a.shape().product(0, a.rank() - 1), a.shape().back()}), b, false, transpose_b),
                   wanted);
  }

  const Tensor a_low = working(a), b_low = working(b);
  const Operand left = operand(a_low, transpose_a), right = operand(b_low, transpose_b);
  require(left.columns == right.rows, "matmul", "inner extents must be equal, got ", left.columns, " and ",
          right.rows, " (shapes ", a_in.shape(), " and ", b_in.shape(), ")");
  const Shape batch = broadcast("matmul", left.batch(), right.batch());
  Shape shape = batch;
  shape.push_back(left.rows);
  shape.push_back(right.columns);
  Tensor c = empty(shape, a_low.dtype(), a.device());
  run_gemm(left, right, batch, c, false);
  if (needs_grad(a, b))
    attach(make_ref<MatmulNode>(save_working(a_low, a), save_working(b_low, b), transpose_a, transpose_b), {&a, &b}, {&c});
  if (!row && !column) return c;
  std::vector<int64_t> wanted(shape.begin(), shape.end());
  if (column) wanted.pop_back();
  if (row) wanted.erase(wanted.end() - (column ? 1 : 2));
  return reshape(c, wanted);
}

}  // namespace smelt
