#include "tape/leaf.h"

#include "core/error.h"
#include "core/launch.h"

namespace smelt {

void LeafGrad::set_clock(Ref<GradClock> clock) {
  const GradState state = this->state();
  clock_ = std::move(clock);
  // A clock always has room for "filled before now, after the last clearing": now starts at 1 and cleared at 0.
  if (state == GradState::empty) mark_empty();
  if (state == GradState::filled) mark_filled();
  if (state == GradState::stale) {
    if (clock_->cleared + 1 >= clock_->now) clock_->age();
    filled_at_ = clock_->now - 1;
  }
}

LeafGrad& leaf_grad(const Tensor& leaf) {
  Ref<LeafGrad>& grad = leaf.impl()->leaf_grad;
  if (!grad) grad = make_ref<LeafGrad>();
  return *grad;
}

Tensor visible_grad(const Tensor& leaf) {
  const Ref<LeafGrad>& grad = leaf.impl()->leaf_grad;
  return grad && grad->state() != GradState::empty ? grad->buffer : Tensor();
}

GradTarget leaf_target(const Tensor& leaf) {
  LeafGrad& grad = leaf_grad(leaf);
  const Tensor& old = grad.buffer;
  if (!old || old.dtype() != leaf.dtype() || old.device() != leaf.device() || old.shape() != leaf.shape()) {
    grad.mark_empty();  // the leaf was given other data: what an old buffer holds is not its gradient
    grad.buffer = empty(leaf.shape(), leaf.dtype(), leaf.device());
  }
  const bool accumulate = grad.state() == GradState::filled;
  grad.mark_filled();
  grad.buffer.storage().bump_version();
  return {grad.buffer, accumulate};
}

void set_grad(const Tensor& leaf, const Tensor& value) {
  LeafGrad& grad = leaf_grad(leaf);
  if (!value) {
    grad.mark_empty();
    return;
  }
  require(value.shape() == leaf.shape(), "grad", "shape must be ", leaf.shape(), ", got ", value.shape());
  require_type(value.dtype() == leaf.dtype(), "grad", "dtype must be ", leaf.dtype(), ", got ", value.dtype());
  grad.mark_empty();
  const GradTarget target = leaf_target(leaf);
  launch(CastArgs{.x = value.data(), .y = target.tensor.data(), .n = value.numel(), .from = value.dtype(),
                  .to = leaf.dtype()},
         leaf.device());
}

}  // namespace smelt
