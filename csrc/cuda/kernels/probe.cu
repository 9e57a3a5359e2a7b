// Limits of a GPU: multiply-adds from registers, tensor cores on given operands, and memory, 16 bytes a thread and access.
#include "cuda/common/kernel.cuh"

namespace smelt {
namespace {

constexpr int kSums = 8;               // independent chains of a thread or warp
constexpr int kEach = 4;               // floats of an access
constexpr int64_t kMostBlocks = 2112;  // enough to fill any GPU with as much again

__global__ void multiply_add(ProbeArgs a) {
  float sum[kSums];
  SMELT_UNROLL
  for (int i = 0; i < kSums; ++i) sum[i] = static_cast<float>(threadIdx.x + i);
  for (int64_t r = 0; r < a.rounds; ++r) {
    SMELT_UNROLL
    for (int i = 0; i < kSums; ++i) sum[i] = std::fma(sum[i], 0.999f, 1e-3f);
  }
  float total = 0;
  SMELT_UNROLL
  for (int i = 0; i < kSums; ++i) total += sum[i];
  if (total == 12345.678f) a.memory[0] = total;  // never: but the compiler cannot know
  if (threadIdx.x == 0 && blockIdx.x == 0)
    *a.done = 2.0 * kSums * static_cast<double>(a.rounds) * static_cast<double>(gridDim.x) * kThreads;
}

// 16 x 8 x 16 products of a warp, operands read once: random data draws the power that real products draw.
__global__ void multiply_matrices(ProbeArgs a) {
  const int64_t pairs = a.n, first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * 6;
  const auto* words = reinterpret_cast<const uint32_t*>(a.memory);
  uint32_t x[4], y[2];
  SMELT_UNROLL
  for (int i = 0; i < 4; ++i) x[i] = words[(first + i) % pairs];
  SMELT_UNROLL
  for (int i = 0; i < 2; ++i) y[i] = words[(first + 4 + i) % pairs];
  float sum[kSums][4] = {};
  for (int64_t r = 0; r < a.rounds; ++r) {
    SMELT_UNROLL
    for (int i = 0; i < kSums; ++i) cuda::mma(sum[i], x, y, bfloat16{});
  }
  float total = 0;
  SMELT_UNROLL
  for (int i = 0; i < kSums; ++i) total += sum[i][0] + sum[i][1] + sum[i][2] + sum[i][3];
  if (total == 12345.678f) *a.done = total;
  if (threadIdx.x == 0 && blockIdx.x == 0)
    *a.done = 4096.0 * kSums * static_cast<double>(a.rounds) * static_cast<double>(gridDim.x) * (kThreads / 32);
}

// Once through the memory: `n` floats of it, a multiple of 4, or of 8 where half is copied to half.
template <ProbeKind kind>
__global__ void move(ProbeArgs a, int64_t n) {
  const int64_t i = grid_thread() * kEach;
  if (i == 0) *a.done = static_cast<double>(a.rounds) * (kind == ProbeKind::read || kind == ProbeKind::write ? 4.0 : 8.0) * static_cast<double>(n);
  if (i >= n) return;
  float* const p = a.memory + i;
  if constexpr (kind == ProbeKind::write) {
    store_pack<kEach>(p, Pack<float, kEach>{{1, 1, 1, 1}});
  } else {
    Pack<float, kEach> pack = load_pack<kEach>(p);
    if constexpr (kind == ProbeKind::read) {
      if (pack.e[0] + pack.e[1] + pack.e[2] + pack.e[3] == 12345.678f) *a.done = 0;
    } else if constexpr (kind == ProbeKind::copy) {
      store_pack<kEach>(p + n, pack);
    } else {
      SMELT_UNROLL
      for (int j = 0; j < kEach; ++j) pack.e[j] += 1;
      store_pack<kEach>(p, pack);
    }
  }
}

template <ProbeKind kind>
Status move_all(const ProbeArgs& a, const Context& context) {
  const int64_t n = kind == ProbeKind::copy ? a.n / 2 / kEach * kEach : a.n / kEach * kEach;
  Status status = Status::ok;
  const int64_t passes = a.rounds > 0 ? a.rounds : 1;
  for (int64_t r = 0; r < passes && status == Status::ok; ++r)
    status = cuda::launch(context, move<kind>, cuda::blocks_for(n > 0 ? n : 1, kThreads * kEach), cuda::size3(kThreads), 0, a, n);
  return status;
}

Status probe(const ProbeArgs& a, Context& context) noexcept {
  const int64_t wanted = ceil_div(a.n, kThreads), blocks = wanted < 1 ? 1 : wanted < kMostBlocks ? wanted : kMostBlocks;
  switch (a.kind) {
    case ProbeKind::fma: return cuda::launch(context, multiply_add, cuda::size3(blocks), cuda::size3(kThreads), 0, a);
    case ProbeKind::fma_bf16: return cuda::launch(context, multiply_matrices, cuda::size3(blocks), cuda::size3(kThreads), 0, a);
    case ProbeKind::read: return move_all<ProbeKind::read>(a, context);
    case ProbeKind::write: return move_all<ProbeKind::write>(a, context);
    case ProbeKind::copy:
    case ProbeKind::copy_cached: return move_all<ProbeKind::copy>(a, context);
    case ProbeKind::update: return move_all<ProbeKind::update>(a, context);
  }
  return Status::failed;
}

// Accesses are of 16 bytes; tensor cores need operands.
bool takes(const ProbeArgs& a) { return aligned16(a.memory) && (a.kind != ProbeKind::fma_bf16 || a.n > 0); }

}  // namespace

void cuda::register_probe(const Taker& taker) { add_kernel<ProbeArgs, probe, takes>(taker, "sm80_probe"); }

}  // namespace smelt
