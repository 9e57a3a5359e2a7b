// The emulator as a device: what _emu.so gives to the core. Copies and kernels are done when their call returns.
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "core/device_module.h"
#include "cuda/families.h"
#include "cuda_emu/state.h"

namespace smelt {
namespace {

bool info(int, DeviceInfo* info) {
  *info = {"emulator", 90, 1, 0, 0};
  info->memory = int64_t{4} << 30;
  info->free_memory = info->memory - static_cast<int64_t>(emu::device_bytes_in_use());
  return true;
}

void* stream(int, StreamKind) { return nullptr; }
bool copy(int, StreamKind, void* to, const void* from, size_t bytes, CopyKind) {
  const emu::Unlocked unlocked;
  std::memcpy(to, from, bytes);
  return true;
}
bool synchronize(int, StreamKind) { return true; }
void* allocate_pinned(size_t bytes) { return std::malloc(bytes); }
void release_pinned(void* p) { std::free(p); }
// Nothing is ever pending: an event is the time of its record.
using Clock = std::chrono::steady_clock;
void* make_event(int) { return new Clock::time_point(Clock::now()); }
void release_event(void* event) { delete static_cast<Clock::time_point*>(event); }
bool record_event(int, StreamKind, void* event) {
  *static_cast<Clock::time_point*>(event) = Clock::now();
  return true;
}
bool stream_wait(int, StreamKind, void*) { return true; }
bool event_done(void*, bool* done) { return *done = true; }
bool wait_event(void*) { return true; }
bool event_seconds(void* begin, void* end, double* seconds) {
  *seconds = std::chrono::duration<double>(*static_cast<Clock::time_point*>(end) - *static_cast<Clock::time_point*>(begin)).count();
  return true;
}
using Graph = std::vector<emu::Launch>;
bool begin_graph(int, void** stream) { return (*stream = new Graph) != nullptr; }
void* end_graph(int, void* stream) { return stream; }
bool launch_graph(int, void* graph) {
  const emu::Unlocked unlocked;  // once, instead of for each launch
  for (const emu::Launch& l : *static_cast<Graph*>(graph))
    if (!emu::run(l.grid, l.block, l.dynamic_shared, l.body, l.argument.data(), l.argument_bytes)) return false;
  return true;
}
void release_graph(void* graph) { delete static_cast<Graph*>(graph); }
DeviceFault* fault(int device) {
  static DeviceFault* const kFaults = [] {
    auto* faults = static_cast<DeviceFault*>(emu::device_allocate(0, 2 * sizeof(DeviceFault)));
    const emu::Unlocked unlocked;
    faults[0] = faults[1] = {};
    return faults;
  }();
  return kFaults + device;
}
bool take_fault(int device, DeviceFault* found) {
  DeviceFault* const there = fault(device);
  const emu::Unlocked unlocked;
  *found = *there;
  *there = {};
  return found->ticket != 0;
}
void each_kernel(void (*take)(void*, int, const Candidate&), void* to) { cuda::register_kernels({take, to}); }

}  // namespace

void emu::keep(void* graph, dim3 grid, dim3 block, size_t dynamic_shared, void (*body)(const void*), const void* argument, size_t bytes) {
  std::vector<std::max_align_t> copy((bytes + sizeof(std::max_align_t) - 1) / sizeof(std::max_align_t));
  std::memcpy(copy.data(), argument, bytes);
  static_cast<Graph*>(graph)->push_back({grid, block, dynamic_shared, body, std::move(copy), bytes});
}

}  // namespace smelt

extern "C" __attribute__((visibility("default"))) const smelt::DeviceModule* smelt_device_module(const char* abi, const char** why) {
  using namespace smelt;
  if (std::strcmp(abi, SMELT_ABI) != 0) {
    *why = "_emu.so was built from other sources than _core";
    return nullptr;
  }
  if (const char* seed = std::getenv("SMELT_EMU_ORDER")) emu::set_order(std::strtoull(seed, nullptr, 10));
  static const DeviceModule kModule{.devices = 2,
                                    .info = info,
                                    .allocate = emu::device_allocate,
                                    .release = emu::device_release,
                                    .stream = stream,
                                    .copy = copy,
                                    .synchronize = synchronize,
                                    .allocate_pinned = allocate_pinned,
                                    .release_pinned = release_pinned,
                                    .make_event = make_event,
                                    .release_event = release_event,
                                    .record_event = record_event,
                                    .stream_wait = stream_wait,
                                    .event_done = event_done,
                                    .wait_event = wait_event,
                                    .event_seconds = event_seconds,
                                    .begin_graph = begin_graph,
                                    .end_graph = end_graph,
                                    .launch_graph = launch_graph,
                                    .release_graph = release_graph,
                                    .fault = fault,
                                    .take_fault = take_fault,
                                    .exact = true,
                                    .error = emu::error,
                                    .each_kernel = each_kernel};
  return &kModule;
}
