// Convolutions in float32 of what may be stored in bfloat16.
#pragma once
#include "cpu/kernels/common.inl.h"

namespace smelt {
namespace {

// Formats of pictures and filters, S, and of the result, O: sums are float32's. Next to the kernels for pairs of bfloat16 stand
// those for bfloat16 alone.
constexpr bool kBesidePairs = kIsa == Isa::avx512bf16 || kIsa == Isa::amx;
inline bool takes_formats(DType dtype, DType result) {
  if (dtype == DType::bfloat16) return result == DType::bfloat16 || result == DType::float32;
  return !kBesidePairs && dtype == DType::float32 && result == DType::float32;
}
template <class F>
auto with_formats(DType dtype, DType result, const F& f) {
  if constexpr (!kBesidePairs)
    if (dtype == DType::float32) return f(float{}, float{});
  return result == DType::float32 ? f(bfloat16{}, float{}) : f(bfloat16{}, bfloat16{});
}

}  // namespace
}  // namespace smelt
