#include "ops/optimizer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <unordered_set>

#include "ops/common.h"

namespace smelt {
namespace {

constexpr int64_t kSegmentBytes = 256;
constexpr int64_t kTotalBytes = 16384;  // the whole buffer can be cut into equal shards

int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

}  // namespace

Optimizer::Optimizer(OptimizerKind kind, bool momentum, bool nesterov)
    : kind_(kind), momentum_(momentum), nesterov_(nesterov), clock_(make_ref<GradClock>()) {}

Optimizer::~Optimizer() { let_go(); }

void Optimizer::let_go() {
  for (Entry& e : entries_) {
    leaf_grad(e.tensor).owner = nullptr;
    e.tensor.storage().set_optimizer(nullptr);
  }
  entries_.clear();
  flats_.clear();
  released_ = true;
  if (layout_generation_ > 0) recording::change_layout();
}

std::vector<const char*> Optimizer::state_names() const {
  if (kind_ != OptimizerKind::sgd) return {"exp_avg", "exp_avg_sq"};
  if (momentum_) return {"momentum"};
  return {};
}

void Optimizer::add_group(const Group& group, const std::vector<std::pair<std::string, Tensor>>& parameters) {
  require(groups_.size() < kMaxGroups, "optimizer", "at most ", kMaxGroups, " parameter groups, got more");
  std::unordered_set<const TensorImpl*> seen;
  for (const auto& [name, t] : parameters) {  // nothing is changed before all have been checked
    const LeafGrad& grad = leaf_grad(t);
    require(seen.insert(t.impl()).second && grad.owner != this, "optimizer", "parameter '", name, "' is given twice");
    require(grad.owner == nullptr, "optimizer", "parameter '", name, "' already belongs to another optimizer; ",
            "call release() on that one, or delete it, first");
    const void* const other = t.storage().optimizer();
    require(other == nullptr || other == this, "optimizer", "parameter '", name,
            "' shares its memory with a parameter of another optimizer");
    require_type(t.dtype() == DType::float32 || t.dtype() == DType::float64, "optimizer", "parameter '", name,
                 "' must be float32 or float64, got ", t.dtype(), "; smelt.autocast computes in bfloat16 over float32 parameters");
    const Tensor& first = entries_.empty() ? parameters[0].second : entries_[0].tensor;
    require(t.device() == first.device(), "optimizer", "all parameters must be on ", first.device(), ", '", name,
            "' is on ", t.device());
  }
  if (layout_generation_ > 0) recording::change_layout();
  const int number = static_cast<int>(groups_.size());
  groups_.push_back(group);
  for (const auto& [name, t] : parameters) {
    leaf_grad(t).owner = this;
    t.storage().set_optimizer(this);
    leaf_grad(t).set_clock(clock_);
    Entry entry;
    entry.name = name;
    entry.tensor = t;
    entry.group = number;
    entries_.push_back(std::move(entry));
  }
}

Optimizer::Group& Optimizer::group(int index) {
  require(index >= 0 && index < group_count(), "optimizer", "group must be in [0, ", group_count(), "), got ", index);
  return groups_[index];
}

bool Optimizer::layout_is_current() const {
  for (const Entry& e : entries_) {
    if (e.tensor.impl()->requires_grad != (e.flat >= 0)) return false;
    if (e.flat >= 0 && (flats_[e.flat].dtype != e.tensor.dtype() ||
                        e.tensor.impl()->storage->base() != flats_[e.flat].param.impl()->storage))
      return false;
  }
  return true;
}

void Optimizer::pack() {
  OpScope scope("optimizer");
  NoGrad no_grad;
  if (layout_generation_ > 0 && layout_is_current()) return;
  for (const Entry& e : entries_) {
    const Storage& s = e.tensor.storage();
    const bool moves = e.tensor.impl()->requires_grad || s.base();
    if (moves && s.exports() > 0)
      fail(ErrorKind::runtime, "optimizer", "parameter '", e.name, "' is moved into a flat buffer now, but ",
           s.exports(), " NumPy or DLPack view of its memory is alive; delete that view first");
  }
  // Whatever can fail for want of memory comes first; until the exchange below everything is as it was.
  const Device device = entries_.empty() ? Device{} : entries_[0].tensor.device();
  std::vector<std::pair<int, int>> places(entries_.size(), {-1, -1});
  std::vector<Flat> fresh = lay_out(places, device);
  if (block_memory_ && block_memory_->device() != device) {
    skipped_ = skipped();
    block_memory_ = nullptr;
  }
  if (!block_memory_) {
    block_memory_ = Storage::allocate(sizeof(StepBlock), device);
    StepBlock first{};
    first.skipped = skipped_;
    backend(device).from_host(device, block_memory_->data(), &first, sizeof first);
  }
  const Ref<Storage> norms = Storage::allocate((fresh.size() + 1) * sizeof(double), device);
  for (size_t i = 0; i < entries_.size(); ++i) {
    TensorImpl* impl = entries_[i].tensor.impl();
    if (places[i].first < 0) {
      remove(entries_[i]);
    } else if (impl->offset != 0 || impl->storage->bytes() != static_cast<size_t>(entries_[i].tensor.nbytes())) {
      // A part of a larger tensor gets memory of its own: the larger one stays where it is.
      impl->storage = copy(entries_[i].tensor).impl()->storage;
      impl->offset = 0;
      impl->storage->set_optimizer(this);
    }
  }

  const std::vector<Flat> old = std::exchange(flats_, std::move(fresh));  // alive until every parameter has moved
  norm_memory_ = norms;
  for (size_t i = 0; i < entries_.size(); ++i) {
    std::tie(entries_[i].flat, entries_[i].segment) = places[i];
    if (entries_[i].flat >= 0) place(entries_[i], flats_[entries_[i].flat]);
  }
  const std::vector<double> unknown(flats_.size() + 1, std::numeric_limits<double>::quiet_NaN());
  backend(device).from_host(device, norm_memory_->data(), unknown.data(), unknown.size() * sizeof(double));
  ++layout_generation_;
}

// Buffers for the parameters that are not frozen, and the place of each: buffer and segment.
std::vector<Optimizer::Flat> Optimizer::lay_out(std::vector<std::pair<int, int>>& places, Device device) const {
  std::vector<Flat> flats;
  for (size_t i = 0; i < entries_.size(); ++i) {
    const Tensor& t = entries_[i].tensor;
    if (!t.impl()->requires_grad) continue;
    const auto found = std::find_if(flats.begin(), flats.end(), [&](const Flat& f) { return f.dtype == t.dtype(); });
    const auto number = static_cast<int>(found - flats.begin());
    if (found == flats.end()) flats.emplace_back().dtype = t.dtype();
    Flat& flat = flats[number];
    places[i] = {number, static_cast<int>(flat.segments.size())};
    flat.segments.push_back({.offset = flat.size, .length = t.numel(), .group = entries_[i].group, .active = 0});
    flat.entries.push_back(static_cast<int>(i));
    flat.size += round_up(t.nbytes(), kSegmentBytes) / dtype_size(flat.dtype);
  }
  for (Flat& flat : flats) {
    flat.size = round_up(flat.size * dtype_size(flat.dtype), kTotalBytes) / dtype_size(flat.dtype);
    flat.param = full(Shape{flat.size}, {}, flat.dtype, device);
    flat.grad = full(Shape{flat.size}, {}, flat.dtype, device);
    for (size_t i = 0; i < state_names().size(); ++i) flat.state[i] = full(Shape{flat.size}, {}, flat.dtype, device);
    flat.segment_memory = Storage::allocate(flat.segments.size() * sizeof(Segment), device);
    flat.write_segments();
  }
  return flats;
}

int64_t Optimizer::Flat::active() const {
  int64_t n = 0;
  for (const Segment& s : segments) n += s.active ? s.length : 0;
  return n;
}

void Optimizer::Flat::write_segments() const {
  if (segments == written) return;
  written = segments;
  backend(segment_memory->device()).from_host(segment_memory->device(), segment_memory->data(), segments.data(), segments.size() * sizeof(Segment));
}

void Optimizer::place(Entry& e, Flat& flat) {
  const int64_t offset = flat.segments[e.segment].offset;
  // The storage moves, so that every tensor that shares it follows.
  TensorImpl* impl = e.tensor.impl();
  impl->storage->move_into(flat.param.impl()->storage, static_cast<size_t>(offset * dtype_size(flat.dtype)));

  LeafGrad& grad = leaf_grad(e.tensor);
  const Tensor old_grad = visible_grad(e.tensor);
  grad.buffer = alias(flat.grad, e.tensor.shape(), offset);
  const auto move = [&](const Tensor& was, const Tensor& to) {
    const Tensor from = to_device(was, to.device());
    launch(CastArgs{.x = from.data(), .y = to.data(), .n = to.numel(), .from = from.dtype(), .to = to.dtype()},
           to.device());
  };
  if (old_grad) move(old_grad, grad.buffer);
  for (size_t i = 0; i < state_names().size(); ++i) {
    const Tensor view = alias(flat.state[i], e.tensor.shape(), offset);
    if (e.state[i]) move(e.state[i], view);
    e.state[i] = view;
  }
}

// A parameter that was frozen: value, gradient and state in memory of their own.
void Optimizer::remove(Entry& e) {
  if (e.flat < 0) return;
  if (e.tensor.impl()->storage->base()) e.tensor.impl()->storage->move_out();
  LeafGrad& grad = leaf_grad(e.tensor);
  if (grad.buffer) grad.buffer = copy(grad.buffer);
  for (Tensor& s : e.state)
    if (s) s = copy(s);
  e.flat = e.segment = -1;
}

Tensor Optimizer::state(int index, int which) {
  Entry& e = entries_.at(index);
  if (!e.state[which]) {
    NoGrad no_grad;
    e.state[which] = full(e.tensor.shape(), {}, e.tensor.dtype(), e.tensor.device());
  }
  return e.state[which];
}

void Optimizer::write_block() {
  const bool adam = kind_ != OptimizerKind::sgd;
  StepBlock next{};
  next.step = steps_;
  next.grad_scale = 1;
  for (int i = 0; i < group_count(); ++i) {
    const Group& g = groups_[i];
    StepBlock::Group& out = next.group[i];
    out = {.lr = g.lr, .weight_decay = g.weight_decay, .eps = g.eps, .beta1 = g.beta1, .beta2 = g.beta2,
           .inverse_bias_correction1 = 1, .inverse_sqrt_bias_correction2 = 1, .reserved = 0};
    if (!adam) continue;
    const double t = static_cast<double>(steps_);
    out.inverse_bias_correction1 = 1.0 / (1.0 - std::pow(g.beta1, t));
    out.inverse_sqrt_bias_correction2 = 1.0 / std::sqrt(1.0 - std::pow(g.beta2, t));
  }
  const Device device = block_memory_->device();
  backend(device).from_host(device, block_memory_->data(), &next, offsetof(StepBlock, skipped));
  for (const Flat& flat : flats_) flat.write_segments();
}

void Optimizer::clip(double clip_norm) {
  auto* sums = reinterpret_cast<double*>(norm_memory_->data());
  const Device device = block_memory_->device();
  for (size_t i = 0; i < flats_.size(); ++i) {
    const Flat& flat = flats_[i];
    launch(SumSquaresArgs{.grad = flat.grad.data(),
                          .segments = reinterpret_cast<const Segment*>(flat.segment_memory->data()), .sum = sums + i,
                          .count = static_cast<int64_t>(flat.segments.size()), .size = flat.size, .active = flat.active(), .dtype = flat.dtype},
           device);
  }
  launch(ClipScaleArgs{.sums = sums, .norm = sums + flats_.size(), .block = block(),
                       .count = static_cast<int64_t>(flats_.size()), .max_norm = clip_norm},
         device);
}

void Optimizer::before_update(Flat& flat, bool mirror) {
  flat.mirrored.clear();
  for (size_t i = 0; mirror && i < flat.entries.size(); ++i) {
    Storage& storage = entries_[flat.entries[i]].tensor.storage();
    if (storage.mirror_is_current()) flat.mirrored.push_back(&storage);
  }
}

void Optimizer::after_update(Flat& flat) {
  flat.param.storage().bump_version();
  for (Storage* storage : flat.mirrored) storage->mark_mirror();
}

void Optimizer::update(int64_t number) {
  Flat& flat = flats_[static_cast<size_t>(number)];
  Storage& whole = flat.param.storage();
  Recording* const recording = recording::current();
  if (recording && !recording->worked_on(&whole)) {  // whether the mirror was used since the last update tells the step's kind
    const HostCheck holds = [](RefCounted* object, int64_t used) { return static_cast<Storage*>(object)->mirror_used() == used; };
    recording->guard(holds, &whole, whole.mirror_used());
  }
  void* const mirror = recording::walking() ? nullptr : whole.mirror_in_use();
  const HostWork before = [](RefCounted* object, int64_t value) {
    auto* o = static_cast<Optimizer*>(object);
    Flat& updated = o->flats_[static_cast<size_t>(value / 2)];
    updated.param.storage().mirror_in_use();
    o->before_update(updated, value % 2);
  };
  perform(before, 2 * number + (mirror != nullptr));
  const auto* segments = reinterpret_cast<const Segment*>(flat.segment_memory->data());
  const auto count = static_cast<int64_t>(flat.segments.size());
  if (kind_ == OptimizerKind::sgd) {
    launch(SgdArgs{.param = flat.param.data(), .grad = flat.grad.data(),
                   .momentum = momentum_ ? flat.state[0].data() : nullptr, .mirror = mirror, .segments = segments, .block = block(),
                   .count = count, .size = flat.size, .active = flat.active(), .dtype = flat.dtype, .nesterov = nesterov_},
           flat.param.device());
  } else {
    launch(AdamArgs{.param = flat.param.data(), .grad = flat.grad.data(), .exp_avg = flat.state[0].data(),
                    .exp_avg_sq = flat.state[1].data(), .mirror = mirror, .segments = segments, .block = block(), .count = count,
                    .size = flat.size, .active = flat.active(), .dtype = flat.dtype, .decoupled = kind_ == OptimizerKind::adamw},
           flat.param.device());
  }
  const HostWork after = [](RefCounted* object, int64_t value) {
    auto* o = static_cast<Optimizer*>(object);
    o->after_update(o->flats_[static_cast<size_t>(value)]);
  };
  perform(after, number);
}

// Which segments take part, the step's number and what follows from it.
void Optimizer::begin() {
  bool any = false;
  for (Flat& flat : flats_) {
    for (size_t i = 0; i < flat.segments.size(); ++i) {
      const LeafGrad& grad = *entries_[flat.entries[i]].tensor.impl()->leaf_grad;
      flat.segments[i].active = grad.state() == GradState::filled;
      any = any || flat.segments[i].active;
    }
  }
  if (!any) fail(ErrorKind::runtime, "optimizer", "step() needs at least one gradient, got none: call backward() first");
  ++steps_;
  write_block();
}

int64_t Optimizer::skipped() {
  recording::read_value();
  if (!block_memory_) return skipped_;
  StepBlock now;
  backend(block_memory_->device()).to_host(block_memory_->device(), &now, block_memory_->data(), sizeof now);
  return now.skipped;
}

void Optimizer::set_skipped(int64_t skipped) {
  skipped_ = skipped;
  if (block_memory_)
    backend(block_memory_->device()).from_host(block_memory_->device(), &block()->skipped, &skipped, sizeof skipped);
}

int64_t Optimizer::steps() const {
  if (!block_memory_ || block_memory_->device().kind == DeviceKind::cpu) return steps_;
  const int64_t failed = failed_step();
  return failed ? std::min(steps_, failed - 1) : steps_;
}

int64_t Optimizer::failed_step() const {
  int64_t failed = 0;
  const Device device = block_memory_->device();
  backend(device).to_host(device, &failed, block_memory_->address() + offsetof(StepBlock, failed), sizeof failed);
  return failed;
}

void Optimizer::retract() {
  if (!block_memory_ || !failed_step()) return;
  steps_ = steps();
  const Device device = block_memory_->device();
  const struct {
    int64_t failed = 0;
    DeviceFault fault{};
  } none;
  backend(device).from_host(device, &block()->failed, &none, sizeof none);
}

Tensor Optimizer::status() {
  pack();
  constexpr int64_t kOffset = offsetof(StepBlock, skipped);
  static_assert(sizeof(StepBlock) - kOffset == 5 * sizeof(int64_t));
  return Tensor(make_ref<TensorImpl>(block_memory_, kOffset, Shape{5}, DType::int64));
}

void Optimizer::restore_if_failed(const Tensor& x, const Tensor& before) {
  OpScope scope("optimizer");
  launch(RestoreArgs{.from = before.data(), .to = x.data(), .block = block(), .bytes = x.nbytes()}, x.device());
}

void Optimizer::step(double clip_norm, const Tensor& loss) {
  OpScope scope("optimizer");
  if (released_) fail(ErrorKind::runtime, "optimizer", "release() was called: it has no parameters any more");
  pack();
  WithoutInterpreterLock unlocked(true);
  std::vector<Ref<Storage>> written{block_memory_};
  for (const Flat& flat : flats_) written.push_back(flat.segment_memory);
  perform([](RefCounted* object, int64_t) { static_cast<Optimizer*>(object)->begin(); }, 0, written);
  if (loss) launch(GuardLossArgs{.loss = loss.data(), .block = block(), .dtype = loss.dtype()}, block_memory_->device());
  if (clip_norm > 0) clip(clip_norm);
  for (size_t i = 0; i < flats_.size(); ++i) update(static_cast<int64_t>(i));
  clock_->age();
}

double Optimizer::last_norm() {
  recording::read_value();
  if (!norm_memory_) return std::numeric_limits<double>::quiet_NaN();
  double norm;
  backend(norm_memory_->device()).to_host(norm_memory_->device(), &norm, norm_memory_->data() + flats_.size() * sizeof(double), sizeof norm);
  return norm;
}

std::optional<Tensor> packed_in(const std::vector<Tensor>& tensors) {
  const Ref<Storage>& base = tensors[0].storage().base();
  for (const Tensor& t : tensors)
    if (!base || t.storage().base() != base) return {};
  return Tensor(make_ref<TensorImpl>(base, 0, Shape{static_cast<int64_t>(base->bytes())}, DType::uint8));
}

// Storages move, not tensors: views of them follow.
Tensor pack_together(const std::vector<Tensor>& tensors) {
  OpScope scope("optimizer");
  NoGrad no_grad;
  std::vector<Storage*> storages;
  int64_t bytes = 0;
  for (const Tensor& t : tensors) {
    Storage& s = t.storage();
    if (std::find(storages.begin(), storages.end(), &s) != storages.end()) continue;
    if (s.exports() > 0)
      fail(ErrorKind::runtime, "optimizer", "a buffer is moved into one piece of memory now, but ", s.exports(),
           " NumPy or DLPack view of it is alive; delete that view first");
    storages.push_back(&s);
    bytes += round_up(static_cast<int64_t>(s.bytes()), kSegmentBytes);
  }
  const Tensor whole = full(Shape{bytes}, {}, DType::uint8, tensors[0].device());
  int64_t offset = 0;
  for (Storage* s : storages) {
    if (s->base()) s->move_out();
    s->move_into(whole.impl()->storage, static_cast<size_t>(offset));
    offset += round_up(static_cast<int64_t>(s->bytes()), kSegmentBytes);
  }
  return whole;
}

}  // namespace smelt
