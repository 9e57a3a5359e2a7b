// All kernels of one instruction set.
#include "cpu/kernels/families.h"

namespace smelt::cpu::SMELT_ISA {

void register_kernels(KernelTable& table) {
  register_fill(table);
  register_unary(table);
  register_binary(table);
  register_reduce(table);
  register_index(table);
  register_gemm(table);
  register_conv(table);
  register_conv_winograd(table);
  register_conv_winograd_weight(table);
  register_conv_planar(table);
  register_conv_narrow(table);
  register_conv_depthwise(table);
  register_pool(table);
  register_norm(table);
  register_batch_norm(table);
  register_group_norm(table);
  register_attention(table);
  register_softmax(table);
  register_loss(table);
  register_random(table);
  register_optimizer(table);
  register_probe(table);
}

}  // namespace smelt::cpu::SMELT_ISA
