// What a kind of device brings: memory, copies and a filled table of kernels.
#pragma once
#include <string>
#include <vector>

#include "core/allocator.h"
#include "core/device_module.h"
#include "core/table.h"

namespace smelt {

class Backend {
 public:
  const char* name = nullptr;
  int devices = 0;
  KernelTable table;
  std::vector<CachingAllocator*> allocators;  // of each device; never destroyed, since tensors may outlive static objects
  const DeviceModule* module = nullptr;       // none for the CPU
  std::string why_unavailable;                // a sentence when devices is 0

  // In order with the kernels of the device: those to the host have ended on return, and what comes from the host has been
  // taken. RuntimeError names the op at work.
  void copy(Device device, void* to, const void* from, size_t bytes) const { copy(device, to, from, bytes, CopyKind::within); }
  void to_host(Device device, void* to, const void* from, size_t bytes) const { copy(device, to, from, bytes, CopyKind::to_host); }
  void from_host(Device device, void* to, const void* from, size_t bytes) const {
    copy(device, to, from, bytes, CopyKind::from_host);
  }
  // The copy is on its own stream: events bring it in order.
  void upload(Device device, void* to, const void* from, size_t bytes) const;
  // Into pinned memory, which has it when an event recorded afterwards is done.
  void read_out(Device device, void* to, const void* from, size_t bytes) const;
  // Waits until everything that was given to the device is done.
  void synchronize(Device device) const;
  // Raises what kernels have found wrong so far.
  void raise_fault(Device device) const;
  // RuntimeError from what the module said last.
  [[noreturn]] void fail_in() const;

 private:
  void copy(Device device, void* to, const void* from, size_t bytes, CopyKind kind, StreamKind on = StreamKind::compute) const;
};

Backend& backend(DeviceKind kind);
// The backend of a device that is there; RuntimeError gives the reason when it is not.
Backend& backend(Device device);
// MemoryError names the op at work, what was asked for and what is there. What release() takes is `bytes` again.
void* allocate(Device device, size_t bytes);
void release(Device device, void* p, size_t bytes);

// "cpu", "cuda", "cuda:1", or "emu" in development builds; ValueError for anything else.
Device parse_device(const std::string& name);

}  // namespace smelt
