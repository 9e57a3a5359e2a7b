// Attention over sequences (B, T, H, D): one kernel without the matrix of scores; where a device has none, other ops.
#include <cmath>

#include "ops/autocast.h"
#include "ops/common.h"

namespace smelt {
namespace {

// q, k and v within their memory: of tensors of their own, or of one that has them side by side.
struct Operands {
  Tensor q, k, v;  // the same tensor three times when packed
  int64_t k_offset = 0, v_offset = 0;  // elements from the first of k's (v's) tensor
};

// Where a row of (B, T, H, D) lies within rows of `width` elements: strides of batch, head and row.
void set_strides(int64_t (&stride)[3], int64_t t, int64_t width, int64_t d) {
  stride[0] = t * width;
  stride[1] = d;
  stride[2] = width;
}

struct AttentionNode final : Node {
  AttentionNode(const char* name, const AttentionArgs& args) : Node(name), forward(args) {}

  void backward(GradContext& g) override {
    const Tensor dy = g.dy(), out = y.get(), sums = lse.get();
    const Tensor in_q = q.get(), in_k = packed ? in_q : k.get(), in_v = packed ? in_q : v.get();
    const AttentionShape& s = forward.shape;
    AttentionBackwardArgs args{};
    args.q = in_q.data();
    args.k = at(in_k, k_offset);
    args.v = at(in_v, v_offset);
    args.y = out.data();
    args.dy = dy.data();
    args.lse = sums.data();
    args.mask = mask ? mask.get().data() : nullptr;
    args.lengths = lengths ? lengths.get().as<int64_t>() : nullptr;
    args.shape = s;
    std::copy_n(forward.q_stride, 3, args.q_stride);
    std::copy_n(forward.k_stride, 3, args.k_stride);
    std::copy_n(forward.v_stride, 3, args.v_stride);
    std::copy_n(forward.q_stride, 3, args.dq_stride);
    std::copy_n(forward.k_stride, 3, args.dk_stride);
    std::copy_n(forward.v_stride, 3, args.dv_stride);
    std::copy_n(forward.y_stride, 3, args.y_stride);
    std::copy_n(forward.y_stride, 3, args.dy_stride);
    std::copy_n(forward.mask_stride, 4, args.mask_stride);
    args.scale = forward.scale;
    args.dtype = forward.dtype;
    args.mask_dtype = forward.mask_dtype;
    args.causal = forward.causal;
    args.grad_dtype = forward.dtype;
    if (packed) {
      const GradTarget target = g.target(0);
      args.grad_dtype = target.tensor.dtype();
      args.dq = target.tensor.data();
      args.dk = at(target.tensor, k_offset);
      args.dv = at(target.tensor, v_offset);
      args.accumulate_q = args.accumulate_k = args.accumulate_v = target.accumulate;
      launch(args, dy.device());
      return;
    }
    // The gradients of one call have one dtype, and no two of them the same memory: else there are several calls.
    bool done[3] = {!g.needs(0), !g.needs(1), !g.needs(2)};
    while (!(done[0] && done[1] && done[2])) {
      void** const pointers[3] = {&args.dq, &args.dk, &args.dv};
      bool* const flags[3] = {&args.accumulate_q, &args.accumulate_k, &args.accumulate_v};
      const int first = !done[0] ? 0 : !done[1] ? 1 : 2;
      args.grad_dtype = g.input_dtype(first);
      GradTarget targets[3];
      for (int i = 0; i < 3; ++i) {
        *pointers[i] = nullptr;
        *flags[i] = false;
        if (done[i] || g.input_dtype(i) != args.grad_dtype) continue;
        bool shared = false;
        for (int j = 0; j < i; ++j) shared = shared || (targets[j].tensor && g.same(i, j));
        if (shared) continue;
        targets[i] = g.target(i);
        *pointers[i] = targets[i].tensor.data();
        *flags[i] = targets[i].accumulate;
        done[i] = true;
      }
      launch(args, dy.device());
    }
  }
  void free_saved() override { q = k = v = y = lse = mask = lengths = {}; }

