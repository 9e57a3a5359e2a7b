// Attention in the vectors of an instruction set: halves are widened when they are packed.
#include "cpu/kernels/attention_backward.inl.h"
#include "cpu/kernels/attention_forward.inl.h"
#include "cpu/kernels/families.h"

namespace smelt {
namespace {

Status attention(const AttentionArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) { AttentionForward<WideOperands<S>>(a).run(context); });
  return Status::ok;
}
size_t workspace(const AttentionArgs& a, int threads) {
  return with_floating(a.dtype, [&]<class S>(S) { return AttentionForward<WideOperands<S>>(a).workspace(threads); });
}

Status attention_backward(const AttentionBackwardArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) { AttentionBackward<WideOperands<S>>(a).run(context); });
  return Status::ok;
}
size_t backward_workspace(const AttentionBackwardArgs& a, int threads) {
  return with_floating(a.dtype, [&]<class S>(S) { return AttentionBackward<WideOperands<S>>(a).workspace(threads); });
}

bool takes(const AttentionArgs& a) { return is_floating(a.dtype); }
bool takes_backward(const AttentionBackwardArgs& a) { return takes_sums(a.dtype, a.grad_dtype); }

}  // namespace

namespace cpu::SMELT_ISA {
void register_attention(KernelTable& table) {
  add_kernel<AttentionArgs, attention, takes, workspace>(table, SMELT_KERNEL_NAME("attention"));
  add_kernel<AttentionBackwardArgs, attention_backward, takes_backward, backward_workspace>(
      table, SMELT_KERNEL_NAME("attention_backward"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
