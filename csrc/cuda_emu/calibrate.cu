// What the words of words.cuh do, as bits: one warp, inputs whose results are exact in any order. Built twice, into the emulator
// and by nvcc as a program that writes what a GPU gives, which the emulator is then held to:
//   nvcc -std=c++20 -Icsrc -gencode arch=compute_90a,code=sm_90a csrc/cuda_emu/calibrate.cu -o calibrate
//   ./calibrate tests/fixtures/words.json
#include <cstdio>
#include <cstring>
#include <iterator>

#include "cuda/words.cuh"
#include "formulas/types.inl.h"

#ifdef SMELT_EMU
#include "cuda/launch.h"
#include "cuda_emu/state.h"
#else
#include <cuda_runtime.h>
#endif

namespace smelt {
namespace {

constexpr int kLanes = 32, kWords = 8, kAll = kLanes * kWords;  // of 32 bits, of each lane and of all

// Lane l has words in[l * kWords ...] to begin with and writes out[l * kWords ...]. `in` has small numbers in all dtypes used.
struct Lane {
  const uint32_t* in;
  uint32_t* out;
};
SMELT_WORD Lane lane_of(const uint32_t* in, uint32_t* out) { return {in + cuda::lane() * kWords, out + cuda::lane() * kWords}; }
SMELT_WORD uint32_t bits_of(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  return u;
}

__global__ void shuffles(const uint32_t* in, uint32_t* out) {
  const Lane l = lane_of(in, out);
  l.out[0] = cuda::shuffle(l.in[0], 5);
  l.out[1] = cuda::shuffle(l.in[0], 31 - cuda::lane());
  l.out[2] = cuda::shuffle_xor(l.in[0], 1);
  l.out[3] = cuda::shuffle_xor(l.in[0], 16);
  l.out[4] = cuda::shuffle_up(l.in[0], 1);
  l.out[5] = cuda::shuffle_up(l.in[0], 7);
  l.out[6] = cuda::ballot(l.in[1] & 1);
  l.out[7] = static_cast<uint32_t>(cuda::count_bits(l.in[2]));
}

template <bool transposed>
__global__ void matrices(const uint32_t* in, uint32_t* out) {
  SMELT_SHARED(uint32_t, all, kAll);
  const Lane l = lane_of(in, out);
  for (int i = 0; i < kWords; ++i) all[cuda::lane() * kWords + i] = l.in[i];
  cuda::sync_threads();
  uint32_t r[4];
  const void* const row = all + (kLanes - 1 - cuda::lane()) * kWords + 4;  // rows of 16 bytes, in no simple order
  if (transposed)
    cuda::ldmatrix_x4_transposed(r, row);
  else
    cuda::ldmatrix_x4(r, row);
  for (int i = 0; i < 4; ++i) l.out[i] = r[i];
  for (int i = 4; i < kWords; ++i) l.out[i] = 0;
}

// Bits of a small whole number, as an element of S in every place of a word.
template <class S>
SMELT_WORD uint32_t small(uint32_t bits, uint32_t salt) {
  const auto number = [](uint32_t b) { return static_cast<float>(static_cast<int>(b % 15) - 7); };
  if constexpr (sizeof(S) == 4) {
    return bits_of(number(bits + salt));
  } else {
    const S low = to_storage<S>(number(bits + salt)), high = to_storage<S>(number(bits / 16 + salt));
    return low.bits | static_cast<uint32_t>(high.bits) << 16;
  }
}
template <class S>
__global__ void products(const uint32_t* in, uint32_t* out) {
  const Lane l = lane_of(in, out);
  uint32_t a[4], b[2];
  float d[4];
  for (int i = 0; i < 4; ++i) a[i] = small<S>(l.in[i], 3);
  for (int i = 0; i < 2; ++i) b[i] = small<S>(l.in[4 + i], 5);
  for (int i = 0; i < 4; ++i) d[i] = static_cast<float>(cuda::lane() * 4 + i);
  cuda::mma(d, a, b, S{});
  for (int i = 0; i < 4; ++i) l.out[i] = bits_of(d[i]);
  for (int i = 4; i < kWords; ++i) l.out[i] = 0;
}

__global__ void rounded(const uint32_t* in, uint32_t* out) {
  const Lane l = lane_of(in, out);
  for (int i = 0; i < kWords; ++i) {
    // Exponents near 1, and mantissas at and beside the middle between two numbers of TF32; a NaN, infinity, the largest number.
    constexpr uint32_t kSpecial[] = {0x7f800001u, 0xff800000u, 0x7f7fffffu, 0x80000000u};
    const uint32_t bits = i == 7 ? kSpecial[cuda::lane() % 4] : (0x3f000000u + (l.in[i] & 0x80ffe000u)) | (i % 4 == 0 ? 0x1000u : i % 4 == 1 ? 0x0fffu : i % 4 == 2 ? 0x1001u : 0u);
    float f;
    memcpy(&f, &bits, sizeof f);
    l.out[i] = cuda::to_tf32(f) & 0xffffe000u;  // the bits below are not defined
  }
}

__global__ void copies(const uint32_t* in, uint32_t* out) {
  SMELT_SHARED(uint32_t, all, kAll);
  const Lane l = lane_of(in, out);
  uint32_t* const mine = all + cuda::lane() * kWords;
  cuda::cp_async16(mine, l.in, cuda::lane() % 17);
  cuda::cp_async_commit();
  cuda::cp_async4(mine + 4, l.in + 7);
  for (int i = 1; i < 4; ++i) cuda::cp_async4(mine + 4 + i, l.in + i, cuda::lane() % 2 * 4);
  cuda::cp_async_commit();
  cuda::cp_async_wait<0>();
  cuda::sync_threads();
  for (int i = 0; i < kWords; ++i) l.out[i] = all[(kLanes - 1 - cuda::lane()) * kWords + i];
}

__global__ void bulk(const uint32_t* in, uint32_t* out) {
#if defined(SMELT_EMU) || !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  SMELT_SHARED(cuda::Bytes16, all, kAll / 4);
  SMELT_SHARED(uint64_t, barrier, 1);
  const Lane l = lane_of(in, out);
  if (cuda::lane() == 0) cuda::mbarrier_init(barrier, 1);
  cuda::sync_threads();
  if (cuda::lane() == 0) {
    cuda::mbarrier_arrive_expect(barrier, kAll * 4);
    cuda::bulk_copy(all, in, kAll * 4, barrier);
  }
  cuda::mbarrier_wait(barrier, 0);
  for (int i = 0; i < kWords; ++i) l.out[i] = all[cuda::lane() * kWords / 4 + i / 4].word[i % 4];
#endif
}

using Kernel = void (*)(const uint32_t*, uint32_t*);
constexpr Kernel kKernels[] = {shuffles, matrices<false>, matrices<true>, products<bfloat16>, products<float16>, products<float>, rounded, copies, bulk};
constexpr const char* kNames[] = {"shuffles",     "ldmatrix",    "ldmatrix_transposed", "mma_bfloat16", "mma_float16",
                                  "mma_tf32",     "to_tf32",     "cp_async",            "bulk_copy"};
static_assert(std::size(kKernels) == std::size(kNames));

// The same words everywhere (Numerical Recipes' generator).
void fill(uint32_t* in) {
  uint32_t state = 1;
  for (int i = 0; i < kAll; ++i) in[i] = state = state * 1664525u + 1013904223u;
}

}  // namespace
}  // namespace smelt

