// One line for every op. The documented functions stand in python/smelt.
#include "bindings/common.h"

namespace smelt::bindings {
namespace {

using Axes = std::optional<std::vector<int64_t>>;
using MaybeTensor = std::optional<Tensor>;
Tensor or_none(const MaybeTensor& t) { return t.value_or(Tensor()); }

Scalar scalar(double v) { return {v, static_cast<int64_t>(v)}; }
Scalar scalar(py::handle v, const char* op) {
  const auto number = as_number(v);
  require_type(number.has_value(), op, "needs a number, got ", std::string(py::repr(v)));
  require(!number->huge, op, "integers must fit 64 bits, got ", std::string(py::str(v)));
  return number->value;
}

template <class Op>
py::dict op_numbers(int count) {
  py::dict d;
  for (int i = 0; i < count; ++i) d[op_name(static_cast<Op>(i))] = i;
  return d;
}

Tensor binary_any(int op, const py::object& a, const py::object& b) {
  const auto kind = static_cast<BinaryOp>(op);
  if (const auto number = as_number(b); number && !as_number(a)) return binary_number(kind, to_tensor(a), b, *number, false);
  if (const auto number = as_number(a); number && !as_number(b)) return binary_number(kind, to_tensor(b), a, *number, true);
  return binary(kind, to_tensor(a), to_tensor(b));
}

Conv2dOptions conv_options(const char* op, std::pair<int64_t, int64_t> stride, const py::object& padding,
                           std::pair<int64_t, int64_t> dilation, int64_t groups,
                           const std::optional<std::string>& activation) {
  Conv2dOptions o;
  o.stride[0] = stride.first;
  o.stride[1] = stride.second;
  o.dilation[0] = dilation.first;
  o.dilation[1] = dilation.second;
  o.groups = groups;
  o.activation = parse_activation(op, activation);
  if (padding.is_none()) {
    o.same = true;
  } else {
    const auto [rows, columns] = padding.cast<std::pair<int64_t, int64_t>>();
    o.padding[0][0] = o.padding[0][1] = rows;
    o.padding[1][0] = o.padding[1][1] = columns;
  }
  return o;
}

Pool2dOptions pool_options(std::pair<int64_t, int64_t> kernel, std::pair<int64_t, int64_t> stride,
                           std::pair<int64_t, int64_t> padding, bool count_include_pad) {
  Pool2dOptions o;
  o.kernel[0] = kernel.first;
  o.kernel[1] = kernel.second;
  o.stride[0] = stride.first;
  o.stride[1] = stride.second;
  o.padding[0] = padding.first;
  o.padding[1] = padding.second;
  o.count_include_pad = count_include_pad;
  return o;
}

std::vector<SliceAxis> slice_axes(const std::vector<std::tuple<int64_t, int64_t, int64_t>>& axes) {
  std::vector<SliceAxis> out;
  for (const auto& [start, length, step] : axes) out.push_back({start, length, step});
  return out;
}

void register_shape(py::module_& m) {
  m.def("full", [](const Shape& shape, py::handle value, DTypeArg dtype, const std::string& device) {
    OpScope scope("full");
    return full(shape, scalar(value, "full"), dtype.value, parse_device(device));
  });
  m.def("empty", [](const Shape& shape, DTypeArg dtype, const std::string& device) {
    OpScope scope("empty");
    return empty(shape, dtype.value, parse_device(device));
  });
  m.def("arange", [](py::handle start, py::handle step, int64_t n, DTypeArg dtype, const std::string& device) {
    OpScope scope("arange");
    return arange(scalar(start, "arange"), scalar(step, "arange"), n, dtype.value, parse_device(device));
  });
  m.def("copy", copy);
  m.def("contiguous", dense);
  m.def("cast", [](const Tensor& x, DTypeArg dtype) { return cast(x, dtype.value); });
  m.def("to_device", [](const Tensor& x, const std::string& device) { return to_device(x, parse_device(device)); });
  m.def("parse_device", [](const std::string& device) { return text(parse_device(device)); });
  m.def("reshape", reshape);
  m.def("permute", permute);
  m.def("swap_last", swap_last);
  m.def("expand", expand);
  m.def("slice", [](const Tensor& x, const std::vector<std::tuple<int64_t, int64_t, int64_t>>& axes) {
    return slice(x, slice_axes(axes));
  });
  m.def("concat", concat);
  m.def("pad", pad);
  m.def("assign", assign);
}

void register_elementwise(py::module_& m) {
  m.attr("UNARY") = op_numbers<UnaryOp>(static_cast<int>(UnaryOp::logical_not) + 1);
  m.attr("BINARY") = op_numbers<BinaryOp>(static_cast<int>(BinaryOp::ge) + 1);
  m.def("unary", [](int op, const Tensor& x) { return unary(static_cast<UnaryOp>(op), x); });
  m.def("unary_with", [](int op, const Tensor& x, py::handle a, py::handle b) {
    return unary(static_cast<UnaryOp>(op), x, scalar(a, "unary"), scalar(b, "unary"));
  });
  m.def("binary", binary_any);
  m.def("where", [](const py::object& c, const py::object& a, const py::object& b) {
    const Tensor condition = to_tensor(c);
    // Numbers take the dtype of the other side, as in arithmetic.
    const auto like = [](const Tensor& other, const Number& number) {
      DType dtype = other.dtype();
      if (number.kind == Number::floating && !is_floating(dtype)) dtype = DType::float32;
      if (number.kind == Number::integer && dtype == DType::bool_) dtype = DType::int64;
      return full(Shape{}, number.value, dtype, other.device());
    };
    const auto number_a = as_number(a), number_b = as_number(b);
    if (number_a && !number_b) {
      const Tensor other = to_tensor(b);
      return where(condition, like(other, *number_a), other);
    }
    if (number_b && !number_a) {
      const Tensor other = to_tensor(a);
      return where(condition, other, like(other, *number_b));
    }
    return where(condition, to_tensor(a), to_tensor(b));
  });
}

void register_reduce(py::module_& m) {
  const auto reduction = [&](const char* name, ReduceOp op, bool mean) {
    m.def(name, [op, mean](const Tensor& x, const Axes& axes, bool keepdims) { return reduce(op, x, axes, keepdims, mean); });
  };
  reduction("sum", ReduceOp::sum, false);
  reduction("mean", ReduceOp::sum, true);
  reduction("prod", ReduceOp::prod, false);
  reduction("max", ReduceOp::max, false);
  reduction("min", ReduceOp::min, false);
  reduction("any", ReduceOp::any, false);
  reduction("all", ReduceOp::all, false);
  m.def("extremum", [](const Tensor& x, bool max, int64_t axis, bool keepdims) {
    return extremum(max ? "argmax" : "argmin", max ? ReduceOp::max : ReduceOp::min, x, axis, keepdims);
  });
  m.def("cumsum", cumsum);
  m.def("sort", sort);
}

void register_index(py::module_& m) {
  m.def("take", take);
  m.def("check_positions", [](const Tensor& index, int64_t low, int64_t high) {
    const OpScope scope("index");
    check_index(index, low, high, "positions");
  });
  m.def("gather", gather);
  m.def("scatter_add", scatter_add);
  m.def("embedding", embedding);
  m.def("nonzero", nonzero);
  m.def("put", put);
}

void register_layers(py::module_& m) {
  m.def("matmul", matmul);
  m.def("linear", [](const Tensor& x, const Tensor& weight, const MaybeTensor& bias,
                     const std::optional<std::string>& activation) {
    return linear(x, weight, or_none(bias), parse_activation("linear", activation));
  });
  m.def("conv2d", [](const Tensor& x, const Tensor& weight, const MaybeTensor& bias, std::pair<int64_t, int64_t> stride,
                     const py::object& padding, std::pair<int64_t, int64_t> dilation, int64_t groups,
                     const std::optional<std::string>& activation) {
    return conv2d("conv2d", x, weight, or_none(bias), conv_options("conv2d", stride, padding, dilation, groups, activation));
  });
  m.def("conv1d", [](const Tensor& x, const Tensor& weight, const MaybeTensor& bias, int64_t stride,
                     const py::object& padding, int64_t dilation, int64_t groups,
                     const std::optional<std::string>& activation) {
    return conv1d(x, weight, or_none(bias),
                  conv_options("conv1d", {1, stride}, padding.is_none() ? padding : py::make_tuple(0, padding), {1, dilation},
                               groups, activation));
  });
  m.def("conv_transpose2d", [](const Tensor& x, const Tensor& weight, const MaybeTensor& bias,
                               std::pair<int64_t, int64_t> stride, const py::object& padding,
                               std::pair<int64_t, int64_t> output_padding, int64_t groups,
                               std::pair<int64_t, int64_t> dilation, const std::optional<std::string>& activation) {
    const char* const op = "conv_transpose2d";
    Conv2dOptions o = conv_options(op, stride, padding, dilation, groups, activation);
    o.output_padding[0] = output_padding.first;
    o.output_padding[1] = output_padding.second;
    return conv_transpose2d(op, x, weight, or_none(bias), o);
  });
  m.def("conv_transpose1d", [](const Tensor& x, const Tensor& weight, const MaybeTensor& bias, int64_t stride, int64_t padding,
                               int64_t output_padding, int64_t groups, int64_t dilation,
                               const std::optional<std::string>& activation) {
    Conv2dOptions o =
        conv_options("conv_transpose1d", {1, stride}, py::make_tuple(0, padding), {1, dilation}, groups, activation);
    o.output_padding[1] = output_padding;
    return conv_transpose1d(x, weight, or_none(bias), o);
  });
  m.def("max_pool2d", [](const Tensor& x, std::pair<int64_t, int64_t> kernel, std::pair<int64_t, int64_t> stride,
                         std::pair<int64_t, int64_t> padding) {
    return max_pool2d(x, pool_options(kernel, stride, padding, true));
  });
  m.def("avg_pool2d", [](const Tensor& x, std::pair<int64_t, int64_t> kernel, std::pair<int64_t, int64_t> stride,
                         std::pair<int64_t, int64_t> padding, bool count_include_pad) {
    return avg_pool2d(x, pool_options(kernel, stride, padding, count_include_pad));
  });
  m.def("adaptive_pool2d", adaptive_pool2d);
  m.def("batch_norm", [](const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& running_mean,
                         const Tensor& running_var, bool training, double momentum, double eps,
                         const MaybeTensor& residual, const std::optional<std::string>& activation,
                         std::optional<std::pair<int64_t, int64_t>> max_pool) {
    std::optional<Pool2dOptions> pool;
    if (max_pool) pool = pool_options(*max_pool, *max_pool, {0, 0}, true);
    return batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps, or_none(residual),
                      parse_activation("batch_norm", activation), pool);
  });
  m.def("layer_norm", [](const Tensor& x, const MaybeTensor& weight, const MaybeTensor& bias, double eps) {
    return layer_norm(x, or_none(weight), or_none(bias), eps);
  });
  m.def("add_layer_norm", [](const Tensor& x, const Tensor& residual, const MaybeTensor& weight, const MaybeTensor& bias,
                             double eps) { return add_layer_norm(x, residual, or_none(weight), or_none(bias), eps); });
  m.def("rms_norm", [](const Tensor& x, const MaybeTensor& weight, double eps) { return rms_norm(x, or_none(weight), eps); });
  m.def("add_rms_norm", [](const Tensor& x, const Tensor& residual, const MaybeTensor& weight, double eps) {
    return add_rms_norm(x, residual, or_none(weight), eps);
  });
  m.def("group_norm", [](const Tensor& x, int64_t groups, const MaybeTensor& weight, const MaybeTensor& bias, double eps) {
    return group_norm(x, groups, or_none(weight), or_none(bias), eps);
  });
  m.def("softmax", softmax);
  m.def("attention", [](const Tensor& q, const Tensor& k, const Tensor& v, const MaybeTensor& mask, const MaybeTensor& lengths,
                        bool causal, std::optional<double> scale) {
    return attention(q, k, v, or_none(mask), or_none(lengths), {causal, scale});
  });
  m.def("attention_packed", [](const Tensor& qkv, int64_t heads, int64_t kv_heads, const MaybeTensor& mask,
                               const MaybeTensor& lengths, bool causal, std::optional<double> scale) {
    return attention_packed(qkv, heads, kv_heads, or_none(mask), or_none(lengths), {causal, scale});
  });
  m.def("dropout", dropout);
}

void register_losses(py::module_& m) {
  m.def("cross_entropy", [](const Tensor& logits, const Tensor& labels, const MaybeTensor& weight,
                            double label_smoothing, int64_t ignore_index, const std::string& reduction) {
    return cross_entropy(logits, labels, or_none(weight), label_smoothing, ignore_index, parse_reduction(reduction));
  });
  const auto pointwise = [&](const char* name, LossOp op) {
    m.def(name, [op](const Tensor& x, const Tensor& target, const MaybeTensor& pos_weight, double delta,
                     const std::string& reduction) {
      return pointwise_loss(op, x, target, or_none(pos_weight), delta, parse_reduction(reduction));
    });
  };
  pointwise("mse_loss", LossOp::mse);
  pointwise("l1_loss", LossOp::l1);
  pointwise("huber_loss", LossOp::huber);
  pointwise("binary_cross_entropy_with_logits", LossOp::bce_with_logits);
}

void register_random(py::module_& m) {
  m.def("manual_seed", manual_seed);
  m.def("generator_state", [] {
    const GeneratorState s = generator_state();
    return std::pair(s.seed, s.offset);
  });
  m.def("set_generator_state", [](uint64_t seed, uint64_t offset) { set_generator_state({seed, offset}); });
  m.def("advance_generator", advance_generator);
  m.def("random_uniform", [](const Shape& shape, double low, double high, DTypeArg dtype, const std::string& device) {
    return random(shape, RandomKind::uniform, scalar(low), scalar(high), dtype.value, parse_device(device));
  });
  m.def("random_normal", [](const Shape& shape, double mean, double std, DTypeArg dtype, const std::string& device) {
    return random(shape, RandomKind::normal, scalar(mean), scalar(std), dtype.value, parse_device(device));
  });
  m.def("random_integers", [](const Shape& shape, int64_t low, int64_t high, const std::string& device) {
    return random(shape, RandomKind::integers, {static_cast<double>(low), low}, {static_cast<double>(high), high},
                  DType::int64, parse_device(device));
  });
  m.def("random_bits", [](const Shape& shape) {
    return random(shape, RandomKind::bits, {}, {}, DType::int64, Device{});
  });
}

}  // namespace

void register_functions(py::module_& m) {
  register_shape(m);
  register_elementwise(m);
  register_reduce(m);
  register_index(m);
  register_layers(m);
  register_losses(m);
  register_random(m);
}

}  // namespace smelt::bindings
