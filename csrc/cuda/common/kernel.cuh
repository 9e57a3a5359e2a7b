// What every kernel file starts from: types, the number that a thread computes with, and the way into the table.
#pragma once
#include <bit>

#include "core/table.h"
#include "cuda/families.h"
#include "cuda/launch.h"
#include "cuda/words.cuh"
#include "formulas/math.inl.h"
#include "formulas/types.inl.h"

namespace smelt {
namespace {

using VecF = One<float>;
SMELT_INLINE VecF fma(VecF a, VecF b, VecF c) { return {std::fma(a.v, b.v, c.v)}; }
// 2^n for whole n in [-126, 127].
SMELT_INLINE VecF exp2_whole(VecF n) { return {std::bit_cast<float>((static_cast<int>(n.v) + 127) << 23)}; }
// p 2^n for such n.
SMELT_INLINE VecF times_exp2(VecF p, VecF n) { return p * exp2_whole(n); }
// x = m 2^e with m in [1, 2); finite, normal, positive x only.
SMELT_INLINE void split_exponent(VecF x, VecF* m, VecF* e) {
  const uint32_t bits = std::bit_cast<uint32_t>(x.v);
  e->v = static_cast<float>(static_cast<int>(bits >> 23) - 127);
  m->v = std::bit_cast<float>((bits & 0x7fffffu) | 0x3f800000u);
}
// The number that a thread computes with on elements stored as S.
template <class S>
using Vec = One<Compute<S>>;

// ---------------------------------------------------------------------------------------------------- wide accesses

template <class S, int W>
struct Pack {
  S e[W];
};
// `count` elements from p, zeros behind them; p is a multiple of 16 bytes where W fill that.
template <int W, class S>
SMELT_WORD Pack<S, W> load_pack(const S* p, int count = W) {
  if constexpr (W * sizeof(S) == 16) {
    if (count >= W) return std::bit_cast<Pack<S, W>>(cuda::load16(p));
  }
  Pack<S, W> pack = {};
  SMELT_UNROLL
  for (int i = 0; i < W; ++i)
    if (i < count) pack.e[i] = p[i];
  return pack;
}
template <int W, class S>
SMELT_WORD void store_pack(S* p, const Pack<S, W>& pack, int count = W) {
  if constexpr (W * sizeof(S) == 16) {
    if (count >= W) return cuda::store16(p, std::bit_cast<cuda::Bytes16>(pack));
  }
  SMELT_UNROLL
  for (int i = 0; i < W; ++i)
    if (i < count) p[i] = pack.e[i];
}
inline bool aligned16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// ------------------------------------------------------------------------------------------------------- registering

template <class Args, Status (*Run)(const Args&, Context&) noexcept, bool (*Supports)(const Args&) = nullptr,
          size_t (*Workspace)(const Args&) = nullptr>
void add_kernel(const cuda::Taker& taker, const char* name) {
  Candidate c{name, Isa::portable, nullptr, nullptr, nullptr};
  c.run = [](const void* args, Context& context) noexcept { return Run(*static_cast<const Args*>(args), context); };
  if constexpr (Supports != nullptr)
    c.supports = [](const void* args, Device) { return Supports(*static_cast<const Args*>(args)); };
  if constexpr (Workspace != nullptr) c.workspace = [](const void* args, int) { return Workspace(*static_cast<const Args*>(args)); };
  taker.take(taker.to, slot_of<Args>, c);
}

template <class Args>
bool floating_only(const Args& args) {
  return is_floating(args.dtype);
}

// Kernels that compute in float32 or float64 and store those alone.
template <class Args>
bool wide_only(const Args& a) {
  return a.dtype == DType::float32 || a.dtype == DType::float64;
}

constexpr int kThreads = 256;  // of a block, where nothing asks for another number
// The thread's number in a grid of one axis.
SMELT_WORD int64_t grid_thread() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }

}  // namespace
}  // namespace smelt
