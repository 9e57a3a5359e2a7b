// The machine: threads, memory, instruction sets, candidates, check mode.
#include "bindings/common.h"
#include "core/event.h"
#include "core/philox.h"
#include "core/thread_pool.h"
#include "core/transfer.h"
#include "cpu/cpu_info.h"

namespace smelt::bindings {
namespace {

PyObject* exception_type(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::value: return PyExc_ValueError;
    case ErrorKind::type: return PyExc_TypeError;
    case ErrorKind::index: return PyExc_IndexError;
    case ErrorKind::memory: return PyExc_MemoryError;
    case ErrorKind::buffer: return PyExc_BufferError;
    default: return PyExc_RuntimeError;
  }
}

DeviceKind parse_kind(const std::string& kind) {
  return kind == "cuda" ? DeviceKind::cuda : kind == "emu" ? DeviceKind::emu : DeviceKind::cpu;
}

StreamKind parse_stream(const std::string& kind) { return kind == "copy" ? StreamKind::copy : StreamKind::compute; }

CachingAllocator& allocator_of(const std::string& name) {
  const Device device = parse_device(name);
  return *backend(device).allocators[device.index];
}

}  // namespace

void register_runtime(py::module_& m) {
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const Error& error) {
      PyErr_SetString(exception_type(error.kind()), error.what());
    }
  });
  m.attr("__version__") = SMELT_VERSION;
  m.def("num_threads", num_threads);
  m.def("set_num_threads", set_num_threads);
  m.def("memory_stats", [](const std::string& device) {
    const MemoryStats s = allocator_of(device).stats();
    py::dict d;
    d["in_use"] = s.in_use;
    d["peak_in_use"] = s.peak_in_use;
    d["cached"] = s.cached;
    d["allocations"] = s.allocations;
    d["system_allocations"] = s.system_allocations;
    d["limit"] = s.limit;
    return d;
  });
  py::class_<Event>(m, "Event")
      .def(py::init([](const std::string& device) { return std::make_unique<Event>(parse_device(device)); }))
      .def("record", [](Event& e, const std::string& stream) { e.record(parse_stream(stream)); })
      .def("hold_back", [](const Event& e, const std::string& stream) { e.hold_back(parse_stream(stream)); })
      .def("is_done", &Event::is_done)
      .def("synchronize", &Event::wait, py::call_guard<py::gil_scoped_release>())
      .def("seconds_until", &Event::seconds_until, py::call_guard<py::gil_scoped_release>());
  m.def("stream_handle", [](const std::string& device, const std::string& stream) {
    return stream_handle(parse_device(device), parse_stream(stream));
  });
  m.def("synchronize_stream", [](const std::string& name, const std::string& stream) {
    const Device device = parse_device(name);
    const OpScope scope("synchronize");
    const WithoutInterpreterLock unlocked(true);
    synchronize_stream(device, parse_stream(stream));
  });
  py::class_<Readout>(m, "Readout")
      .def(py::init([](const std::string& device) { return std::make_unique<Readout>(parse_device(device)); }))
      .def("reserve", &Readout::reserve)
      .def("start", &Readout::start)
      .def("values", &Readout::values);
  py::class_<Uploader>(m, "Uploader")
      .def(py::init([](const std::string& device) { return std::make_unique<Uploader>(parse_device(device)); }))
      .def("upload", &Uploader::upload);
  m.def("set_memory_limit", [](int64_t bytes, const std::string& device) { allocator_of(device).set_limit(bytes); });
  m.def("device_count", [](const std::string& kind) { return backend(parse_kind(kind)).devices; });
  m.def("device_info", [](const std::string& name) {
    const Device device = parse_device(name);
    const Backend& b = backend(device);
    DeviceInfo info;
    if (!b.module || !b.module->info(device.index, &info)) fail(ErrorKind::runtime, "device", b.module ? b.module->error() : "must be a GPU, got 'cpu'");
    py::dict d;
    d["name"] = info.name;
    d["compute_capability"] = py::make_tuple(info.compute_capability / 10, info.compute_capability % 10);
    d["multiprocessors"] = info.multiprocessors;
    d["memory"] = info.memory;
    d["free_memory"] = info.free_memory;
    return d;
  });
  m.def("synchronize", [](const std::string& name) {
    const Device device = parse_device(name);
    const OpScope scope("synchronize");
    const Backend& b = backend(device);
    const WithoutInterpreterLock unlocked(true);
    b.synchronize(device);
  });
  m.def("reset_peak_memory", [](const std::string& device) { allocator_of(device).reset_peak(); });
  m.def("empty_cache", [](const std::string& device) { allocator_of(device).empty_cache(); });

  m.def("tf32", tf32);
  m.def("set_tf32", set_tf32);

  m.def("cpu_model", cpu::model_name);
  m.def("cpu_features", cpu::features);
  m.def("detected_isa", [] { return isa_name(cpu::detected_isa()); });
  m.def("isa_note", [] { return cpu::isa_note(); });
  m.def("max_isa", [] { return isa_name(max_isa()); });
  m.def("set_max_isa", [](const std::string& name) { set_max_isa(parse_isa(name)); });
  m.def("why_unavailable", [](const std::string& kind) {
    return backend(parse_kind(kind)).why_unavailable;
  });

  m.def("dry_run_active", dry_run::active);
  m.def("set_dry_run", dry_run::set_active);
  m.def("take_notes", dry_run::take_notes);

  m.def("philox", [](uint64_t seed, uint64_t low, uint64_t high) {
    const Philox4 r = philox4x32_10(seed, low, high);
    return py::make_tuple(r.lane[0], r.lane[1], r.lane[2], r.lane[3]);
  });
  // Keys to sort by: 64 bits for each of n samples from (seed, stream), independent of the random generator.
  m.def("philox_keys", [](uint64_t seed, uint64_t stream, int64_t n) {
    py::array_t<uint64_t> keys(n);
    uint64_t* out = keys.mutable_data();
    for (int64_t i = 0; i < n; ++i) {
      const Philox4 r = philox4x32_10(seed, static_cast<uint64_t>(i), stream);
      out[i] = static_cast<uint64_t>(r.lane[0]) << 32 | r.lane[1];
    }
    return keys;
  });
}

}  // namespace smelt::bindings
