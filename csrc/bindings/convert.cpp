// Names, numbers and arrays on their way into the core.
#include <cmath>
#include <limits>

#include "bindings/common.h"

namespace smelt::bindings {
namespace {

struct DTypeName {
  const char* name;
  DType dtype;
};
constexpr DTypeName kDTypeNames[] = {
    {"float32", DType::float32},   {"fp32", DType::float32},     {"float", DType::float32},
    {"float64", DType::float64},   {"fp64", DType::float64},     {"double", DType::float64},
    {"bfloat16", DType::bfloat16}, {"bf16", DType::bfloat16},    {"float16", DType::float16},
    {"fp16", DType::float16},      {"half", DType::float16},     {"int64", DType::int64},
    {"int", DType::int64},         {"int32", DType::int32},      {"uint8", DType::uint8},
    {"bool", DType::bool_},
};

const DType* find_dtype(const std::string& name) {
  for (const DTypeName& entry : kDTypeNames)
    if (name == entry.name) return &entry.dtype;
  return nullptr;
}

// Integers that have no dtype here widen to one that holds them.
DType dtype_of_array(const py::array& array, const char* op, bool* widens) {
  const std::string name = py::str(array.dtype().attr("name"));
  *widens = false;
  if (const DType* dtype = find_dtype(name)) return *dtype;
  *widens = true;
  if (name == "int8" || name == "int16" || name == "uint16") return DType::int32;
  if (name == "uint32") return DType::int64;
  fail(ErrorKind::type, op, "dtype must be one of float32, float64, float16, bfloat16, int64, int32, uint8, bool, got ",
       name);
}

}  // namespace

DType parse_dtype(py::handle object) {
  if (py::isinstance<DType>(object)) return object.cast<DType>();
  if (object.is(py::handle(reinterpret_cast<PyObject*>(&PyFloat_Type)))) return DType::float32;
  if (object.is(py::handle(reinterpret_cast<PyObject*>(&PyLong_Type)))) return DType::int64;
  if (object.is(py::handle(reinterpret_cast<PyObject*>(&PyBool_Type)))) return DType::bool_;
  std::string name;
  if (py::isinstance<py::str>(object))
    name = object.cast<std::string>();
  else if (py::hasattr(object, "name"))  // numpy.dtype
    name = py::str(object.attr("name"));
  else if (py::hasattr(object, "__name__"))  // numpy.float32
    name = py::str(object.attr("__name__"));
  if (name == "bool_") name = "bool";
  if (const DType* dtype = find_dtype(name)) return *dtype;
  fail(ErrorKind::type, "dtype", "must be one of float32, float64, bfloat16, float16, int64, int32, uint8, bool, got ",
       std::string(py::repr(object)));
}

std::optional<Number> as_number(py::handle object) {
  PyObject* const p = object.ptr();
  if (PyBool_Check(p)) return Number{{p == Py_True ? 1.0 : 0.0, p == Py_True}, Number::boolean};
  if (PyLong_Check(p)) {
    int overflow = 0;
    const int64_t v = PyLong_AsLongLongAndOverflow(p, &overflow);
    if (overflow) {
      double f = PyLong_AsDouble(p);
      if (PyErr_Occurred()) {
        PyErr_Clear();
        f = overflow * std::numeric_limits<double>::infinity();
      }
      return Number{{f, overflow > 0 ? INT64_MAX : INT64_MIN}, Number::integer, true};
    }
    return Number{{static_cast<double>(v), v}, Number::integer};
  }
  if (PyFloat_Check(p)) {
    const double d = PyFloat_AS_DOUBLE(p);
    return Number{{d, std::fabs(d) < 9e18 ? static_cast<int64_t>(d) : 0}, Number::floating};
  }
  static const py::object numpy_scalar = py::module_::import("numpy").attr("generic");
  if (!py::isinstance(object, numpy_scalar)) return std::nullopt;
  return as_number(object.attr("item")());
}

Tensor binary_number(BinaryOp op, const Tensor& x, py::handle object, const Number& number, bool number_first) {
  require(!number.huge || is_floating(x.dtype()) || op >= BinaryOp::eq, op_name(op), "the number ",
          std::string(py::str(object)), " does not fit ", x.dtype());
  return binary(op, x, number, number_first);
}

Tensor from_array(const py::array& array, const char* op, std::optional<bool> copy, bool reading) {
  bool widens = false;
  const DType dtype = dtype_of_array(array, op, &widens);
  Shape shape;
  for (py::ssize_t i = 0; i < array.ndim(); ++i) shape.push_back(array.shape(i));
  const int flags = array.flags();
  const bool row_major = flags & py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_;
  const bool aligned = flags & py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  const bool writable = flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
  const bool native = array.dtype().attr("isnative").cast<bool>();
  const bool shareable = row_major && aligned && (writable || reading) && native && !widens;
  if (!shareable && copy == false) {
    const char* const why = widens ? "a supported dtype" : !row_major ? "row-major order" : !native ? "native byte order"
                            : !aligned ? "aligned memory" : "writable memory";
    fail(ErrorKind::value, op, "sharing memory needs ", why, "; pass copy=True or leave copy out");
  }
  if (shareable && copy != true) {
    // The reference is dropped with the interpreter's lock held, wherever the last tensor goes.
    auto* owner = new py::object(array);
    auto storage = Storage::wrap(const_cast<void*>(array.data()), static_cast<size_t>(array.nbytes()), Device{}, [owner] {
      if (!Py_IsInitialized()) return;
      py::gil_scoped_acquire lock;
      delete owner;
    });
    return Tensor(make_ref<TensorImpl>(storage, 0, shape, dtype));
  }
  py::array dense = array;
  if (widens) dense = dense.attr("astype")(dtype_name(dtype));
  dense = py::module_::import("numpy").attr("ascontiguousarray")(dense, dense.dtype().attr("newbyteorder")("="));
  Tensor t = empty(shape, dtype, Device{});
  recording::refuse(kHostWrite);
  if (t.nbytes() && t.data() && !recording::walking()) std::memcpy(t.data(), dense.data(), static_cast<size_t>(t.nbytes()));
  return t;
}

Tensor to_tensor(py::handle object) {
  if (py::isinstance<TensorImpl>(object)) return object.cast<Tensor>();
  if (py::isinstance<py::array>(object)) return from_array(py::reinterpret_borrow<py::array>(object), "tensor", {});
  if (const auto number = as_number(object)) {
    require(!number->huge, "tensor", "integers must fit 64 bits, got ", std::string(py::str(object)));
    const DType dtype = number->kind == Number::floating  ? DType::float32
                        : number->kind == Number::integer ? DType::int64
                                                          : DType::bool_;
    return full(Shape{}, number->value, dtype, Device{});
  }
  return py::module_::import("smelt._tensor").attr("tensor")(object).cast<Tensor>();
}

Activation parse_activation(const char* op, const std::optional<std::string>& name) {
  if (!name) return Activation::none;
  constexpr std::pair<const char*, Activation> kNames[] = {
      {"relu", Activation::relu}, {"tanh", Activation::tanh},           {"sigmoid", Activation::sigmoid},
      {"gelu", Activation::gelu}, {"gelu_tanh", Activation::gelu_tanh}, {"silu", Activation::silu}};
  for (const auto& [known, value] : kNames)
    if (*name == known) return value;
  fail(ErrorKind::value, op, "activation must be None, 'relu', 'tanh', 'sigmoid', 'gelu', 'gelu_tanh' or 'silu', got '",
       *name, "'");
}

Reduction parse_reduction(const std::string& name) {
  if (name == "mean") return Reduction::mean;
  if (name == "sum") return Reduction::sum;
  if (name == "none") return Reduction::none;
  fail(ErrorKind::value, "reduction", "must be 'mean', 'sum' or 'none', got '", name, "'");
}

}  // namespace smelt::bindings
