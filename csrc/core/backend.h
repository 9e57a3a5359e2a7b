// What a kind of device brings: memory, copies and a filled table of kernels.
#pragma once
#include <string>

#include "core/allocator.h"
#include "core/table.h"

namespace smelt {

struct Backend {
  const char* name = nullptr;
  int devices = 0;
  KernelTable table;
  CachingAllocator* allocator = nullptr;
  void (*copy)(void* to, const void* from, size_t bytes) = nullptr;       // within the device
  void (*to_host)(void* to, const void* from, size_t bytes) = nullptr;
  void (*from_host)(void* to, const void* from, size_t bytes) = nullptr;
  std::string why_unavailable;  // a sentence when devices is 0
};

Backend& backend(DeviceKind kind);
// The backend of a device that is there; RuntimeError gives the reason when it is not.
Backend& backend(Device device);

// "cpu", "cuda" or "cuda:1"; ValueError for anything else.
Device parse_device(const std::string& name);

}  // namespace smelt
