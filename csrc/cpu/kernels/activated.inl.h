// Activations of sums that stand in registers.
#pragma once
#include "cpu/kernels/common.inl.h"
#include "formulas/unary.inl.h"

namespace smelt {
namespace {

// Out of line where it would be repeated after many sums: the functions are large.
template <class V>
__attribute__((noinline)) V activated(Activation activation, V x) {
  return activate(activation, x);
}

}  // namespace
}  // namespace smelt
