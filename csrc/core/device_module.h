// The C boundary between the core and a library of kernels for another kind of device: _cuda.so, or the emulator _emu.so.
// Such a library exports one symbol. No exception crosses it: calls that can fail return false, and error() has the text.
#pragma once
#include <cstddef>
#include <cstdint>

#include "core/table.h"

namespace smelt {

struct DeviceInfo {
  char name[256];
  int compute_capability;  // 90 for 9.0
  int multiprocessors;
  int64_t memory, free_memory;  // bytes
};

enum class CopyKind : int { within = 0, to_host = 1, from_host = 2 };

struct DeviceModule {
  int devices;
  bool (*info)(int device, DeviceInfo* info);

  void* (*allocate)(int device, size_t bytes);  // null when there is no memory
  void (*release)(int device, void* p, size_t bytes);

  // The stream of a device's kernels. Copies are in order with them; one to the host has ended when it returns.
  void* (*stream)(int device);
  bool (*copy)(int device, void* to, const void* from, size_t bytes, CopyKind kind);
  bool (*synchronize)(int device);

  // Moments of that stream. What was never recorded is done.
  void* (*make_event)(int device);  // null when it cannot be had
  void (*release_event)(void* event);
  bool (*record_event)(int device, void* event);
  bool (*event_done)(void* event, bool* done);
  bool (*wait_event)(void* event);
  bool (*event_seconds)(void* begin, void* end, double* seconds);  // both recorded and done

  // Where kernels write what they find wrong, and what it was: false when there is nothing. The device must be waited for before.
  DeviceFault* (*fault)(int device);
  bool (*take_fault)(int device, DeviceFault* fault);

  bool exact;  // memory is watched: see CachingAllocator

  const char* (*error)();  // of this thread's last call that failed

  // Hands over the candidates, best last, for KernelTable::prepend.
  void (*each_kernel)(void (*take)(void* to, int slot, const Candidate& candidate), void* to);
};

// Null, and a sentence in `why`, when there is no device to use or `abi` is not what the library was built with.
using OpenDeviceModule = const DeviceModule* (*)(const char* abi, const char** why);
constexpr const char* kOpenDeviceModule = "smelt_device_module";

}  // namespace smelt