  Saved q, k, v, y, lse, mask, lengths;
  bool packed = false;
  int64_t k_offset = 0, v_offset = 0;
  AttentionArgs forward;  // pointers aside
};

void check_options(const char* op, const AttentionShape& s, const Tensor& mask, const Tensor& lengths, double scale) {
  require(std::isfinite(scale), op, "scale must be finite, got ", scale);
  if (mask) {
    require_type(mask.dtype() == DType::bool_ || is_floating(mask.dtype()), op, "mask must be bool or floating, got ",
                 mask.dtype());
    const Shape wanted{s.batch, s.heads, s.tq, s.tk};
    bool fits = mask.rank() <= 4;
    for (int i = 1; fits && i <= mask.rank(); ++i) fits = mask.shape().back(i) == 1 || mask.shape().back(i) == wanted.back(i);
    require(fits, op, "mask must be broadcastable to (batch, heads, queries, keys) = ", wanted, ", got ", mask.shape());
  }
  if (lengths) {
    require_type(lengths.dtype() == DType::int64, op, "lengths must be integers, got ", lengths.dtype());
    require(lengths.shape() == Shape{s.batch}, op, "lengths must be (", s.batch, ",), one for each sequence, got ",
            lengths.shape());
  }
}

// Products, a softmax and choices, in float32 for halves; q (B, Tq, H, D), k and v (B, Tk, Hkv, ...).
Tensor composed(const Tensor& q_in, const Tensor& k_in, const Tensor& v_in, const AttentionShape& s, const Tensor& mask,
                const Tensor& lengths,
                bool causal, double scale) {
  const DType dtype = working_dtype(q_in), sums = is_half(dtype) ? DType::float32 : dtype;
  const auto ready = [&](const Tensor& x) { return cast(cast(x, dtype), sums); };
  struct Exact {  // no autocast within
    DType before = autocast_dtype();
    Exact() { set_autocast_dtype(DType::float32); }
    ~Exact() { set_autocast_dtype(before); }
  };
  const Device device = q_in.device();
  const Tensor q_ready = ready(q_in), k_ready = ready(k_in), v_ready = ready(v_in);
  const Exact exact;
  const int64_t group = s.heads / std::max<int64_t>(s.kv_heads, 1);
  // Query heads that share a key head stand together: (B, Hkv, group, T, D).
  const auto grouped = [&](const Tensor& x, int64_t t, int64_t each, int64_t d) {
    return reshape(permute(x, {0, 2, 1, 3}), {s.batch, s.kv_heads, each, t, d});
  };
  const auto repeated = [&](const Tensor& x, int64_t d) {
    return expand(grouped(x, s.tk, 1, d), Shape{s.batch, s.kv_heads, group, s.tk, d});
  };
  Tensor scores = matmul(grouped(q_ready, s.tq, group, s.d), repeated(k_ready, s.d), false, true);
  scores = binary(BinaryOp::mul, scores, Number{{scale, 0}, Number::floating}, false);
  const auto number = [](int64_t i) { return Scalar{static_cast<double>(i), i}; };
  Tensor seen;  // bool, broadcastable to the scores; none: everything
  const auto also = [&](const Tensor& more) { seen = seen ? binary(BinaryOp::logical_and, seen, more) : more; };
  const Tensor keys = arange(number(0), number(1), s.tk, DType::int64, device);
  if (causal) {
    const Tensor last = arange(number(s.tk - s.tq), number(1), s.tq, DType::int64, device);
    also(binary(BinaryOp::le, keys, reshape(last, {s.tq, 1})));
  }
  if (lengths) also(binary(BinaryOp::lt, keys, reshape(lengths, {s.batch, 1, 1, 1, 1})));
  if (mask) {
    std::vector<int64_t> shape(4 - mask.rank(), 1);
    shape.insert(shape.end(), mask.shape().begin(), mask.shape().end());
    if (shape[1] == 1)
      shape.insert(shape.begin() + 1, 1);
    else {
      shape[1] = s.kv_heads;
      shape.insert(shape.begin() + 2, group);
    }
    const Tensor wide = reshape(mask, shape);
    if (mask.dtype() == DType::bool_) {
      also(wide);
    } else {
      const Tensor added = cast(wide, sums);
      scores = binary(BinaryOp::add, scores, added);
      NoGrad no_grad;
      also(unary(UnaryOp::logical_not, binary(BinaryOp::eq, added, Number{{-INFINITY, 0}, Number::floating}, false)));
    }
  }
  const Tensor nothing = full(Shape{}, {-INFINITY, 0}, sums, device), zero = full(Shape{}, {}, sums, device);
  if (seen) scores = where(seen, scores, nothing);
  Tensor weights = softmax(scores, -1, false);
  if (seen) weights = where(seen, weights, zero);  // a row that sees nothing
  Tensor y = matmul(weights, repeated(v_ready, s.dv), false, false);
  y = permute(reshape(y, {s.batch, s.heads, s.tq, s.dv}), {0, 2, 1, 3});
  return cast(y, dtype);
}

AttentionArgs describe(const AttentionShape& s, const Tensor& mask, bool causal, double scale, DType dtype) {
  AttentionArgs args{};
  args.shape = s;
  set_strides(args.y_stride, s.tq, s.heads * s.dv, s.dv);
  args.scale = scale;
  args.dtype = dtype;
  args.causal = causal;
  args.mask_dtype = DType::bool_;
  if (mask) {
    args.mask_dtype = mask.dtype();
    broadcast_strides(mask.shape(), Shape{s.batch, s.heads, s.tq, s.tk}, args.mask_stride);
  }
  return args;
}

// The kernel, and its node on the tape.
Tensor run(AttentionArgs args, const Operands& in, const Tensor& y, const Tensor& mask, const Tensor& lengths, Tensor* lse) {
  const AttentionShape& s = args.shape;
  *lse = empty(Shape{s.batch, s.heads, s.tq}, is_half(args.dtype) ? DType::float32 : args.dtype, y.device());
  args.q = in.q.data();
  args.k = at(in.k, in.k_offset);
  args.v = at(in.v, in.v_offset);
  args.mask = mask ? mask.data() : nullptr;
  args.lengths = lengths ? lengths.as<int64_t>() : nullptr;
  args.y = y.data();
  args.lse = lse->data();
  if (lengths) check_index(lengths, 0, s.tk + 1, "lengths");
  launch(args, y.device());
  return y;
}

Ref<AttentionNode> node_of(const char* op, const AttentionArgs& args, const Operands& in, const Tensor& y, const Tensor& mask,
                           const Tensor& lengths, const Tensor& lse) {
  auto node = make_ref<AttentionNode>(op, args);
  node->k_offset = in.k_offset;
  node->v_offset = in.v_offset;
  node->y = Saved::output(y);
  node->lse = Saved(lse);
  if (mask) node->mask = Saved(mask);
  if (lengths) node->lengths = Saved(lengths);
  return node;
}

// Whether the kernels take it, forward and backward. A mask with a gradient needs the scores themselves.
bool has_kernel(const AttentionArgs& args, const Tensor& mask, Device device) {
  return supported(args, device) && !(mask && needs_grad(mask));
}

double scale_of(std::optional<double> given, int64_t d) {
  return given ? *given : 1 / std::sqrt(static_cast<double>(std::max<int64_t>(d, 1)));
}

constexpr const char* kOrder = "; operands are (batch, time, heads, features), x.permute(0, 2, 1, 3) of heads before time";

AttentionShape shape_of(const Tensor& q, const Tensor& k, const Tensor& v) {
  const char* const op = "attention";
  const auto four = [&](const char* what, const char* form, const Tensor& x) {
    require(x.rank() == 4, op, what, " must be ", form, ", got shape ", x.shape());
  };
  four("q", "(batch, queries, heads, features)", q);
  four("k", "(batch, keys, heads, features)", k);
  four("v", "(batch, keys, heads, features)", v);
  require_floating(op, "q", q);
  require_one_dtype(op, "k", k, "q", q);
  require_one_dtype(op, "v", v, "q", q);
  const AttentionShape s{.batch = q.shape()[0], .heads = q.shape()[2], .kv_heads = k.shape()[2], .tq = q.shape()[1],
                         .tk = k.shape()[1], .d = q.shape()[3], .dv = v.shape()[3]};
  require(k.shape()[0] == s.batch && v.shape()[0] == s.batch, op, "q, k and v must have one batch, got ", q.shape(), ", ",
          k.shape(), " and ", v.shape());
  require(k.shape()[3] == s.d, op, "q and k must have as many features, got ", s.d, " and ", k.shape()[3]);
  require(v.shape()[1] == s.tk && v.shape()[2] == s.kv_heads, op, "k and v must have as many keys and heads, got ",
          k.shape(), " and ", v.shape(), kOrder);
  require(s.kv_heads ? s.heads % s.kv_heads == 0 : s.heads == 0, op, "heads of k must divide those of q, got ", s.kv_heads,
          " and ", s.heads, kOrder);
  return s;
}

}  // namespace

Tensor attention(const Tensor& q_in, const Tensor& k_in, const Tensor& v_in, const Tensor& mask_in, const Tensor& lengths,
                 const AttentionOptions& options) {
  OpScope scope("attention");
  static_assert(policy_of("attention") == Policy::low);
  const Tensor q_given = dense(q_in), k_given = dense(k_in), v_given = dense(v_in), mask = mask_in ? dense(mask_in) : mask_in;
  require_same_device("attention", {&q_given, &k_given, &v_given, &mask, &lengths});
  AttentionShape s{};
  double scale = 1;
  if (!dry_run::holds([&] {
        s = shape_of(q_given, k_given, v_given);
        scale = scale_of(options.scale, s.d);
        check_options("attention", s, mask, lengths, scale);
      }))
    return empty(q_given.shape(), working_dtype(q_given), q_given.device());
  AttentionArgs args = describe(s, mask, options.causal, scale, working_dtype(q_given));
  set_strides(args.q_stride, s.tq, s.heads * s.d, s.d);
  set_strides(args.k_stride, s.tk, s.kv_heads * s.d, s.d);
  set_strides(args.v_stride, s.tk, s.kv_heads * s.dv, s.dv);
  if (!has_kernel(args, mask, q_given.device())) {
    if (lengths) check_index(lengths, 0, s.tk + 1, "lengths");
    return composed(q_given, k_given, v_given, s, mask, lengths, options.causal, scale);
  }
  const Tensor q = working(q_given), k = working(k_given), v = working(v_given);
  Tensor y = empty(Shape{s.batch, s.tq, s.heads, s.dv}, q.dtype(), q.device()), lse;
  const Operands in{q, k, v};
  run(args, in, y, mask, lengths, &lse);
  if (needs_grad(q_given, k_given, v_given)) {
    const Ref<AttentionNode> node = node_of("attention", args, in, y, mask, lengths, lse);
    node->q = save_working(q, q_given);
    node->k = save_working(k, k_given);
    node->v = save_working(v, v_given);
    attach(node, {&q_given, &k_given, &v_given}, {&y});
  }
  return y;
}

Tensor attention_packed(const Tensor& qkv_in, int64_t heads, int64_t kv_heads, const Tensor& mask_in, const Tensor& lengths,
                        const AttentionOptions& options) {
  const char* const op = "attention_packed";
  OpScope scope(op);
  const Tensor given = dense(qkv_in), mask = mask_in ? dense(mask_in) : mask_in;
  require_same_device(op, {&given, &mask, &lengths});
  require(heads >= 1, op, "heads must be at least 1, got ", heads);
  require(heads <= INT32_MAX, op, "heads must be at most ", INT32_MAX, ", got ", heads);
  require(kv_heads >= 1 && heads % kv_heads == 0, op, "kv_heads must divide heads, got ", kv_heads, " and ", heads);
  const int64_t all = heads + 2 * kv_heads;
  AttentionShape s{};
  double scale = 1;
  if (!dry_run::holds([&] {
        require(given.rank() == 3, op, "qkv must be (batch, time, features), got shape ", given.shape());
        require_floating(op, "qkv", given);
        require(given.shape()[2] % all == 0, op, "qkv must have heads + 2 kv_heads = ", all, " parts of one size, got ",
                given.shape()[2], " features");
        const int64_t d = given.shape()[2] / all;
        s = {.batch = given.shape()[0], .heads = heads, .kv_heads = kv_heads, .tq = given.shape()[1], .tk = given.shape()[1],
            .d = d, .dv = d};
        scale = scale_of(options.scale, d);
        check_options(op, s, mask, lengths, scale);
      })) {
    Shape implied = given.shape();
    if (given.rank()) implied[given.rank() - 1] = implied.back() / all * heads;
    return empty(implied, working_dtype(given), given.device());
  }
  AttentionArgs args = describe(s, mask, options.causal, scale, working_dtype(given));
  for (auto* stride : {&args.q_stride, &args.k_stride, &args.v_stride}) set_strides(*stride, s.tq, all * s.d, s.d);
  if (!has_kernel(args, mask, given.device())) {
    if (lengths) check_index(lengths, 0, s.tk + 1, "lengths");
    const auto part = [&](int64_t first, int64_t count) {
      const Tensor x = slice(given, {{0, s.batch, 1}, {0, s.tq, 1}, {first * s.d, count * s.d, 1}});
      return reshape(x, {s.batch, s.tq, count, s.d});
    };
    const Tensor y = composed(part(0, heads), part(heads, kv_heads), part(heads + kv_heads, kv_heads), s, mask, lengths,
                              options.causal, scale);
    return reshape(y, {s.batch, s.tq, heads * s.d});
  }
  const Tensor qkv = working(given);
  Tensor y = empty(Shape{s.batch, s.tq, heads * s.d}, qkv.dtype(), qkv.device()), lse;
  const Operands in{qkv, qkv, qkv, heads * s.d, (heads + kv_heads) * s.d};
  run(args, in, y, mask, lengths, &lse);
  if (needs_grad(given)) {
    const Ref<AttentionNode> node = node_of(op, args, in, y, mask, lengths, lse);
    node->q = save_working(qkv, given);
    node->packed = true;
    attach(node, {&given}, {&y});
  }
  return y;
}

}  // namespace smelt
