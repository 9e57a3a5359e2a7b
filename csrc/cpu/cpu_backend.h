// The CPU as a backend.
#pragma once
#include "core/backend.h"

namespace smelt::cpu {

Backend* make_backend();

// One for each instruction set that is compiled in; each prepends its kernels to the table.
namespace portable {
void register_kernels(KernelTable& table);
}
#ifdef SMELT_X86
namespace avx2 {
void register_kernels(KernelTable& table);
}
namespace avx512 {
void register_kernels(KernelTable& table);
}
namespace avx512bf16 {
void register_kernels(KernelTable& table);
}
namespace amx {
void register_kernels(KernelTable& table);
}
#endif

}  // namespace smelt::cpu
