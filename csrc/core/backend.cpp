#include "core/backend.h"

#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

#include <cstring>
#include <mutex>

#include "core/error.h"
#include "core/launch.h"
#include "cpu/cpu_backend.h"

namespace smelt {
namespace {

// The folder of the library that this code stands in.
std::string own_folder() {
  Dl_info info;
  if (!dladdr(reinterpret_cast<void*>(&own_folder), &info) || !info.dli_fname) return ".";
  const std::string path = info.dli_fname;
  return path.substr(0, path.rfind('/'));
}

// Opens the library and fills the backend from it; gives a sentence when it cannot. `driver` must be there, or is null.
std::string open_module(Backend& b, const char* driver) {
  const std::string path = cat(own_folder(), "/_", b.name, ".so");
  if (access(path.c_str(), R_OK) != 0) return driver ? "this build has no CUDA kernels" : "this build has no emulator";
  if (driver && !dlopen(driver, RTLD_LAZY | RTLD_LOCAL)) return cat("no NVIDIA driver is installed (", driver, " cannot be loaded)");
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) return dlerror();
  const auto open = reinterpret_cast<OpenDeviceModule>(dlsym(library, kOpenDeviceModule));
  if (!open) return cat(path, " has no symbol ", kOpenDeviceModule);
  const char* why = "";
  b.module = open(SMELT_ABI, &why);
  if (!b.module) return why;
  b.module->each_kernel([](void* to, int slot, const Candidate& c) { static_cast<KernelTable*>(to)->prepend(slot, c); }, &b.table);
  b.table.check();
  for (int i = 0; i < b.module->devices; ++i)
    b.allocators.push_back(new CachingAllocator({b.module->allocate, b.module->release}, i, b.module->exact));
  b.devices = b.module->devices;
  return "";
}

Backend* make_cuda() {
  auto* b = new Backend;
  b->name = "cuda";
  b->why_unavailable = open_module(*b, "libcuda.so.1");
  // Neither driver nor device survives a fork.
  if (b->devices)
    pthread_atfork(nullptr, nullptr, [] {
      backend(DeviceKind::cuda).devices = 0;
      backend(DeviceKind::cuda).why_unavailable =
          "the process had used CUDA before it was forked; start processes that use it with spawn, or before the first use";
    });
  return b;
}

Backend* make_emu() {
  auto* b = new Backend;
  b->name = "emu";
  b->why_unavailable = open_module(*b, nullptr);
  return b;
}

}  // namespace

void Backend::fail_in() const { fail(ErrorKind::runtime, current_op(), name, " reported: ", module->error()); }

void Backend::copy(Device device, void* to, const void* from, size_t bytes, CopyKind kind, StreamKind on) const {
  if (!bytes) return;
  if (!module)
    std::memcpy(to, from, bytes);
  else if (!module->copy(device.index, on, to, from, bytes, kind))
    fail_in();
  else if (kind == CopyKind::to_host)
    raise_fault(device);
}

void Backend::upload(Device device, void* to, const void* from, size_t bytes) const {
  copy(device, to, from, bytes, CopyKind::from_host, StreamKind::copy);
}
void Backend::read_out(Device device, void* to, const void* from, size_t bytes) const {
  copy(device, to, from, bytes, CopyKind::to_pinned);
}

void Backend::synchronize(Device device) const {
  if (!module) return;
  for (const StreamKind kind : {StreamKind::copy, StreamKind::compute})
    if (!module->synchronize(device.index, kind)) fail_in();
  raise_fault(device);
}

void Backend::raise_fault(Device device) const {
  static std::mutex mutex;  // threads that wait for one device
  DeviceFault fault;
  bool found;
  {
    const std::lock_guard lock(mutex);
    found = module->take_fault(device.index, &fault);
  }
  if (found) smelt::raise_fault(fault);
}

Backend& backend(DeviceKind kind) {
  switch (kind) {
    case DeviceKind::cuda: {
      static Backend* const kCuda = make_cuda();
      return *kCuda;
    }
    case DeviceKind::emu: {
      static Backend* const kEmu = make_emu();
      return *kEmu;
    }
    default: {
      static Backend* const kCpu = cpu::make_backend();
      return *kCpu;
    }
  }
}

Backend& backend(Device device) {
  Backend& b = backend(device.kind);
  if (device.index >= b.devices) [[unlikely]] {
    if (b.devices == 0) fail(ErrorKind::runtime, b.name, "no such device: ", b.why_unavailable);
    fail(ErrorKind::runtime, b.name, "device index must be below ", b.devices, ", got ", device.index);
  }
  return b;
}

void* allocate(Device device, size_t bytes) {
  const Backend& b = backend(device);
  bool over_limit = false;
  void* const p = b.allocators[device.index]->allocate(bytes, &over_limit);
  if (p) return p;
  const MemoryStats stats = b.allocators[device.index]->stats();
  if (over_limit)
    fail(ErrorKind::memory, current_op(), "cannot allocate ", bytes, " bytes on ", device, ": the limit is ", stats.limit,
         " bytes, tensors hold ", stats.in_use, " (blocks are up to a quarter larger than what they are for)");
  DeviceInfo info;
  if (!b.module || !b.module->info(device.index, &info))
    fail(ErrorKind::memory, current_op(), "cannot allocate ", bytes, " bytes on ", device);
  fail(ErrorKind::memory, current_op(), "cannot allocate ", bytes, " bytes on ", device, ": ", info.free_memory, " of ", info.memory,
       " are free, tensors hold ", stats.in_use);
}

// Of a device that is gone too: in a forked child the tensors of its parent end as well.
void release(Device device, void* p, size_t bytes) { backend(device.kind).allocators[device.index]->release(p, bytes); }

Device parse_device(const std::string& name) {
  const size_t colon = name.find(':');
  const std::string kind = name.substr(0, colon);
  int index = 0;
  bool good = kind == "cpu" || kind == "cuda" || kind == "emu";
  if (colon != std::string::npos) {
    const std::string digits = name.substr(colon + 1);
    good = good && !digits.empty() && digits.size() <= 2 && digits.find_first_not_of("0123456789") == std::string::npos;
    if (good) index = std::stoi(digits);
  }
  require(good, "device", "must be 'cpu', 'cuda' or 'cuda:<index>', got '", name, "'");
  const DeviceKind number = kind == "cpu" ? DeviceKind::cpu : kind == "cuda" ? DeviceKind::cuda : DeviceKind::emu;
  const Device device{number, static_cast<uint8_t>(index)};
  backend(device);
  return device;
}

}  // namespace smelt
