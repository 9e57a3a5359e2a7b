// Element types and devices.
#pragma once
#include <cstdint>

namespace smelt {

// The numbers are part of files: never change one, only append.
enum class DType : uint8_t {
  float32 = 0,
  float64 = 1,
  bfloat16 = 2,
  float16 = 3,
  int64 = 4,
  int32 = 5,
  uint8 = 6,
  bool_ = 7,
  // Reserved: no tensor has these yet.
  int8 = 8,
  int16 = 9,
  uint16 = 10,
  uint32 = 11,
  float8_e4m3 = 12,
  float8_e5m2 = 13,
};
constexpr int kDTypeCount = 8;

const char* dtype_name(DType dtype);

constexpr int64_t dtype_size(DType dtype) {
  constexpr uint8_t kSizes[] = {4, 8, 2, 2, 8, 4, 1, 1, 1, 2, 2, 4, 1, 1};
  return kSizes[static_cast<int>(dtype)];
}
constexpr bool is_floating(DType dtype) {
  return dtype == DType::float32 || dtype == DType::float64 || dtype == DType::bfloat16 || dtype == DType::float16;
}
constexpr bool is_integral(DType dtype) { return !is_floating(dtype) && dtype != DType::bool_; }

// The type in which an operation on a and b is carried out (docs/semantics.md has the table).
DType promote(DType a, DType b);

enum class DeviceKind : uint8_t { cpu = 0, cuda = 1, emu = 2 };  // emu: CUDA sources run by the CPU, in development builds

struct Device {
  DeviceKind kind = DeviceKind::cpu;
  uint8_t index = 0;
  bool operator==(const Device&) const = default;
};

}  // namespace smelt
