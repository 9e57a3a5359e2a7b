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
void register_reduce(const Taker& taker);  // reduce.cu: reduce, cumsum, sort
void register_index(const Taker& taker);
void register_gemm(const Taker& taker);
void register_conv(const Taker& taker);
void register_pool(const Taker& taker);
void register_norm(const Taker& taker);
void register_softmax(const Taker& taker);  // softmax.cu: softmax, cross_entropy
void register_loss(const Taker& taker);
void register_random(const Taker& taker);
void register_optimizer(const Taker& taker);
void register_probe(const Taker& taker);

inline void register_kernels(const Taker& taker) {
  register_fill(taker);
  register_unary(taker);
  register_binary(taker);
  register_reduce(taker);
  register_index(taker);
  register_gemm(taker);
  register_conv(taker);
  register_pool(taker);
  register_norm(taker);
  register_softmax(taker);
  register_loss(taker);
  register_random(taker);
  register_optimizer(taker);
  register_probe(taker);
}

}  // namespace smelt::cuda
