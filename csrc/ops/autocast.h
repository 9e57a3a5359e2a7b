// Mixed precision: in which dtype each op computes while autocast is on. Parameters stay float32.
#pragma once
#include <string_view>

#include "tape/node.h"

namespace smelt {

enum class Policy : uint8_t {
  low,      // float32 operands are taken in the low dtype; products are summed in float32
  float32,  // operands of the low dtype are taken in float32
};

// THE POLICY TABLE. Every op that is not in it follows its operands: low in and low out, computed in float32, parameters and
// statistics float32; where operands differ, the low dtype wins.
struct OpPolicy {
  std::string_view op;
  Policy policy;
};
inline constexpr OpPolicy kPolicies[] = {
    {"linear", Policy::low},
    {"matmul", Policy::low},
    {"conv1d", Policy::low},
    {"conv2d", Policy::low},
    {"conv_transpose1d", Policy::low},
    {"conv_transpose2d", Policy::low},
    {"attention", Policy::low},
    {"attention_packed", Policy::low},
    {"sum", Policy::float32},
    {"mean", Policy::float32},
    {"prod", Policy::float32},
    {"cumsum", Policy::float32},
    {"cross_entropy", Policy::float32},
    {"mse_loss", Policy::float32},
    {"l1_loss", Policy::float32},
    {"huber_loss", Policy::float32},
    {"binary_cross_entropy_with_logits", Policy::float32},
};

consteval Policy policy_of(std::string_view op) {
  for (const OpPolicy& p : kPolicies)
    if (p.op == op) return p.policy;
  throw "the op is not in the table";
}

// The low dtype of this thread; float32 while autocast is off.
DType autocast_dtype();
inline bool autocast_on() { return autocast_dtype() != DType::float32; }
void set_autocast_dtype(DType dtype);

inline bool is_half(DType dtype) { return dtype == DType::bfloat16 || dtype == DType::float16; }
// Halves in float32, on the tape; others as they are.
Tensor in_float32(const Tensor& x);
// The dtype of several operands together: the low one where autocast is on and one has it, else the widest.
DType common_dtype(DType a, DType b);

// An operand of an op whose policy is low, off the tape: its backward gives the gradient in the dtype of the operand itself.
// Of a parameter this is the mirror beside its memory, which the optimizer writes along with it.
Tensor working(const Tensor& x);
DType working_dtype(const Tensor& x);
// TypeError with the dtypes that were given unless the working ones agree.
void require_one_dtype(const char* op, const char* what, const Tensor& x, const char* other, const Tensor& y);
// What backward needs of it; changes of the parameter are seen.
Saved save_working(const Tensor& low, const Tensor& x);

}  // namespace smelt
