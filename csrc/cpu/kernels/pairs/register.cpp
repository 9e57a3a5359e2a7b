// All kernels of an instruction set that only adds products of bfloat16 to those below it.
#include "cpu/kernels/common.inl.h"
#include "cpu/kernels/families.h"

namespace smelt::cpu::SMELT_ISA {

void register_kernels(KernelTable& table) {
  register_gemm(table);
  register_conv(table);
  register_conv_planar(table);
  if constexpr (kIsa == Isa::avx512bf16) {  // AMX is faster than what they save
    register_conv_winograd(table);
    register_conv_winograd_weight(table);
  }
  register_attention(table);
  register_probe(table);
}

}  // namespace smelt::cpu::SMELT_ISA
