// The class Tensor: properties, NumPy, DLPack and operators. Methods that are compositions stand in smelt/_tensor.py.
#include "bindings/common.h"
#include "bindings/dlpack.h"
#include "tape/node.h"

namespace smelt::bindings {
namespace {

// Keeps the memory alive and counted while a view of it exists elsewhere.
void* hold(const Tensor& t) {
  t.storage().add_export();
  return new Ref<Storage>(t.impl()->storage);
}
void let_go(void* held) {
  auto* storage = static_cast<Ref<Storage>*>(held);
  (*storage)->drop_export();
  delete storage;
}

void check_readable(const Tensor& t) {
  recording::read_value();
  if (!t.data() && t.numel()) fail(ErrorKind::runtime, "check", "a value was read, tensors have none here");
}

// Shares memory where it can: off the tape, on the CPU and of a dtype that NumPy has; else a copy (float32 for bfloat16).
py::array to_numpy(const Tensor& source) {
  NoGrad no_grad;
  Tensor t = to_device(source.dtype() == DType::bfloat16 ? cast(source, DType::float32) : source, Device{});
  check_readable(t);
  const bool transposed = t.transposed();
  if (source.requires_grad() && &t.storage() == &source.storage()) t = copy(t);
  const int64_t size = dtype_size(t.dtype());
  std::vector<py::ssize_t> shape(t.shape().begin(), t.shape().end()), strides(t.rank());
  int64_t step = size;
  for (int i = t.rank() - 1; i >= 0; --i) {
    strides[i] = step;
    step *= shape[i];
  }
  if (transposed && t.transposed()) {
    strides[t.rank() - 2] = size;
    strides[t.rank() - 1] = size * shape[t.rank() - 2];
  }
  const py::capsule base(hold(t), let_go);
  return py::array(py::dtype(std::string(dtype_name(t.dtype()))), shape, strides, t.data(), base);
}

// ------------------------------------------------------------------------------------------------------------ DLPack

constexpr std::pair<DType, DLDataType> kDLTypes[] = {
    {DType::float32, {kDLFloat, 32, 1}}, {DType::float64, {kDLFloat, 64, 1}}, {DType::bfloat16, {kDLBfloat, 16, 1}},
    {DType::float16, {kDLFloat, 16, 1}}, {DType::int64, {kDLInt, 64, 1}},     {DType::int32, {kDLInt, 32, 1}},
    {DType::uint8, {kDLUInt, 8, 1}},     {DType::bool_, {kDLBool, 8, 1}}};

struct Exported {
  void* held;
  int64_t shape[kMaxRank], strides[kMaxRank];
};

template <class Managed>
void fill_managed(Managed* m, const Tensor& t) {
  auto* exported = new Exported{hold(t), {}, {}};
  int64_t step = 1;
  for (int i = t.rank() - 1; i >= 0; --i) {
    exported->shape[i] = t.shape()[i];
    exported->strides[i] = step;
    step *= t.shape()[i];
  }
  DLDataType type{};
  for (const auto& [dtype, dl] : kDLTypes)
    if (dtype == t.dtype()) type = dl;
  m->dl_tensor = {t.data(), {kDLCPU, 0}, t.rank(), type, exported->shape, exported->strides, 0};
  m->manager_ctx = exported;
  m->deleter = [](Managed* self) {
    auto* e = static_cast<Exported*>(self->manager_ctx);
    let_go(e->held);
    delete e;
    delete self;
  };
}

// A capsule that nobody consumed gives its tensor back.
template <class Managed>
py::capsule make_capsule(const char* name, Managed* managed) {
  return py::reinterpret_steal<py::capsule>(PyCapsule_New(managed, name, [](PyObject* capsule) {
    const char* own = PyCapsule_GetName(capsule);
    if (own && std::string(own).starts_with("used_")) return;
    auto* m = static_cast<Managed*>(PyCapsule_GetPointer(capsule, own));
    if (m && m->deleter) m->deleter(m);
  }));
}

py::object to_dlpack(const Tensor& source, const py::object& stream, const py::object& max_version,
                     const py::object& dl_device, const py::object& copy_wanted) {
  if (!stream.is_none()) throw py::value_error("__dlpack__: a CPU tensor has no stream, got " + std::string(py::str(stream)));
  if (!dl_device.is_none() && dl_device.cast<std::pair<int, int>>() != std::pair<int, int>(kDLCPU, 0))
    throw py::buffer_error("__dlpack__: the tensor is on the CPU, device (1, 0)");
  if (source.requires_grad())
    throw py::buffer_error("__dlpack__: a tensor that requires a gradient cannot be exported; use x.detach()");
  Tensor t = dense(source);
  check_readable(t);
  if (!copy_wanted.is_none() && copy_wanted.cast<bool>()) t = copy(t);
  if (!max_version.is_none() && max_version.cast<std::pair<int, int>>().first >= 1) {
    auto* m = new DLManagedTensorVersioned{};
    m->version = {1, 0};
    m->flags = 0;
    fill_managed(m, t);
    return make_capsule("dltensor_versioned", m);
  }
  auto* m = new DLManagedTensor{};
  fill_managed(m, t);
  return make_capsule("dltensor", m);
}

template <class Managed>
Tensor adopt(Managed* m, bool read_only, std::optional<bool> copy_wanted, bool reading) {
  const DLTensor& d = m->dl_tensor;
  const auto refuse = [&](const std::string& why) { fail(ErrorKind::buffer, "from_dlpack", why); };
  if (d.device.device_type != kDLCPU) refuse(cat("memory must be on the CPU, got device type ", d.device.device_type));
  std::optional<DType> dtype;
  for (const auto& [own, dl] : kDLTypes)
    if (dl.code == d.dtype.code && dl.bits == d.dtype.bits && d.dtype.lanes == 1) dtype = own;
  if (!dtype) refuse(cat("dtype is not supported, got code ", d.dtype.code, " with ", d.dtype.bits, " bits"));
  const Shape shape(d.shape, d.ndim);
  bool row_major = true;
  int64_t step = 1;
  for (int i = d.ndim - 1; i >= 0 && d.strides && shape.numel(); --i) {
    row_major = row_major && (shape[i] <= 1 || d.strides[i] == step);
    step *= shape[i];
  }
  char* data = static_cast<char*>(d.data) + d.byte_offset;
  const bool aligned = reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(dtype_size(*dtype)) == 0 || !shape.numel();
  const bool shareable = row_major && aligned && (reading || !read_only);
  if (!shareable && copy_wanted == false)
    refuse(cat(!row_major ? "the memory must be row-major"
               : !aligned ? cat("the memory must be aligned to ", dtype_size(*dtype), " bytes")
                          : "the memory is read-only",
               "; pass copy=True or leave copy out"));
  if (shareable && copy_wanted != true) {
    auto storage = Storage::wrap(data, static_cast<size_t>(shape.numel() * dtype_size(*dtype)), Device{}, [m] {
      if (!m->deleter || !Py_IsInitialized()) return;
      py::gil_scoped_acquire lock;
      m->deleter(m);
    });
    return Tensor(make_ref<TensorImpl>(storage, 0, shape, *dtype));
  }
  Tensor t = empty(shape, *dtype, Device{});
  const int64_t size = dtype_size(*dtype);
  recording::refuse(kHostWrite);
  for (int64_t i = 0; i < t.numel() && !recording::walking(); ++i) {
    int64_t offset = 0, rest = i, dense_step = t.numel();
    for (int axis = 0; axis < d.ndim; ++axis) {
      dense_step /= shape[axis];
      offset += rest / dense_step * (d.strides ? d.strides[axis] : dense_step);
      rest %= dense_step;
    }
    std::memcpy(t.data() + i * size, data + offset * size, static_cast<size_t>(size));
  }
  if (m->deleter) m->deleter(m);
  return t;
}

Tensor from_dlpack(const py::object& source, std::optional<bool> copy_wanted, bool reading) {
  py::object object = source;
  if (py::hasattr(source, "__dlpack__")) {
    try {
      object = source.attr("__dlpack__")(py::arg("max_version") = py::make_tuple(1, 0));
    } catch (py::error_already_set& error) {
      if (!error.matches(PyExc_TypeError)) throw;
      object = source.attr("__dlpack__")();  // an exporter from before version 1
    }
  }
  const auto take = [&]<class Managed>(const char* name, const char* used, Managed*) {
    auto* m = static_cast<Managed*>(PyCapsule_GetPointer(object.ptr(), name));
    bool read_only = false;
    if constexpr (requires { m->flags; }) read_only = m->flags & 1;
    Tensor t = adopt(m, read_only, copy_wanted, reading);
    PyCapsule_SetName(object.ptr(), used);
    return t;
  };
  if (PyCapsule_IsValid(object.ptr(), "dltensor_versioned"))
    return take("dltensor_versioned", "used_dltensor_versioned", static_cast<DLManagedTensorVersioned*>(nullptr));
  if (PyCapsule_IsValid(object.ptr(), "dltensor"))
    return take("dltensor", "used_dltensor", static_cast<DLManagedTensor*>(nullptr));
  fail(ErrorKind::type, "from_dlpack", "needs an object with __dlpack__, got ",
       std::string(py::str(py::type::of(source).attr("__name__"))));
}

// --------------------------------------------------------------------------------------------------------- operators

py::object not_implemented() { return py::reinterpret_borrow<py::object>(Py_NotImplemented); }

py::object operate(BinaryOp op, const Tensor& x, py::handle other, bool reversed) {
  if (py::isinstance<TensorImpl>(other)) {
    const Tensor y = other.cast<Tensor>();
    return py::cast(reversed ? binary(op, y, x) : binary(op, x, y));
  }
  if (const auto number = as_number(other)) return py::cast(binary_number(op, x, other, *number, reversed));
  if (!py::isinstance<py::array>(other)) return not_implemented();
  const Tensor y = from_array(py::reinterpret_borrow<py::array>(other), op_name(op), {});
  return py::cast(reversed ? binary(op, y, x) : binary(op, x, y));
}

// &, | and ^ are of bool tensors alone: on integers they would mean bits.
py::object operate_logical(BinaryOp op, const Tensor& x, py::handle other) {
  require_type(x.dtype() == DType::bool_, op_name(op), "needs bool tensors, got ", x.dtype());
  if (py::isinstance<TensorImpl>(other)) {
    const DType dtype = other.cast<Tensor>().dtype();
    require_type(dtype == DType::bool_, op_name(op), "needs bool tensors, got ", dtype);
  } else if (const auto number = as_number(other)) {
    require_type(number->kind == Number::boolean, op_name(op), "needs bool tensors, got ", std::string(py::repr(other)));
  } else if (py::isinstance<py::array>(other)) {
    const std::string dtype = py::str(other.attr("dtype"));
    require_type(dtype == "bool", op_name(op), "needs bool tensors, got ", dtype);
  }
  return operate(op, x, other, false);
}

void register_operators(py::class_<TensorImpl, Ref<TensorImpl>>& c) {
  const auto arithmetic = [&](const char* name, const char* reversed, BinaryOp op) {
    c.def(name, [op](const Tensor& x, py::handle y) { return operate(op, x, y, false); }, py::is_operator());
    c.def(reversed, [op](const Tensor& x, py::handle y) { return operate(op, x, y, true); }, py::is_operator());
  };
  arithmetic("__add__", "__radd__", BinaryOp::add);
  arithmetic("__sub__", "__rsub__", BinaryOp::sub);
  arithmetic("__mul__", "__rmul__", BinaryOp::mul);
  arithmetic("__truediv__", "__rtruediv__", BinaryOp::div);
  arithmetic("__floordiv__", "__rfloordiv__", BinaryOp::floor_div);
  arithmetic("__mod__", "__rmod__", BinaryOp::remainder);
  arithmetic("__pow__", "__rpow__", BinaryOp::pow);
  const auto comparison = [&](const char* name, BinaryOp op) {
    c.def(name, [op](const Tensor& x, py::handle y) { return operate(op, x, y, false); }, py::is_operator());
  };
  comparison("__eq__", BinaryOp::eq);
  comparison("__ne__", BinaryOp::ne);
  comparison("__lt__", BinaryOp::lt);
  comparison("__le__", BinaryOp::le);
  comparison("__gt__", BinaryOp::gt);
  comparison("__ge__", BinaryOp::ge);
  const auto logical = [&](const char* name, const char* reversed, BinaryOp op) {
    c.def(name, [op](const Tensor& x, py::handle y) { return operate_logical(op, x, y); }, py::is_operator());
    c.def(reversed, [op](const Tensor& x, py::handle y) { return operate_logical(op, x, y); }, py::is_operator());
  };
  logical("__and__", "__rand__", BinaryOp::logical_and);
  logical("__or__", "__ror__", BinaryOp::logical_or);
  logical("__xor__", "__rxor__", BinaryOp::logical_xor);
  c.def("__neg__", [](const Tensor& x) { return unary(UnaryOp::neg, x); });
  c.def("__abs__", [](const Tensor& x) { return unary(UnaryOp::abs, x); });
  c.def("__pos__", [](const Tensor& x) { return x; });
  c.def("__invert__", [](const Tensor& x) {
    require_type(x.dtype() == DType::bool_, "invert", "~ needs a bool tensor, got ", x.dtype());
    return unary(UnaryOp::logical_not, x);
  });
  c.def("__matmul__", [](const Tensor& x, py::handle y) { return matmul(x, to_tensor(y), false, false); });
  c.def("__rmatmul__", [](const Tensor& x, py::handle y) { return matmul(to_tensor(y), x, false, false); });
  c.def("__hash__", [](const Tensor& x) { return std::hash<void*>()(x.impl()); });
  c.attr("__array_ufunc__") = py::none();  // NumPy on the left leaves the operation to us
}

py::object number_of(const Tensor& x) {
  const Scalar s = item(x);
  if (is_floating(x.dtype())) return py::float_(s.f);
  if (x.dtype() == DType::bool_) return py::bool_(s.i != 0);
  return py::int_(s.i);
}

void register_dtype(py::module_& m) {
  auto dtype = py::class_<DType>(m, "DType", "An element type, such as smelt.float32.");
  dtype.def_property_readonly("name", [](DType d) { return dtype_name(d); })
      .def_property_readonly("itemsize", [](DType d) { return dtype_size(d); })
      .def_property_readonly("is_floating", [](DType d) { return is_floating(d); })
      .def("__repr__", [](DType d) { return std::string("smelt.") + dtype_name(d); })
      .def("__str__", [](DType d) { return dtype_name(d); })
      .def("__hash__", [](DType d) { return static_cast<int>(d); })
      .def("__eq__", [](DType d, py::handle other) {
        try {
          return !other.is_none() && parse_dtype(other) == d;
        } catch (const Error&) {
          return false;
        }
      });
  py::dict dtypes;
  for (int i = 0; i < kDTypeCount; ++i) {
    const DType d = static_cast<DType>(i);
    dtypes[dtype_name(d)] = d;
  }
  m.attr("dtypes") = dtypes;
  m.def("promote", [](DTypeArg a, DTypeArg b) { return promote(a.value, b.value); });
  m.def("parse_dtype", [](DTypeArg d) { return d.value; });
}

// For the package alone.
void register_internals(py::class_<TensorImpl, Ref<TensorImpl>>& c) {
  // The value of a parameter may be exchanged, its identity not: module.to() and loading work so.
  c.def("_set_data", [](const Tensor& x, const Tensor& value) {
    const Tensor v = dense(value);
    if (x.storage().recorded()) recording::change_layout();
    x.impl()->storage = v.impl()->storage;
    x.impl()->offset = v.impl()->offset;
    x.impl()->shape = v.shape();
    x.impl()->dtype = v.dtype();
  });
  c.def("_address", [](const Tensor& x) { return reinterpret_cast<uintptr_t>(x.data()); });
  c.def("_bytes", [](const Tensor& x) {
    const Tensor t = dense(x);
    check_readable(t);
    return py::bytes(t.data(), static_cast<size_t>(t.nbytes()));
  });
  c.def("_set_bytes", [](const Tensor& x, const py::bytes& raw) {
    const std::string_view view = raw;
    require(static_cast<int64_t>(view.size()) == x.nbytes(), "load", "the tensor has ", x.nbytes(), " bytes, got ",
            view.size());
    recording::refuse(kHostWrite);
    if (!view.empty()) std::memcpy(x.data(), view.data(), view.size());
  });
  c.def("_same_memory", [](const Tensor& x, const Tensor& y) { return x.data() == y.data(); });
}

}  // namespace

void register_tensor(py::module_& m) {
  register_dtype(m);
  py::class_<TensorImpl, Ref<TensorImpl>> c(m, "Tensor");
  c.def(py::init([](const Tensor& other) { return alias(other).ref(); }), py::arg("data"));
  c.def_property_readonly("shape", [](const Tensor& x) { return x.shape(); });
  c.def_property_readonly("dtype", [](const Tensor& x) { return x.dtype(); });
  c.def_property_readonly("device", [](const Tensor& x) { return text(x.device()); });
  c.def_property_readonly("ndim", [](const Tensor& x) { return x.rank(); });
  c.def_property_readonly("size", [](const Tensor& x) { return x.numel(); });
  c.def_property_readonly("nbytes", [](const Tensor& x) { return x.nbytes(); });
  c.def_property_readonly("itemsize", [](const Tensor& x) { return dtype_size(x.dtype()); });
  c.def_property_readonly("T", [](const Tensor& x) {
    if (x.rank() < 2) return x;
    if (x.rank() == 2) return swap_last(x);
    std::vector<int64_t> axes(x.rank());
    for (int i = 0; i < x.rank(); ++i) axes[i] = x.rank() - 1 - i;
    return permute(x, axes);
  });
  c.def("_numpy", to_numpy);
  c.def("item", number_of);
  c.def("__len__", [](const Tensor& x) {
    require_type(x.rank() > 0, "len", "a tensor of shape () has no length");
    return x.shape()[0];
  });
  c.def("__bool__", [](const Tensor& x) {
    require(x.numel() == 1, "bool", "the truth of more than one element is ambiguous; use x.any() or x.all(), got shape ",
            x.shape());
    const Scalar s = item(x);
    return s.f != 0 || s.i != 0;
  });
  c.def("__float__", [](const Tensor& x) { return item(x).f; });
  c.def("__int__", [](const Tensor& x) {
    return is_floating(x.dtype()) ? py::int_(number_of(x)) : py::int_(item(x).i);
  });
  c.def("__index__", [](const Tensor& x) {
    require_type(is_integral(x.dtype()), "index", "needs an integer tensor, got ", x.dtype());
    return item(x).i;
  });
  c.def("__dlpack__", to_dlpack, py::kw_only(), py::arg("stream") = py::none(), py::arg("max_version") = py::none(),
        py::arg("dl_device") = py::none(), py::arg("copy") = py::none());
  c.def("__dlpack_device__", [](const Tensor&) { return std::pair<int, int>(kDLCPU, 0); });
  c.def("__reduce__", [](const Tensor&) -> py::object {
    fail(ErrorKind::type, "pickle", "tensors are not pickled; use smelt.save, or x.numpy()");
  });
  register_operators(c);
  register_indexing(c);
  register_internals(c);

  m.def("from_numpy",
        [](const py::array& a, std::optional<bool> copy, bool reading) { return from_array(a, "from_numpy", copy, reading); },
        py::arg("array"), py::arg("copy") = py::none(), py::arg("reading") = false);
  m.def("from_dlpack", from_dlpack, py::arg("source"), py::arg("copy") = py::none(), py::arg("reading") = false);
  m.def("to_tensor", to_tensor);
}

}  // namespace smelt::bindings
