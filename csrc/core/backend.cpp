#include "core/backend.h"

#include <cstring>

#include "core/error.h"
#include "cpu/cpu_backend.h"

namespace smelt {

Backend& backend(DeviceKind kind) {
  static Backend* const kCpu = cpu::make_backend();
  static Backend* const kCuda = [] {
    auto* b = new Backend;
    b->name = "cuda";
    b->why_unavailable = "this build has no CUDA kernels";
    return b;
  }();
  return kind == DeviceKind::cpu ? *kCpu : *kCuda;
}

Backend& backend(Device device) {
  Backend& b = backend(device.kind);
  if (device.index >= b.devices) [[unlikely]] {
    if (b.devices == 0) fail(ErrorKind::runtime, b.name, "no such device: ", b.why_unavailable);
    fail(ErrorKind::runtime, b.name, "device index must be below ", b.devices, ", got ", device.index);
  }
  return b;
}

Device parse_device(const std::string& name) {
  const size_t colon = name.find(':');
  const std::string kind = name.substr(0, colon);
  int index = 0;
  bool good = kind == "cpu" || kind == "cuda";
  if (colon != std::string::npos) {
    const std::string digits = name.substr(colon + 1);
    good = good && !digits.empty() && digits.size() <= 2 && digits.find_first_not_of("0123456789") == std::string::npos;
    if (good) index = std::stoi(digits);
  }
  require(good, "device", "must be 'cpu', 'cuda' or 'cuda:<index>', got '", name, "'");
  const Device device{kind == "cpu" ? DeviceKind::cpu : DeviceKind::cuda, static_cast<uint8_t>(index)};
  backend(device);
  return device;
}

}  // namespace smelt
