// The one place where kernels are launched.
#pragma once
#include <cstdint>
#include <tuple>

#include "core/kernels.h"

#ifndef SMELT_EMU
#include <cuda_runtime.h>
#endif

namespace smelt::cuda {

#ifdef SMELT_EMU

template <class... P, class... A>
Status launch(const Context& context, void (*kernel)(P...), dim3 grid, dim3 block, size_t dynamic_shared, A... args) {
  struct Call {
    void (*kernel)(P...);
    std::tuple<P...> args;
  };
  const Call call{kernel, {static_cast<P>(args)...}};
  const auto body = [](const void* c) { std::apply(static_cast<const Call*>(c)->kernel, static_cast<const Call*>(c)->args); };
  if (context.stream) {  // only a graph has one
    emu::keep(context.stream, grid, block, dynamic_shared, body, &call, sizeof call);
    return Status::ok;
  }
  return emu::run(grid, block, dynamic_shared, body, &call, sizeof call) ? Status::ok : Status::failed;
}

#else

// Keeps the text of a call that failed for DeviceModule::error.
bool succeeded(cudaError_t error, const char* call);

template <class... P, class... A>
Status launch(const Context& context, void (*kernel)(P...), dim3 grid, dim3 block, size_t dynamic_shared, A... args) {
  constexpr size_t kWithoutAsking = 48 << 10;
  if (dynamic_shared > kWithoutAsking &&
      !succeeded(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(dynamic_shared)),
                 "cudaFuncSetAttribute"))
    return Status::failed;
  kernel<<<grid, block, dynamic_shared, static_cast<cudaStream_t>(context.stream)>>>(static_cast<P>(args)...);
  return succeeded(cudaGetLastError(), "a kernel's launch") ? Status::ok : Status::failed;
}

#endif

// Blocks of `threads` for n pieces of work; n > 0.
inline dim3 blocks_for(int64_t n, int threads) {
  dim3 grid;
  grid.x = static_cast<unsigned>((n + threads - 1) / threads);
  return grid;
}
inline dim3 size3(int64_t x, int64_t y = 1, int64_t z = 1) {
  dim3 d;
  d.x = static_cast<unsigned>(x);
  d.y = static_cast<unsigned>(y);
  d.z = static_cast<unsigned>(z);
  return d;
}

}  // namespace smelt::cuda
