// The table of kernels: what there is, what is forced, what ran; calls of one kernel; candidates from outside.
#include <algorithm>
#include <array>
#include <utility>

#include "bindings/common.h"
#include "bindings/fields.h"
#include "core/profile.h"

namespace smelt::bindings {
namespace {

int slot_number(const std::string& name) {
  const int slot = find_slot(name);
  if (slot >= 0) return slot;
  std::string known;
  for (int i = 0; i < kSlotCount; ++i) known += (i ? ", " : "") + std::string(slot_info(i).name);
  fail(ErrorKind::value, "kernels", "no slot is named '", name, "'; there are ", known);
}

KernelTable& cpu_table() { return backend(DeviceKind::cpu).table; }

// Keeps the name of every kernel that the thread launched.
class Trace final : public LaunchObserver {
 public:
  void launched(int, const void*, Device, const Candidate& candidate) override { names.push_back(candidate.name); }
  std::vector<std::string> names;
};
thread_local Trace t_trace;
thread_local Profiler t_profiler;

void observe(LaunchObserver* observer) {
  if (launch_observer()) fail(ErrorKind::runtime, "kernels", "a trace or a profile of this thread is already running");
  launch_observer() = observer;
}

// Sets the fields of an argument struct that `values` names. The caller has checked dtypes, shapes and overlap.
class Setter {
 public:
  Setter(const py::dict& values, Device device) : values_(values), device_(device) {}
  template <class T>
  void operator()(const char* name, T& field) {
    if (!values_.contains(name)) return;
    if constexpr (std::is_pointer_v<T>) {
      set_pointer(name, values_[name], device_, field);
    } else {
      set(values_[name], field);
    }
    ++used_;
  }
  void finish(const char* slot) const {
    require(used_ == values_.size(), slot, "needs fields of its argument struct, got ", values_.size() - used_, " others");
  }

 private:
  template <class T>
  static void set_pointer(const char* name, py::handle value, Device device, T*& pointer) {
    if (value.is_none()) return;
    const Tensor t = value.cast<Tensor>();
    require(t.device() == device, current_op(), name, " must be on ", device, ", got ", t.device());
    require(!t.transposed(), current_op(), name, " must be row-major, got a transposed tensor; use x.T.copy()");
    pointer = static_cast<T*>(static_cast<void*>(t.data()));
    if constexpr (!std::is_const_v<T>) t.storage().bump_version();  // it will be written
  }
  template <class T, size_t n>
  static void set(py::handle value, T (&array)[n]) {
    const auto list = value.cast<std::vector<T>>();
    require(list.size() <= n, "kernels", "at most ", n, " axes are supported, got ", list.size());
    std::copy(list.begin(), list.end(), array);
  }
  template <class T>
  void set(py::handle value, T& field) const {
    if constexpr (std::is_same_v<T, DType>) {
      field = parse_dtype(value);
    } else if constexpr (std::is_same_v<T, Scalar>) {
      field = {value.cast<double>(), py::isinstance<py::int_>(value) ? value.cast<int64_t>() : 0};
    } else if constexpr (std::is_enum_v<T>) {
      field = static_cast<T>(value.cast<int>());
    } else if constexpr (std::is_class_v<T>) {  // a shape within the arguments
      Setter inner(value.cast<py::dict>(), device_);
      fields(field, inner);
      inner.finish("shape");
    } else {
      field = value.cast<T>();
    }
  }

