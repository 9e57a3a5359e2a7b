// The tape seen from Python: backward, grad, hooks, no_grad, autocast and smelt.Function.
#include "bindings/common.h"
#include "ops/autocast.h"
#include "tape/node.h"

namespace smelt::bindings {
namespace {

// A Python object that code without the interpreter's lock may copy and drop.
std::shared_ptr<py::object> guarded(py::object object) {
  return {new py::object(std::move(object)), [](py::object* p) {
            if (!Py_IsInitialized()) return;
            py::gil_scoped_acquire lock;
            delete p;
          }};
}

GradHook make_hook(py::object function) {
  return [held = guarded(std::move(function))](const Tensor& grad) {
    recording::refuse("a hook in Python runs in it");
    py::gil_scoped_acquire lock;
    const py::object result = (*held)(grad);
    if (result.is_none()) return Tensor();
    const Tensor replaced = result.cast<Tensor>();
    require(replaced.shape() == grad.shape() && replaced.dtype() == grad.dtype(), "hook",
            "the gradient that it returns must have shape ", grad.shape(), " and dtype ", grad.dtype(), ", got ",
            replaced.shape(), " and ", replaced.dtype());
    return replaced;
  };
}

// An op whose backward is a Python function: gradients of the outputs in, a sequence of gradients of the inputs out.
struct PythonNode final : Node {
  PythonNode(std::string label, py::object function)
      : Node("Function"), name(std::move(label)), callback(guarded(std::move(function))) {
    op = name.c_str();
  }
  void backward(GradContext& g) override {
    py::gil_scoped_acquire lock;
    if (!callback) fail(ErrorKind::runtime, op, "was already freed");
    py::tuple dys(outputs.size());
    for (size_t i = 0; i < outputs.size(); ++i) dys[i] = py::cast(g.dy(static_cast<int>(i)));
    const py::sequence result = (*callback)(dys);
    require(result.size() == inputs.size(), op, "backward must return ", inputs.size(), " gradients, got ",
            result.size());
    for (size_t i = 0; i < inputs.size(); ++i) {
      const int input = static_cast<int>(i);
      const py::object item = result[i];
      if (!g.needs(input) || item.is_none()) continue;
      const Tensor grad = item.cast<Tensor>();
      require(grad.shape() == g.input_shape(input), op, "gradient ", i, " must have shape ", g.input_shape(input),
              ", got ", grad.shape());
      g.give(input, cast(grad, g.input_dtype(input)));
    }
  }
  void free_saved() override { callback.reset(); }

  std::string name;
  std::shared_ptr<py::object> callback;
};

// `outputs` become outputs of one node over `inputs` (none where there is no gradient).
std::vector<Tensor> record_function(const std::string& name, const std::vector<std::optional<Tensor>>& inputs,
                                    const std::vector<Tensor>& outputs, py::object callback) {
  recording::refuse("it calls a smelt.Function, which is Python");
  std::vector<Tensor> in, out;
  bool any = false;
  for (const auto& x : inputs) {
    in.push_back(x.value_or(Tensor()));
    any = any || (x && x->requires_grad());
  }
  for (const Tensor& y : outputs) out.push_back(alias(dense(y)));  // an input handed through keeps its own history
  if (any && grad_enabled()) attach(make_ref<PythonNode>(name, std::move(callback)), in, out);
  return out;
}

}  // namespace

void register_autograd(py::module_& m) {
  static InterpreterLock& lock = interpreter_lock();
  lock.release = []() -> void* { return PyGILState_Check() ? PyEval_SaveThread() : nullptr; };
  lock.acquire = [](void* state) { PyEval_RestoreThread(static_cast<PyThreadState*>(state)); };
  lock.check_signals = [] {
    const py::gil_scoped_acquire held;
    if (PyErr_CheckSignals()) throw py::error_already_set();
  };

  m.def("grad_enabled", grad_enabled);
  m.def("set_grad_enabled", set_grad_enabled);
  m.def("backward", [](const Tensor& root, const std::optional<Tensor>& grad, bool retain_graph) {
    backward(root, grad.value_or(Tensor()), retain_graph);
  });
  m.def("record_function", record_function);
  m.def("autocast_dtype", autocast_dtype);
  m.def("set_autocast_dtype", [](DTypeArg dtype) { set_autocast_dtype(dtype.value); });
  py::dict policies;
  for (const OpPolicy& p : kPolicies) policies[py::str(std::string(p.op))] = p.policy == Policy::low ? "low" : "float32";
  m.attr("AUTOCAST") = policies;

  auto c = py::class_<TensorImpl, Ref<TensorImpl>>(m.attr("Tensor"));
  c.def_property(
      "requires_grad", [](const Tensor& x) { return x.requires_grad(); },
      [](const Tensor& x, bool on) {
        if (x.impl()->grad_fn) {
          require(on, "requires_grad", "an intermediate result always requires a gradient; use x.detach()");
          return;
        }
        require_type(!on || is_floating(x.dtype()), "requires_grad", "needs a floating dtype, got ", x.dtype());
        if (x.impl()->requires_grad != on && x.storage().recorded()) recording::change_layout();
        x.impl()->requires_grad = on;
      });
  c.def_property(
      "grad", [](const Tensor& x) { return visible_grad(x); },
      [](const Tensor& x, const std::optional<Tensor>& grad) { set_grad(x, grad.value_or(Tensor())); });
  c.def_property_readonly("is_leaf", [](const Tensor& x) { return !x.impl()->grad_fn; });
  c.def_property_readonly("grad_fn", [](const Tensor& x) -> std::optional<std::string> {
    if (!x.impl()->grad_fn) return std::nullopt;
    return std::string(x.impl()->grad_fn->op);
  });
  c.def_property_readonly("_version", [](const Tensor& x) { return x.storage().version(); });
  c.def("_detach", [](const Tensor& x) { return alias(x); });
  c.def("_register_hook", [](const Tensor& x, py::object hook) { return register_hook(x, make_hook(std::move(hook))); });
  c.def("_remove_hook", remove_hook);
}

}  // namespace smelt::bindings
