#include "cpu/cpu_backend.h"

#include <cstring>

#include "cpu/cpu_info.h"

namespace smelt::cpu {
namespace {

void copy_bytes(void* to, const void* from, size_t bytes) {
  if (bytes) std::memcpy(to, from, bytes);
}

}  // namespace

Backend* make_backend() {
  auto* b = new Backend;
  b->name = "cpu";
  b->devices = 1;
  b->allocator = &cpu_allocator();
  b->copy = b->to_host = b->from_host = copy_bytes;
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
