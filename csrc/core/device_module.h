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

enum class CopyKind : int { within = 0, to_host = 1, from_host = 2, to_pinned = 3 };
// Kernels run on the first, and copies in order with them; the second brings data meanwhile.
enum class StreamKind : int { compute = 0, copy = 1 };

struct DeviceModule {
  int devices;
  bool (*info)(int device, DeviceInfo* info);

  void* (*allocate)(int device, size_t bytes);  // null when there is no memory
  void (*release)(int device, void* p, size_t bytes);

  void* (*stream)(int device, StreamKind kind);
  // What comes from the host has been taken when it returns, and is in place for what the stream does later. What goes to the
  // host has arrived; into pinned memory, it comes when the stream has got there.
  bool (*copy)(int device, StreamKind on, void* to, const void* from, size_t bytes, CopyKind kind);
  bool (*synchronize)(int device, StreamKind kind);
  void* (*allocate_pinned)(size_t bytes);  // of the host; null when there is none
  void (*release_pinned)(void* p);

  // Moments of a stream. What was never recorded is done.
  void* (*make_event)(int device);  // null when it cannot be had
  void (*release_event)(void* event);
  bool (*record_event)(int device, StreamKind on, void* event);
  bool (*stream_wait)(int device, StreamKind stream, void* event);  // what it does later comes after the event
  bool (*event_done)(void* event, bool* done);
  bool (*wait_event)(void* event);
  bool (*event_seconds)(void* begin, void* end, double* seconds);  // both recorded and done

  // Kernels that are launched on the stream between begin and end do not run: they become a graph, which runs as one. The
  // stream is not in use by anybody else.
  bool (*begin_graph)(int device, void** stream);
  void* (*end_graph)(int device, void* stream);  // null when it cannot be had; the stream is gone
  bool (*launch_graph)(int device, void* graph);
  void (*release_graph)(void* graph);

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
