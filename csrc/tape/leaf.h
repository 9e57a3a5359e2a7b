// The gradient of a leaf and its stamp: whether it is empty, filled or stale.
#pragma once
#include <functional>
#include <vector>

#include "core/tensor.h"

namespace smelt {

// Shared by all gradients of one optimizer, so that zero_grad() and step() cost O(1).
class GradClock final : public RefCounted {
 public:
  uint64_t now = 1;
  uint64_t cleared = 0;
  void clear();  // all become empty
  void age();    // the filled become stale
};

enum class GradState { empty, filled, stale };

using GradHook = std::function<Tensor(const Tensor&)>;  // returns the gradient to use, or none

class LeafGrad final : public RefCounted {
 public:
  LeafGrad() : clock_(make_ref<GradClock>()) {}

  GradState state() const {
    if (filled_at_ == clock_->now) return GradState::filled;
    return filled_at_ > clock_->cleared ? GradState::stale : GradState::empty;
  }
  // Everything of it that a backward changes, to be put back after a walk.
  void restore_after(Recording& walk);
  void mark_filled() { filled_at_ = clock_->now; }
  void mark_empty() { filled_at_ = 0; }

  // Uses `clock` from now on; the state is kept.
  void set_clock(Ref<GradClock> clock);
  const Ref<GradClock>& clock() const { return clock_; }

  Tensor buffer;  // none before the first backward
  std::vector<std::pair<int64_t, GradHook>> hooks;
  const void* owner = nullptr;  // the optimizer that this parameter belongs to

 private:
  Ref<GradClock> clock_;
  uint64_t filled_at_ = 0;
};

// The gradient record of a leaf, made on first use.
LeafGrad& leaf_grad(const Tensor& leaf);
// What `.grad` shows: none when empty.
Tensor visible_grad(const Tensor& leaf);
void set_grad(const Tensor& leaf, const Tensor& grad);  // none: empty

// Where a backward kernel writes: `accumulate` adds, otherwise the content is overwritten without being read.
struct GradTarget {
  Tensor tensor;
  bool accumulate = false;
};
GradTarget leaf_target(const Tensor& leaf);

}  // namespace smelt
