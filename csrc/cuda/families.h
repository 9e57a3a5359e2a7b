// The kernel files, by family: each hands its kernels over.
#pragma once
#include "core/table.h"

namespace smelt::cuda {

struct Taker {
  void (*take)(void* to, int slot, const Candidate& candidate);
  void* to;
};

void register_fill(const Taker& taker);    // fill.cu: fill, arange, cast, copy
void register_unary(const Taker& taker);
void register_binary(const Taker& taker);  // binary.cu: binary, where
void register_reduce(const Taker& taker);
void register_gemm(const Taker& taker);

inline void register_kernels(const Taker& taker) {
  register_fill(taker);
  register_unary(taker);
  register_binary(taker);
  register_reduce(taker);
  register_gemm(taker);
}

}  // namespace smelt::cuda
