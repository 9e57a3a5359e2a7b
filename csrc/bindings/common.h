// Conversions between Python and the core, shared by all binding files.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "core/error.h"
#include "core/launch.h"
#include "core/tensor.h"
#include "ops/ops.h"

PYBIND11_DECLARE_HOLDER_TYPE(T, smelt::Ref<T>, true)

namespace smelt::bindings {

namespace py = pybind11;

constexpr const char* kHostWrite = "it makes a tensor from values on the host, instead of taking it as an argument";

// "float32", "fp32", smelt.float32, numpy.float32, float ...
struct DTypeArg {
  DType value;
};
DType parse_dtype(py::handle object);

// A tensor, a NumPy array (shared where possible), a number or a nested list.
Tensor to_tensor(py::handle object);
// A Python or NumPy number, unless it is none.
std::optional<Number> as_number(py::handle object);
// An op on a tensor and the number that `object` is.
Tensor binary_number(BinaryOp op, const Tensor& x, py::handle object, const Number& number, bool number_first);
// With `reading`, memory that nobody writes through the tensor may be read-only.
Tensor from_array(const py::array& array, const char* op, std::optional<bool> copy, bool reading = false);

Activation parse_activation(const char* op, const std::optional<std::string>& name);
Reduction parse_reduction(const std::string& name);

void register_tensor(py::module_& m);
void register_indexing(py::class_<TensorImpl, Ref<TensorImpl>>& c);
void register_functions(py::module_& m);
void register_autograd(py::module_& m);
void register_optimizer(py::module_& m);
void register_runtime(py::module_& m);
void register_kernels(py::module_& m);
void register_plan(py::module_& m);

}  // namespace smelt::bindings

namespace pybind11::detail {

template <>
struct type_caster<smelt::Tensor> {
  PYBIND11_TYPE_CASTER(smelt::Tensor, const_name("Tensor"));
  bool load(handle source, bool convert) {
    if (convert && isinstance<array>(source)) {  // a NumPy array goes where a tensor goes, and shares its memory
      value = smelt::bindings::from_array(reinterpret_borrow<array>(source), "tensor", {});
      return true;
    }
    type_caster_base<smelt::TensorImpl> caster;
    if (source.is_none() || !caster.load(source, false)) return false;
    value = smelt::Tensor(smelt::Ref<smelt::TensorImpl>(static_cast<smelt::TensorImpl*>(caster)));
    return true;
  }
  static handle cast(const smelt::Tensor& t, return_value_policy policy, handle parent) {
    if (!t) return none().release();
    return make_caster<smelt::Ref<smelt::TensorImpl>>::cast(t.ref(), policy, parent);
  }
};

template <>
struct type_caster<smelt::bindings::DTypeArg> {
  PYBIND11_TYPE_CASTER(smelt::bindings::DTypeArg, const_name("DTypeLike"));
  bool load(handle source, bool) {
    if (source.is_none()) return false;
    value.value = smelt::bindings::parse_dtype(source);
    return true;
  }
};

template <>
struct type_caster<smelt::Shape> {
  PYBIND11_TYPE_CASTER(smelt::Shape, io_name("Sequence[int]", "tuple[int, ...]"));
  bool load(handle source, bool) {
    if (!isinstance<sequence>(source) || isinstance<str>(source)) return false;
    smelt::Shape shape;
    for (handle extent : reinterpret_borrow<sequence>(source)) shape.push_back(extent.cast<int64_t>());
    value = shape;
    return true;
  }
  static handle cast(const smelt::Shape& shape, return_value_policy, handle) {
    tuple t(shape.rank());
    for (int i = 0; i < shape.rank(); ++i) t[i] = int_(shape[i]);
    return t.release();
  }
};

}  // namespace pybind11::detail
