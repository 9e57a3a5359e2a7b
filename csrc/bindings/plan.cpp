// Recorded steps; smelt/recorded.py gives them their public face.
#include "bindings/common.h"
#include "core/thread_pool.h"
#include "ops/autocast.h"
#include "plan/plan.h"
#include "tape/node.h"

namespace smelt::bindings {

void register_plan(py::module_& m) {
  py::class_<RecordedStep, std::shared_ptr<RecordedStep>>(m, "RecordedStep")
      .def_readonly("refusal", &RecordedStep::refusal)
      .def("makes",  // whether an output is memory of the step itself
           [](const RecordedStep& step, size_t output) { return step.outputs.at(output).place.kind() == Place::Kind::block; })
      .def("difference", &RecordedStep::difference)
      .def("same_start", &RecordedStep::same_start);

  py::class_<Recorder>(m, "Recorder")
      .def(py::init<std::vector<Tensor>, bool>(), py::arg("inputs"), py::arg("walk"))
      .def("inputs", &Recorder::inputs)
      .def("pause", &Recorder::pause)
      .def("resume", &Recorder::resume)
      .def("cut", &Recorder::cut)
      .def("finish", [](Recorder& r, const std::vector<Tensor>& outputs) {
        return std::make_shared<RecordedStep>(r.finish(outputs));
      });

  py::class_<Arena, Ref<Arena>>(m, "Arena")
      .def(py::init([] { return make_ref<Arena>(); }))
      .def("leave", &Arena::leave)
      .def("settle", &Arena::settle);

  py::class_<Plan, Ref<Plan>>(m, "Plan")
      .def(py::init([](const RecordedStep& step, const Ref<Arena>& arena) { return make_ref<Plan>(step, arena); }))
      .def("ready", &Plan::ready)
      .def("replay", [](Plan& p, size_t part, const py::list& inputs) {
        thread_local std::vector<Tensor> tensors;  // keeps its memory: a replay allocates nothing
        for (const py::handle x : inputs) tensors.push_back(x.cast<Tensor>());
        struct Clear {
          ~Clear() { tensors.clear(); }
        } clear;
        p.replay(part, tensors);
      })
      .def("undo", &Plan::undo)
      .def("prepare", &Plan::prepare, py::arg("count") = 1000000)
      .def("outputs", &Plan::outputs)
      .def("copy_outputs", &Plan::copy_outputs)
      .def("views", &Plan::views)
      .def("difference", [](const Plan& p, const RecordedStep& step) { return p.step().difference(step); })
      .def("same_start", [](const Plan& p, const RecordedStep& step) { return p.step().same_start(step); })
      .def("memory", &Plan::memory)
      .def("kernels", &Plan::kernels)
      .def("graphs", &Plan::graphs)
      // (offset, bytes, first call, last call) of each piece of its memory.
      .def("blocks", [](const Plan& p) {
        std::vector<std::tuple<size_t, size_t, size_t, size_t>> out;
        for (const PlacedBlock& b : p.blocks()) out.emplace_back(b.offset, b.bytes, b.first, b.last);
        return out;
      });

  // What a step depends on besides its arguments and what it closes over.
  m.def("step_environment", [] {
    return py::make_tuple(grad_enabled(), static_cast<int>(autocast_dtype()), forced_impl(), static_cast<int>(max_isa()),
                          num_threads(), tf32());
  });
  m.def("dense", dense);
  m.def("on_tape", [](const Tensor& x) {
    const Ref<Node>& node = x.impl()->grad_fn;
    return node ? !node->freed : x.impl()->requires_grad;
  });
  m.def("recording", [] { return recording::current() != nullptr; });
  m.def("refuse_recording", recording::refuse);
  m.def("layout_generation", recording::layout_generation);
  m.def("changes", recording::changes);
  m.def("note_change", recording::note_change);
  // A tensor for a walk: a shape, and an address with nothing behind it.
  m.def("placeholder", [](const Shape& shape, DTypeArg dtype, const std::string& device) {
    const auto bytes = static_cast<size_t>(shape.numel() * dtype_size(dtype.value));
    return Tensor(make_ref<TensorImpl>(Storage::placeholder(bytes, parse_device(device)), 0, shape, dtype.value));
  });
  m.def("use_graphs", use_graphs);
  m.def("set_use_graphs", set_use_graphs);
}

}  // namespace smelt::bindings
