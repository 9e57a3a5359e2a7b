// x[...] with integers, slices, None and ...; masks and index arrays are compositions in smelt/_indexing.py.
#include "bindings/common.h"
#include "tape/node.h"

namespace smelt::bindings {
namespace {

struct Basic {
  std::vector<SliceAxis> axes;   // one for each axis of x
  std::vector<int64_t> result;   // shape after dropping integers and adding None
};

bool is_integer(py::handle item) {
  if (PyBool_Check(item.ptr())) return false;
  if (PyLong_Check(item.ptr())) return true;
  // NumPy's bool, which older versions take for a number with a warning.
  static const py::object numpy_bool = py::module_::import("numpy").attr("bool_");
  if (py::isinstance(item, numpy_bool)) return false;
  return PyIndex_Check(item.ptr()) && !py::isinstance<TensorImpl>(item) && !py::isinstance<py::array>(item);
}

// None when the key holds a mask, an array or a list.
std::optional<Basic> parse_basic(const Tensor& x, const py::handle& key) {
  const py::tuple items = py::isinstance<py::tuple>(key) ? py::reinterpret_borrow<py::tuple>(key) : py::make_tuple(key);
  int used = 0, ellipses = 0;
  for (py::handle item : items) {
    if (item.is_none()) continue;
    if (item.ptr() == Py_Ellipsis)
      ++ellipses;
    else if (is_integer(item) || PySlice_Check(item.ptr()))
      ++used;
    else
      return std::nullopt;
  }
  const int rank = x.rank();
  if (used > rank)
    fail(ErrorKind::index, "index", "at most ", rank, " indices for shape ", x.shape(), ", got ", used);
  if (ellipses > 1) fail(ErrorKind::index, "index", "only one ... is allowed");
  Basic out;
  const auto whole = [&](int count) {
    for (int i = 0; i < count; ++i) {
      const int64_t n = x.shape()[static_cast<int>(out.axes.size())];
      out.axes.push_back({0, n, 1});
      out.result.push_back(n);
    }
  };
  for (py::handle item : items) {
    if (item.is_none()) {
      out.result.push_back(1);
      continue;
    }
    if (item.ptr() == Py_Ellipsis) {
      whole(rank - used);
      continue;
    }
    const int axis = static_cast<int>(out.axes.size());
    const int64_t n = x.shape()[axis];
    if (PySlice_Check(item.ptr())) {
      Py_ssize_t start, stop, step;
      if (PySlice_Unpack(item.ptr(), &start, &stop, &step) < 0) throw py::error_already_set();
      const int64_t length = PySlice_AdjustIndices(n, &start, &stop, step);
      out.axes.push_back({length ? start : 0, length, step});
      out.result.push_back(length);
    } else {
      const Py_ssize_t i = PyNumber_AsSsize_t(item.ptr(), PyExc_IndexError);
      if (i == -1 && PyErr_Occurred()) throw py::error_already_set();
      if (i < -n || i >= n)
        fail(ErrorKind::index, "index", "must be in [", -n, ", ", n, ") for axis ", axis, " of shape ", x.shape(), ", got ", i);
      out.axes.push_back({i < 0 ? i + n : i, 1, 1});
    }
  }
  whole(rank - static_cast<int>(out.axes.size()));
  return out;
}

py::object advanced(const char* function) { return py::module_::import("smelt._indexing").attr(function); }

py::object get_item(const Tensor& x, const py::object& key) {
  const auto basic = parse_basic(x, key);
  if (!basic) return advanced("get_item")(x, key);
  const Tensor part = slice(x, basic->axes);
  const Shape wanted(basic->result.data(), static_cast<int>(basic->result.size()));
  return py::cast(part.shape() == wanted ? part : reshape(part, basic->result));
}

// A number or list goes to the tensor's dtype at once: by way of float32 a float64 tensor would get a rounded value. What is no
// tensor goes to its device too.
Tensor value_for(const Tensor& x, py::handle value) {
  if (const auto number = as_number(value); number && is_floating(x.dtype()) && !number->huge)
    return full(Shape{}, number->value, x.dtype(), x.device());
  if (py::isinstance<py::sequence>(value) && !py::isinstance<TensorImpl>(value) && !py::isinstance<py::array>(value))
    return to_device(py::module_::import("smelt._tensor").attr("tensor")(value, x.dtype()).cast<Tensor>(), x.device());
  const Tensor v = cast(to_tensor(value), x.dtype());
  return py::isinstance<TensorImpl>(value) ? v : to_device(v, x.device());
}

void set_item(const Tensor& x, const py::object& key, const py::object& value) {
  const auto basic = parse_basic(x, key);
  if (!basic) {
    advanced("set_item")(x, key, value);
    return;
  }
  check_writable("assign", x);
  std::vector<int64_t> part;
  for (const SliceAxis& a : basic->axes) part.push_back(a.length);
  NoGrad no_grad;
  const Shape wanted(basic->result.data(), static_cast<int>(basic->result.size()));
  const Tensor v = expand(dense(value_for(x, value)), wanted);
  assign_slice(x, basic->axes, reshape(v, part));
}

}  // namespace

void register_indexing(py::class_<TensorImpl, Ref<TensorImpl>>& c) {
  c.def("__getitem__", get_item);
  c.def("__setitem__", set_item);
}

}  // namespace smelt::bindings
