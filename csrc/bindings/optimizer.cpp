// The flat-buffer optimizer; smelt/optim.py gives it its public face.
#include "bindings/common.h"
#include "ops/optimizer.h"

namespace smelt::bindings {

void register_optimizer(py::module_& m) {
  using Parameters = std::vector<std::pair<std::string, Tensor>>;
  py::class_<Optimizer, Ref<Optimizer>>(m, "Optimizer")
      .def(py::init([](const std::string& kind, bool momentum, bool nesterov) {
        const OptimizerKind k = kind == "sgd" ? OptimizerKind::sgd
                                : kind == "adam" ? OptimizerKind::adam
                                                 : OptimizerKind::adamw;
        return make_ref<Optimizer>(k, momentum, nesterov);
      }))
      .def("add_group", [](Optimizer& o, const Parameters& parameters) { o.add_group({}, parameters); })
      .def("set_group",
           [](Optimizer& o, int index, double lr, double weight_decay, double eps, double beta1, double beta2) {
             o.group(index) = {.lr = lr, .weight_decay = weight_decay, .eps = eps, .beta1 = beta1, .beta2 = beta2};
           })
      .def("release", &Optimizer::let_go)
      .def("step", [](Optimizer& o, double clip_norm, const std::optional<Tensor>& loss) { o.step(clip_norm, loss.value_or(Tensor())); },
           py::arg("clip_norm"), py::arg("loss") = py::none())
      .def("retract", &Optimizer::retract)
      .def("status", &Optimizer::status)
      .def_property_readonly("given_steps", &Optimizer::given_steps)
      .def("restore_if_failed", &Optimizer::restore_if_failed)
      .def("zero_grad", &Optimizer::zero_grad)
      .def("pack", &Optimizer::pack)
      .def("state",
           [](Optimizer& o, int index) {
             py::dict state;
             const auto names = o.state_names();
             for (size_t i = 0; i < names.size(); ++i) state[names[i]] = o.state(index, static_cast<int>(i));
             return state;
           })
      .def("parameter_name", &Optimizer::parameter_name)
      .def("parameter", &Optimizer::parameter)
      .def_property_readonly("parameter_count", &Optimizer::parameter_count)
      .def_property_readonly("layout_generation", &Optimizer::layout_generation)
      .def_property("steps", &Optimizer::steps, &Optimizer::set_steps)
      .def_property("skipped", &Optimizer::skipped, &Optimizer::set_skipped)
      .def_property_readonly("last_norm", &Optimizer::last_norm);
  m.def("pack_together", pack_together);
  m.def("packed_in", packed_in);
  m.def("raise_fault", [](int64_t ticket, int64_t position, int64_t value) { raise_fault({ticket, position, value}); });
}

}  // namespace smelt::bindings
