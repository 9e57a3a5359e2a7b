#include "core/error.h"

#include <cstdio>

namespace smelt {

std::string text(double v) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%g", v);
  return buffer;
}

std::string text(Device device) {
  std::string name = device.kind == DeviceKind::cpu ? "cpu" : device.kind == DeviceKind::cuda ? "cuda" : "emu";
  if (device.index) (name += ':') += std::to_string(device.index);
  return name;
}

}  // namespace smelt
