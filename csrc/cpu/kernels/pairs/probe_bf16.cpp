// The limit of the unit that multiplies pairs of bfloat16.
#include "cpu/kernels/families.h"
#include "pairs.h"  // of the instruction set

namespace smelt {
namespace {

bool takes(const ProbeArgs& a) { return a.kind == ProbeKind::fma_bf16 && a.n >= PairTile::kProbe; }

Status probe(const ProbeArgs& a, Context& context) noexcept {
  double done[256] = {};
  parallel_chunks(context, context.threads, [&](int64_t i, int) { done[i] = PairTile::probe(a.memory, a.rounds); });
  *a.done = 0;
  for (int64_t i = 0; i < context.threads; ++i) *a.done += done[i];
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_probe(KernelTable& table) { add_kernel<ProbeArgs, probe, takes>(table, SMELT_KERNEL_NAME("probe")); }
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
