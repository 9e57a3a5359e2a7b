// THE TABLE. Every slot of it is one plain-data argument struct: a kernel of that slot is a function
//
//     Status kernel(const Args&, Context&) noexcept
//
// that never allocates, throws, keeps state or checks its input: the ops layer has done that. The struct lists its
// buffers (`buffers()`), and recorder, dry run, alias checks and lanes read that list and nothing else.
// `work()` says how much a call has to do: profiles hang on it, and whether other Python threads may run meanwhile. `ns()` is
// the time on one core where that is far more than the work tells.
// Tensors are dense and row-major; images are (N, H, W, C), convolution weights (K, R, S, C / groups).
//
// The structs stand in core/slots, by family.
//
// Shape letters: N batch, H W height and width of the input, P Q of the output, C K channels in and out, R S kernel
// height and width; M N K rows, columns and depth of a matrix product; B batch, H heads, T time, D features.
#pragma once
#include <tuple>
#include <type_traits>

#include "core/slots/arrays.h"
#include "core/slots/elementwise.h"
#include "core/slots/losses.h"
#include "core/slots/normalisation.h"
#include "core/slots/optimizers.h"
#include "core/slots/products.h"

namespace smelt {

using Slots =
    std::tuple<FillArgs, ArangeArgs, CastArgs, CopyArgs, UnaryArgs, UnaryBackwardArgs, BinaryArgs, WhereArgs,
               ReduceArgs, CumsumArgs, SortArgs, CheckIndexArgs, TakeArgs, PutArgs, GatherArgs, ScatterAddArgs,
               NonzeroArgs, GemmArgs, Conv2dArgs, Conv2dBackwardInputArgs, Conv2dBackwardWeightArgs, Pool2dArgs,
               Pool2dBackwardArgs, BatchNormArgs, BatchNormBackwardArgs, LayerNormArgs, LayerNormBackwardArgs,
               RmsNormArgs, RmsNormBackwardArgs, GroupNormArgs, GroupNormBackwardArgs, AttentionArgs,
               AttentionBackwardArgs, SoftmaxArgs, SoftmaxBackwardArgs, CrossEntropyArgs, CrossEntropyBackwardArgs, LossArgs,
               LossBackwardArgs, RandomArgs, DropoutArgs, SumSquaresArgs, GuardLossArgs, RestoreArgs, ClipScaleArgs, SgdArgs,
               AdamArgs, ProbeArgs>;
constexpr int kSlotCount = std::tuple_size_v<Slots>;

template <class A, class... All>
constexpr int place_among(const std::tuple<All...>*) {
  int place = 0;
  bool found = false;
  ((found = found || std::is_same_v<A, All>, place += !found), ...);
  return place;
}

// The number of an argument struct's slot.
template <class Args>
constexpr int slot_of = place_among<Args>(static_cast<const Slots*>(nullptr));

}  // namespace smelt
