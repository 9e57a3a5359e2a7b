#include "tape/leaf.h"

#include "core/error.h"
#include "core/launch.h"

namespace smelt {

namespace {

// Done in a walk too, whose end undoes it.
void tick(GradClock& clock, HostWork work) {
  if (Recording* r = recording::current()) {
    if (r->walking())
      r->restore_later([kept = Ref<GradClock>(&clock), now = clock.now, cleared = clock.cleared] {
        kept->now = now;
        kept->cleared = cleared;
      });
    r->host(work, &clock, 0, true);
  }
  const recording::Paused paused;
  work(&clock, 0);
}

}  // namespace

void GradClock::clear() {
  tick(*this, [](RefCounted* object, int64_t) {
    auto* clock = static_cast<GradClock*>(object);
    clock->cleared = clock->now++;
  });
}

void GradClock::age() {
  tick(*this, [](RefCounted* object, int64_t) { ++static_cast<GradClock*>(object)->now; });
}

void LeafGrad::restore_after(Recording& walk) {
  walk.restore_later([kept = Ref<LeafGrad>(this), old = buffer, filled = filled_at_] {
    kept->buffer = old;
    kept->filled_at_ = filled;
  });
}

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
  if (Recording* r = recording::current()) {
    LeafGrad& own = leaf_grad(leaf);  // whether there is a gradient may decide what the step does
    const HostCheck holds = [](RefCounted* object, int64_t visible) {
      return (static_cast<LeafGrad*>(object)->state() != GradState::empty) == (visible != 0);
    };
    if (!r->worked_on(&own) && !r->worked_on(own.clock().get())) r->guard(holds, &own, own.state() != GradState::empty);
  }
  const Ref<LeafGrad>& grad = leaf.impl()->leaf_grad;
  return grad && grad->state() != GradState::empty ? grad->buffer : Tensor();
}

GradTarget leaf_target(const Tensor& leaf) {
  LeafGrad& grad = leaf_grad(leaf);
  Recording* const recording = recording::current();
  if (recording && recording->walking()) grad.restore_after(*recording);
  const Tensor& old = grad.buffer;
  if (!old || old.dtype() != leaf.dtype() || old.device() != leaf.device() || old.shape() != leaf.shape()) {
    const recording::Paused paused;  // the buffer outlives the step
    grad.mark_empty();  // the leaf was given other data: what an old buffer holds is not its gradient
    grad.buffer = empty(leaf.shape(), leaf.dtype(), leaf.device());
  }
  const bool accumulate = grad.state() == GradState::filled;
  if (recording) {
    const HostCheck holds = [](RefCounted* object, int64_t filled) {
      return (static_cast<LeafGrad*>(object)->state() == GradState::filled) == (filled != 0);
    };
    if (!recording->worked_on(&grad) && !recording->worked_on(grad.clock().get())) recording->guard(holds, &grad, accumulate);
    recording->host([](RefCounted* object, int64_t) { static_cast<LeafGrad*>(object)->mark_filled(); }, &grad, 0, true);
  }
  grad.mark_filled();
  grad.buffer.storage().bump_version();
  return {grad.buffer, accumulate};
}

void set_grad(const Tensor& leaf, const Tensor& value) {
  LeafGrad& grad = leaf_grad(leaf);
  const auto empty_it = [&] {
    Recording* const recording = recording::current();
    if (recording && recording->walking()) grad.restore_after(*recording);
    recording::host([](RefCounted* object, int64_t) { static_cast<LeafGrad*>(object)->mark_empty(); }, &grad);
    grad.mark_empty();
  };
  if (!value) return empty_it();
  require(value.shape() == leaf.shape(), "grad", "shape must be ", leaf.shape(), ", got ", value.shape());
  require_type(value.dtype() == leaf.dtype(), "grad", "dtype must be ", leaf.dtype(), ", got ", value.dtype());
  empty_it();
  const GradTarget target = leaf_target(leaf);
  launch(CastArgs{.x = value.data(), .y = target.tensor.data(), .n = value.numel(), .from = value.dtype(),
                  .to = leaf.dtype()},
         leaf.device());
}

}  // namespace smelt
