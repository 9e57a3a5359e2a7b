#include "cpu/cpu_backend.h"

#include "cpu/cpu_info.h"

namespace smelt::cpu {

Backend* make_backend() {
  auto* b = new Backend;
  b->name = "cpu";
  b->devices = 1;
  b->allocators = {&cpu_allocator()};
  portable::register_kernels(b->table);
#ifdef SMELT_X86
  if (detected_isa() >= Isa::avx2) avx2::register_kernels(b->table);
  if (detected_isa() >= Isa::avx512) avx512::register_kernels(b->table);
  if (detected_isa() >= Isa::avx512bf16) avx512bf16::register_kernels(b->table);
  if (detected_isa() >= Isa::amx) amx::register_kernels(b->table);
#endif
  b->table.check();
  return b;
}

}  // namespace smelt::cpu
