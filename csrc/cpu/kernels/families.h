// The kernel files of one instruction set, by family: each adds its kernels to the table.
#pragma once
#include "core/table.h"

namespace smelt::cpu::SMELT_ISA {

void register_kernels(KernelTable& table);
void register_fill(KernelTable& table);       // fill.cpp: fill, arange, cast, copy
void register_unary(KernelTable& table);
void register_binary(KernelTable& table);     // binary.cpp: binary, where
void register_reduce(KernelTable& table);     // reduce.cpp: reduce, cumsum, sort
void register_index(KernelTable& table);
void register_gemm(KernelTable& table);
void register_conv(KernelTable& table);       // convolutions of any kind, as matrix products
void register_conv_winograd(KernelTable& table);
void register_conv_winograd_weight(KernelTable& table);
void register_conv_planar(KernelTable& table);
void register_conv_narrow(KernelTable& table);
void register_conv_depthwise(KernelTable& table);
void register_pool(KernelTable& table);
void register_norm(KernelTable& table);
void register_batch_norm(KernelTable& table);
void register_group_norm(KernelTable& table);
void register_attention(KernelTable& table);
void register_softmax(KernelTable& table);    // softmax.cpp: softmax, cross_entropy
void register_loss(KernelTable& table);
void register_random(KernelTable& table);
void register_optimizer(KernelTable& table);
void register_probe(KernelTable& table);

}  // namespace smelt::cpu::SMELT_ISA
