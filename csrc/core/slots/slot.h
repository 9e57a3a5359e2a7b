// What the argument structs of all slots are made of, and what a kernel gets besides them.
#pragma once
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "core/dtype.h"
#include "core/shape.h"

namespace smelt {

enum class Status : int { ok = 0, index_out_of_range = 1, failed = 2 };

// What a kernel found wrong on a device that runs behind the host; the host looks when it waits for the device.
struct DeviceFault {
  int64_t ticket;  // 0: nothing
  int64_t position, value;
};

// What a kernel gets besides its arguments.
struct Context {
  Device device;
  void* workspace = nullptr;  // as many bytes as the candidate's `workspace` asked for, 64-byte aligned
  int threads = 1;            // most threads that `parallel` uses
  // Runs body(arg, chunk, thread) for every chunk in [0, chunks), thread in [0, threads).
  void (*parallel)(int threads, int64_t chunks, void (*body)(void* arg, int64_t chunk, int thread), void* arg) = nullptr;
  void* stream = nullptr;
  DeviceFault* fault = nullptr;  // where the device can write it; null on the CPU
  bool tf32 = false;             // products of float32 may round their operands to TF32
  int64_t detail[2] = {};  // with Status::index_out_of_range: position and value
};

enum class Access : uint8_t { in, out, inout };

// One pointer field of an argument struct.
struct BufferField {
  const char* name;
  uint16_t offset;      // of the pointer within the struct
  Access access;
  bool persistent;      // outlives a step: parameter, running statistics, optimizer state, generator, step block
  int16_t accumulate;   // offset of the bool that turns `out` into `inout`, or -1
};

// The slot's name, and whether two calls are the same.
#define SMELT_SLOT(A, slot)                  \
  static constexpr const char* name = slot;  \
  bool operator==(const A&) const = default
#define SMELT_IN(A, f) BufferField{#f, offsetof(A, f), Access::in, false, -1}
#define SMELT_OUT(A, f) BufferField{#f, offsetof(A, f), Access::out, false, -1}
#define SMELT_GRAD(A, f, flag) BufferField{#f, offsetof(A, f), Access::out, false, offsetof(A, flag)}
#define SMELT_KEPT_IN(A, f) BufferField{#f, offsetof(A, f), Access::in, true, -1}
#define SMELT_KEPT_INOUT(A, f) BufferField{#f, offsetof(A, f), Access::inout, true, -1}

// What a call has to do at least: arithmetic, and bytes of its arguments that are read or written.
struct Work {
  double flops = 0, bytes = 0;
};

struct Scalar {
  double f = 0;
  int64_t i = 0;  // the same value for integer dtypes, exact beyond 2^53
  // Bit by bit: a NaN is itself, and -0 is not 0.
  bool operator==(const Scalar& other) const {
    return std::bit_cast<int64_t>(f) == std::bit_cast<int64_t>(other.f) && i == other.i;
  }
};

// Of a result before it is stored.
enum class Activation : uint8_t { none, relu, tanh, sigmoid, gelu, gelu_tanh, silu };

static inline double extent(const int64_t* shape, int rank) {
  double n = 1;
  for (int i = 0; i < rank; ++i) n *= static_cast<double>(shape[i]);
  return n;
}

}  // namespace smelt
