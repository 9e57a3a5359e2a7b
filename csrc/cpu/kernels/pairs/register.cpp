// All kernels of an instruction set that only adds products of bfloat16 to those below it.
#include "cpu/kernels/families.h"

namespace smelt::cpu::SMELT_ISA {

void register_kernels(KernelTable& table) {
  register_gemm(table);
  register_conv(table);
  register_attention(table);
  register_probe(table);
}

}  // namespace smelt::cpu::SMELT_ISA
