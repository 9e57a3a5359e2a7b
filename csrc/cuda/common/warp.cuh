// Reductions over the threads of a warp and of a block, in an order that the number of threads alone decides.
#pragma once
#include "cuda/common/kernel.cuh"

namespace smelt {
namespace {

// What merge makes of the values of 32 lanes, in all of them. `value` has from_lane(distance).
template <class A, class Merge>
SMELT_WORD A merge_warp(A value, const Merge& merge) {
  for (int distance = 16; distance > 0; distance /= 2) {
    const A other = value.from_lane(distance);
    value = cuda::lane() & distance ? merge(other, value) : merge(value, other);
  }
  return value;
}

// Of the warps' values, in the threads of the first warp; `shared` has an element for each warp of the block.
template <class A, class Merge>
SMELT_WORD A merge_warps(A value, A* shared, const Merge& merge) {
  const int warps = static_cast<int>(blockDim.x) / 32;
  if (cuda::lane() == 0) shared[threadIdx.x / 32] = value;
  cuda::sync_threads();
  if (threadIdx.x < 32) {
    value = shared[0];
    for (int i = 1; i < warps; ++i) value = merge(value, shared[i]);
  }
  return value;
}

}  // namespace
}  // namespace smelt