  py::dict values_;
  Device device_;
  size_t used_ = 0;
};

template <class Args>
void call(const py::dict& values, Device device) {
  Args args{};
  Setter setter(values, device);
  fields(args, setter);
  setter.finish(Args::name);
  if constexpr (std::is_same_v<Args, CheckIndexArgs>)  // elsewhere than on the CPU it is reported later
    if (device.kind != DeviceKind::cpu) args.ticket = fault_ticket("index", args.low, args.high);
  launch(args, device);
}

using Call = void (*)(const py::dict&, Device);
template <size_t... I>
constexpr std::array<Call, kSlotCount> make_calls(std::index_sequence<I...>) {
  return {call<std::tuple_element_t<I, Slots>>...};
}

// `op`: the slot that errors are told to be of, where it is another.
void call_slot(const std::string& slot, const py::dict& values, const std::string& impl, const std::string& device,
               const std::string& op) {
  static constexpr std::array<Call, kSlotCount> kCalls = make_calls(std::make_index_sequence<kSlotCount>{});
  const int number = slot_number(slot);
  const OpScope scope(slot_info(op.empty() ? number : slot_number(op)).name);
  struct Forced {
    std::string previous = forced_impl();
    ~Forced() { force_impl(previous); }
  } forced;
  if (!impl.empty()) force_impl(impl);
  kCalls[number](values, parse_device(device));
}

void add_candidate(const std::string& slot, const std::string& name, uintptr_t run, uintptr_t workspace,
                   uintptr_t supports) {
  const int number = slot_number(slot);
  for (const Candidate& c : cpu_table().candidates(number))
    require(name != c.name, "kernels.register", "slot '", slot, "' already has a kernel named '", name, "'");
  const auto* kept = new std::string(name);  // as long as the table
  Candidate candidate{};
  candidate.name = kept->c_str();
  candidate.isa = Isa::portable;
  candidate.supports = reinterpret_cast<bool (*)(const void*, Device)>(supports);
  candidate.run = reinterpret_cast<Status (*)(const void*, Context&) noexcept>(run);
  candidate.workspace = reinterpret_cast<size_t (*)(const void*, int)>(workspace);
  cpu_table().append(number, candidate);
}

}  // namespace

void register_kernels(py::module_& m) {
  m.def("slots", [] {
    std::vector<std::string> names;
    for (int i = 0; i < kSlotCount; ++i) names.emplace_back(slot_info(i).name);
    return names;
  });
  m.def("impls", [](const std::string& slot, const std::string& device) {
    std::vector<std::string> names;
    const Device where = parse_device(device);
    for (const Candidate& c : backend(where).table.candidates(slot_number(slot)))
      if (where.kind != DeviceKind::cpu || c.isa <= max_isa()) names.emplace_back(c.name);
    return names;
  }, py::arg("slot"), py::arg("device") = "cpu");
  m.def("slot_buffers", [](const std::string& slot) {
    py::list out;
    for (const BufferField& f : slot_info(slot_number(slot)).buffers)
      out.append(py::make_tuple(f.name, f.access == Access::in ? "in" : f.access == Access::out ? "out" : "inout",
                                f.persistent));
    return out;
  });
  m.def("force_impl", force_impl);
  m.def("fits_impl", fits_impl);
  m.def("forced_impl", [] { return forced_impl(); });
  m.def("start_trace", [] {
    observe(&t_trace);
    t_trace.names.clear();
  });
  m.def("stop_trace", [] {
    launch_observer() = nullptr;
    return std::exchange(t_trace.names, {});
  });
  m.def("launches_observed", [] { return launch_observer() != nullptr; });
  m.def("start_profile", [] {
    observe(&t_profiler);
    t_profiler.events.clear();
  });
  // (kernel, op, layer, backward, begin and end in nanoseconds, operations, bytes) of each call.
  m.def("stop_profile", [] {
    launch_observer() = nullptr;
    py::list out;
    for (const KernelEvent& e : std::exchange(t_profiler.events, {}))
      out.append(py::make_tuple(e.kernel, e.op, e.site.layer, e.site.backward, e.begin_ns, e.end_ns, e.work.flops,
                                e.work.bytes));
    return out;
  });
  m.def("set_call_layer", [](int layer) { return std::exchange(call_site().layer, layer); });
  m.def("call_slot", call_slot, py::arg("slot"), py::arg("values"), py::arg("impl") = "", py::arg("device") = "cpu",
        py::arg("op") = "");
  m.def("add_candidate", add_candidate);
}

}  // namespace smelt::bindings
