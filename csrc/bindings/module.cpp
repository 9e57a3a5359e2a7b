#include "bindings/common.h"

PYBIND11_MODULE(_core, m) {
  using namespace smelt::bindings;
  m.doc() = "The compiled core of smelt. Not part of the public interface: use the names of the package smelt.";
  register_runtime(m);
  register_kernels(m);
  register_tensor(m);
  register_functions(m);
  register_autograd(m);
  register_optimizer(m);
  register_plan(m);
}
