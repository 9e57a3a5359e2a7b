// Walks over arrays of one shape with strides of their own.
#pragma once
#include "cuda/common/kernel.cuh"

namespace smelt {
namespace {

// K arrays beside a dense one. Axes of one element are dropped, and neighbours joined where that is one step for all.
template <int K>
struct Walk {
  int rank = 0;
  int64_t n = 1;
  int64_t shape[kMaxRank];
  int64_t stride[K][kMaxRank];  // in elements

  Walk(int whole_rank, const int64_t* whole_shape, const int64_t* const (&strides)[K]) {
    for (int axis = 0; axis < whole_rank; ++axis) {
      n *= whole_shape[axis];
      if (whole_shape[axis] == 1) continue;
      bool joins = rank > 0;
      for (int k = 0; k < K && joins; ++k) joins = stride[k][rank - 1] == strides[k][axis] * whole_shape[axis];
      if (!joins) shape[rank++] = 1;
      shape[rank - 1] *= whole_shape[axis];
      for (int k = 0; k < K; ++k) stride[k][rank - 1] = strides[k][axis];
    }
  }

  // Offsets of element i of the dense array.
  SMELT_HOST_DEVICE void offsets(int64_t i, int64_t (&offset)[K]) const {
    for (int k = 0; k < K; ++k) offset[k] = 0;
    if (n < int64_t{1} << 31) return split(static_cast<uint32_t>(i), offset);
    split(static_cast<uint64_t>(i), offset);
  }
  // Along the last axis the arrays are dense or constant, and packs of W lie within it and at multiples of their size.
  bool packs(int width) const {
    if (rank == 0) return false;
    for (int k = 0; k < K; ++k) {
      if (stride[k][rank - 1] != 0 && stride[k][rank - 1] != 1) return false;
      for (int axis = 0; axis + 1 < rank; ++axis)
        if (stride[k][axis] % width) return false;
    }
    return rank == 1 || shape[rank - 1] % width == 0;
  }

 private:
  template <class Index>
  SMELT_HOST_DEVICE void split(Index rest, int64_t (&offset)[K]) const {
    SMELT_UNROLL
    for (int axis = kMaxRank - 1; axis >= 0; --axis) {
      if (axis >= rank) continue;
      const Index extent = static_cast<Index>(shape[axis]), at = axis ? rest % extent : rest;
      rest = axis ? rest / extent : 0;
      for (int k = 0; k < K; ++k) offset[k] += static_cast<int64_t>(at) * stride[k][axis];
    }
  }
};

}  // namespace
}  // namespace smelt
