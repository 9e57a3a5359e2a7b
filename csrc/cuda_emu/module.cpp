// The emulator as a device: what _emu.so gives to the core. Copies and kernels are done when their call returns.
#include <chrono>
#include <cstdlib>
#include <cstring>

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

void* stream(int) { return nullptr; }
bool copy(int, void* to, const void* from, size_t bytes, CopyKind) {
  const emu::Unlocked unlocked;
  std::memcpy(to, from, bytes);
  return true;
}
bool synchronize(int) { return true; }
// Nothing is ever pending: an event is the time of its record.
using Clock = std::chrono::steady_clock;
void* make_event(int) { return new Clock::time_point(Clock::now()); }
void release_event(void* event) { delete static_cast<Clock::time_point*>(event); }
bool record_event(int, void* event) {
  *static_cast<Clock::time_point*>(event) = Clock::now();
  return true;
}
bool event_done(void*, bool* done) { return *done = true; }
bool wait_event(void*) { return true; }
bool event_seconds(void* begin, void* end, double* seconds) {
  *seconds = std::chrono::duration<double>(*static_cast<Clock::time_point*>(end) - *static_cast<Clock::time_point*>(begin)).count();
  return true;
}
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
}  // namespace smelt

extern "C" __attribute__((visibility("default"))) const smelt::DeviceModule* smelt_device_module(const char* abi, const char** why) {
  using namespace smelt;
  if (std::strcmp(abi, SMELT_ABI) != 0) {
    *why = "_emu.so was built from other sources than _core";
    return nullptr;
  }
  if (const char* seed = std::getenv("SMELT_EMU_ORDER")) emu::set_order(std::strtoull(seed, nullptr, 10));
  static const DeviceModule kModule{2,           info,          emu::device_allocate, emu::device_release, stream,        copy,  synchronize,
                                    make_event,  release_event, record_event,         event_done,          wait_event,    event_seconds,
                                    fault,       take_fault,    true,                 emu::error,          each_kernel};
  return &kModule;
}