#ifdef SMELT_EMU

// The name of kernel `which`, or null beyond the last.
extern "C" __attribute__((visibility("default"))) const char* smelt_emu_word_name(int which) {
  return which < static_cast<int>(std::size(smelt::kNames)) ? smelt::kNames[which] : nullptr;
}
// Its 256 words; null, or the error.
extern "C" __attribute__((visibility("default"))) const char* smelt_emu_words(int which, uint32_t* words) {
  using namespace smelt;
  constexpr size_t kBytes = kAll * sizeof(uint32_t);
  auto* in = static_cast<uint32_t*>(emu::device_allocate(0, kBytes));
  auto* out = static_cast<uint32_t*>(emu::device_allocate(0, kBytes));
  {
    const emu::Unlocked unlocked;
    fill(in);
  }
  const Status status = cuda::launch(Context{}, kKernels[which], cuda::size3(1), cuda::size3(kLanes), 0, in, out);
  {
    const emu::Unlocked unlocked;
    std::memcpy(words, out, kBytes);
  }
  emu::device_release(0, in, kBytes);
  emu::device_release(0, out, kBytes);
  return status == Status::ok ? nullptr : emu::error();
}

#else

int main(int count, char** arguments) {
  using namespace smelt;
  FILE* const file = count == 2 ? std::fopen(arguments[1], "w") : nullptr;
  if (!file) return std::fprintf(stderr, "calibrate: needs the path of a file to write\n"), 2;
  cudaDeviceProp p;
  uint32_t host[kAll], *in = nullptr, *out = nullptr;
  fill(host);
  if (cudaGetDeviceProperties(&p, 0) != cudaSuccess || cudaMalloc(&in, sizeof host) != cudaSuccess || cudaMalloc(&out, sizeof host) != cudaSuccess ||
      cudaMemcpy(in, host, sizeof host, cudaMemcpyHostToDevice) != cudaSuccess)
    return std::fprintf(stderr, "calibrate: %s\n", cudaGetErrorString(cudaGetLastError())), 1;
  std::fprintf(file, "{\"gpu\": \"%s\"", p.name);
  for (size_t k = 0; k < std::size(kKernels); ++k) {
    cudaMemset(out, 0x5a, sizeof host);
    kKernels[k]<<<1, kLanes>>>(in, out);
    if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess)
      return std::fprintf(stderr, "calibrate: %s: %s\n", kNames[k], cudaGetErrorString(error)), 1;
    if (cudaMemcpy(host, out, sizeof host, cudaMemcpyDeviceToHost) != cudaSuccess)
      return std::fprintf(stderr, "calibrate: %s: %s\n", kNames[k], cudaGetErrorString(cudaGetLastError())), 1;
    std::fprintf(file, ",\n \"%s\": [", kNames[k]);
    for (int i = 0; i < kAll; ++i) std::fprintf(file, "%s%u", i ? ", " : "", host[i]);
    std::fprintf(file, "]");
  }
  std::fprintf(file, "}\n");
  return std::fclose(file) ? 1 : 0;
}

#endif
