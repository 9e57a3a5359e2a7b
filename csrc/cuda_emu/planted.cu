// Kernels with a mistake each, and the same without it: what the emulator must find, and what it must let pass.
#include <cstdio>

#include "cuda/launch.h"
#include "cuda/words.cuh"
#include "cuda_emu/state.h"

namespace smelt {
namespace {

constexpr int kN = 128;  // threads, and elements of x and y

// y[i] = x[n - 1 - i], by way of shared memory.
__global__ void missing_sync(const float* x, float* y, bool wrong) {
  SMELT_SHARED(float, all, kN);
  all[threadIdx.x] = x[threadIdx.x];
  if (!wrong) cuda::sync_threads();
  y[threadIdx.x] = all[kN - 1 - threadIdx.x];
}

__global__ void missing_wait(const float* x, float* y, bool wrong) {
  SMELT_SHARED(float, all, kN);
  cuda::cp_async4(&all[threadIdx.x], &x[threadIdx.x]);
  cuda::cp_async_commit();
  if (!wrong) cuda::cp_async_wait<0>();
  cuda::sync_threads();
  y[threadIdx.x] = all[kN - 1 - threadIdx.x];
}

__global__ void divergent_barrier(const float* x, float* y, bool wrong) {
  SMELT_SHARED(float, all, kN);
  all[threadIdx.x] = x[threadIdx.x];
  if (!wrong || threadIdx.x % 2) cuda::sync_threads();
  y[threadIdx.x] = wrong ? all[threadIdx.x] : all[kN - 1 - threadIdx.x];
}

__global__ void shuffle_mask(const float* x, float* y, bool wrong) {
  const unsigned all = cuda::kAllLanes, low = 0x0000ffffu;
  float v = x[threadIdx.x];
  if (cuda::lane() < 16) v += cuda::shuffle_xor(v, 8, wrong ? all : low);
  y[threadIdx.x] = v;
}

__global__ void read_out_of_bounds(const float* x, float* y, bool wrong) { y[threadIdx.x] = x[threadIdx.x + (wrong ? 1 : 0)]; }
__global__ void write_out_of_bounds(const float* x, float* y, bool wrong) { y[threadIdx.x + (wrong ? 1 : 0)] = x[threadIdx.x]; }

__global__ void uninitialised_shared(const float* x, float* y, bool wrong) {
  SMELT_SHARED(float, all, kN + 1);
  all[threadIdx.x] = x[threadIdx.x];
  if (!wrong && threadIdx.x == 0) all[kN] = 0;
  cuda::sync_threads();
  y[threadIdx.x] = all[threadIdx.x + 1];
}

// Two pieces through one barrier: the second phase has the other parity.
__global__ void mbarrier_parity(const float* x, float* y, bool wrong) {
  SMELT_SHARED(cuda::Bytes16, piece, kN / 4);
  SMELT_SHARED(uint64_t, barrier, 1);
  if (threadIdx.x == 0) cuda::mbarrier_init(barrier, 1);
  cuda::sync_threads();
  for (int phase = 0; phase < 2; ++phase) {
    if (threadIdx.x == 0) {
      cuda::mbarrier_arrive_expect(barrier, kN * 4);
      cuda::bulk_copy(piece, x, kN * 4, barrier);
    }
    cuda::mbarrier_wait(barrier, wrong ? 1 : phase);
    y[threadIdx.x] = reinterpret_cast<const float*>(piece)[kN - 1 - threadIdx.x];
    cuda::sync_threads();
  }
}

__global__ void misaligned(const float* x, float* y, bool wrong) {
  if (threadIdx.x < kN / 4 - 1) cuda::store16(y + threadIdx.x * 4, cuda::load16(x + threadIdx.x * 4 + (wrong ? 1 : 0)));
}

using Kernel = void (*)(const float*, float*, bool);
constexpr Kernel kPlanted[] = {missing_sync,        missing_wait,         divergent_barrier, shuffle_mask, read_out_of_bounds,
                               write_out_of_bounds, uninitialised_shared, mbarrier_parity,   misaligned};
constexpr const char* kNames[] = {"missing_sync",        "missing_wait",         "divergent_barrier", "shuffle_mask", "read_out_of_bounds",
                                  "write_out_of_bounds", "uninitialised_shared", "mbarrier_parity",   "misaligned"};

}  // namespace
}  // namespace smelt

// The name of planted kernel `which`, or null beyond the last.
extern "C" __attribute__((visibility("default"))) const char* smelt_emu_planted_name(int which) {
  return which < static_cast<int>(std::size(smelt::kNames)) ? smelt::kNames[which] : nullptr;
}
// Runs it, with its mistake or without, threads taking turns as the seed says; null, or the error.
extern "C" __attribute__((visibility("default"))) const char* smelt_emu_planted(int which, bool wrong, uint64_t order) {
  using namespace smelt;
  auto* x = static_cast<float*>(emu::device_allocate(0, kN * sizeof(float)));
  auto* y = static_cast<float*>(emu::device_allocate(0, kN * sizeof(float)));
  {
    const emu::Unlocked unlocked;
    for (int i = 0; i < kN; ++i) x[i] = static_cast<float>(i);
  }
  emu::set_order(order);
  const Status status = cuda::launch(Context{}, kPlanted[which], cuda::size3(1), cuda::size3(kN), 0, x, y, wrong);
  emu::set_order(0);
  emu::device_release(0, x, kN * sizeof(float));
  emu::device_release(0, y, kN * sizeof(float));
  return status == Status::ok ? nullptr : emu::error();
}
