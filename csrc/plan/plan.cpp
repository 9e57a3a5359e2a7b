#include "plan/plan.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>

#include "core/float_environment.h"
#include "core/thread_pool.h"
#include "ops/ops.h"

namespace smelt {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kNone = ~size_t{0};
constexpr double kReleaseNs = 100e3;  // of estimated work, from which on other Python threads may run meanwhile
constexpr double kLongNs = 10e6;      // of estimated work, from which on the clock is watched
constexpr auto kSignals = std::chrono::milliseconds(200);  // between looks at signals

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

// The largest first, each at the lowest offset where it fits between those placed that are in use at the same time.
size_t place_blocks(std::vector<PlacedBlock>& blocks) {
  std::vector<size_t> order(blocks.size()), placed, beside;
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return blocks[a].bytes > blocks[b].bytes; });
  size_t whole = 0;
  for (const size_t i : order) {
    PlacedBlock& block = blocks[i];
    if (!block.bytes) continue;
    beside.clear();
    for (const size_t j : placed)
      if (blocks[j].first <= block.last && block.first <= blocks[j].last) beside.push_back(j);
    std::sort(beside.begin(), beside.end(), [&](size_t a, size_t b) { return blocks[a].offset < blocks[b].offset; });
    size_t offset = 0;
    for (const size_t j : beside) {
      if (offset + block.bytes <= blocks[j].offset) break;
      offset = std::max(offset, blocks[j].offset + aligned(blocks[j].bytes));
    }
    block.offset = offset;
    placed.push_back(i);
    whole = std::max(whole, offset + block.bytes);
  }
  return whole;
}

char* Arena::at_least(size_t bytes, Device device) {
  if (!memory_ || memory_->bytes() < bytes) {
    memory_ = nullptr;  // first, so that the larger one may take its place
    memory_ = Storage::allocate(bytes, device);
  }
  return memory_->data();
}

Plan::Plan(RecordedStep step, Ref<Arena> arena)
    : step_(std::move(step)), arena_(std::move(arena)), threads_(num_threads()), args_(step_.args) {
  find_lifetimes();
  add_workspaces();
  add_backups();
  bytes_ = place_blocks(blocks_);
}

void Plan::find_lifetimes() {
  blocks_.resize(step_.blocks.size());
  for (size_t i = 0; i < blocks_.size(); ++i) blocks_[i] = {step_.blocks[i], 0, kNone, 0};
  const auto extend = [&](Place place, size_t call) {
    if (place.kind() != Place::Kind::block) return;
    PlacedBlock& block = blocks_[place.number()];
    block.first = std::min(block.first, call);
    block.last = std::max(block.last, call);
  };
  part_ns_.assign(step_.cuts.size() + 1, 0);
  for (size_t i = 0, part = 0; i < step_.calls.size(); ++i) {
    while (i >= part_end(part)) ++part;
    const RecordedCall& call = step_.calls[i];
    if (!call.candidate) continue;
    each_buffer(call.slot, step_.arguments(call), [&](const char* field, Access) {
      const Place place = Place::of(field);
      extend(place, i);
      char* const own = reinterpret_cast<char*>(args_.data()) + (field - reinterpret_cast<const char*>(step_.args.data()));
      if (place.kind() == Place::Kind::block) in_arena_.push_back({own, place});
      if (place.kind() == Place::Kind::input) in_inputs_.push_back({own, place});
    });
    // What a slot says of its time may ask tables in memory, through pointers that must be in place.
    const bool in_place = std::all_of(slot_info(call.slot).buffers.begin(), slot_info(call.slot).buffers.end(),
                                      [](const BufferField& f) { return !f.persistent; });
    part_ns_[part] += in_place ? slot_info(call.slot).ns(step_.arguments(call)) : kReleaseNs;
  }
  for (const RecordedOutput& output : step_.outputs) extend(output.place, step_.calls.size());
  for (PlacedBlock& block : blocks_)
    if (block.first == kNone) block = {};  // made, and used by no kernel
}

void Plan::add_workspaces() {
  workspaces_.assign(step_.calls.size(), nullptr);
  workspace_block_.assign(step_.calls.size(), kNone);
  for (size_t i = 0; i < step_.calls.size(); ++i) {
    const RecordedCall& call = step_.calls[i];
    const size_t bytes = call.candidate && call.candidate->workspace ? call.candidate->workspace(step_.arguments(call), threads_) : 0;
    if (!bytes) continue;
    workspace_block_[i] = blocks_.size();
    blocks_.push_back({bytes, 0, i, i});
  }
}

// The first of several parts can be undone: room for what it writes to memory that outlives the step.
void Plan::add_backups() {
  if (step_.cuts.empty()) return;
  for (const Ref<Storage>& storage : step_.memory) {
    bool written = false;
    for (size_t i = 0; i < part_end(0) && !written; ++i) {
      const RecordedCall& call = step_.calls[i];
      if (!call.candidate) continue;
      each_buffer(call.slot, step_.arguments(call), [&](const char* field, Access access) {
        const auto p = reinterpret_cast<const char*>(Place::of(field).bits());
        written = written || (access != Access::in && Place::of(field).kind() == Place::Kind::kept && p >= storage->address() &&
                              p < storage->address() + storage->bytes());
      });
    }
    if (!written) continue;
    backups_.push_back({storage, blocks_.size()});
    blocks_.push_back({storage->bytes(), 0, 0, part_end(0)});
  }
}

// Sets the pointers that lead into the arena, which may have moved.
void Plan::settle() {
  char* const base = arena_->at_least(bytes_, Device{});
  if (base == base_) return;
  for (const Patch& patch : in_arena_) {
    char* const p = base + blocks_[patch.place.number()].offset + patch.place.offset();
    std::memcpy(patch.field, &p, sizeof p);
  }
  for (size_t i = 0; i < workspaces_.size(); ++i)
    if (workspace_block_[i] != kNone) workspaces_[i] = base + blocks_[workspace_block_[i]].offset;
  base_ = base;
}

bool Plan::ready(const std::vector<Tensor>& inputs) const {
  if (recording::layout_generation() != step_.layout || num_threads() != threads_) return false;
  for (const RecordedGuard& guard : step_.guards)
    if (!guard.holds(guard.object, guard.value)) return false;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Storage& x = inputs[i].storage();
    const auto overlaps = [&](const Storage& s) {
      return x.address() < s.address() + s.bytes() && s.address() < x.address() + x.bytes();
    };
    for (const Ref<Storage>& kept : step_.memory)
      if (overlaps(*kept)) return false;
    for (size_t j = 0; j < i; ++j)
      if (overlaps(inputs[j].storage())) return false;
  }
  return true;
}

void Plan::replay(size_t part, const std::vector<Tensor>& inputs) {
  settle();
  for (const Patch& patch : in_inputs_) {
    char* const p = inputs[patch.place.number()].data() + patch.place.offset();
    std::memcpy(patch.field, &p, sizeof p);
  }
  const WithoutInterpreterLock unlocked(part_ns_[part] > kReleaseNs);
  if (part == 0)
    for (const Backup& b : backups_)
      backend(b.storage->device()).copy(b.storage->device(), base_ + blocks_[b.block].offset, b.storage->data(), b.storage->bytes());
  const FloatEnvironment environment;
  Context context;
  context.threads = threads_;
  context.parallel = parallel;
  const char* const args = reinterpret_cast<const char*>(args_.data());
  using Clock = std::chrono::steady_clock;
  Clock::time_point looked = Clock::now();
  for (size_t i = part_begin(part); i < part_end(part); ++i) {
    const RecordedCall& call = step_.calls[i];
    if (call.work) {
      call.work(call.object, call.value);
      continue;
    }
    context.device = call.device;
    context.workspace = workspaces_[i];
    const Status status = call.candidate->run(args + call.args, context);
    if (status != Status::ok) [[unlikely]] {
      const OpScope scope(call.op);
      raise(status, call.slot, args + call.args, context);
    }
    if (part_ns_[part] > kLongNs && Clock::now() - looked > kSignals) [[unlikely]] {
      interpreter_lock().check_signals();
      looked = Clock::now();
    }
  }
}

void Plan::undo() {
  discard_random();
  for (const Backup& b : backups_) {
    backend(b.storage->device()).copy(b.storage->device(), b.storage->data(), base_ + blocks_[b.block].offset, b.storage->bytes());
    b.storage->bump_version();
  }
}

std::vector<Tensor> Plan::outputs(const std::vector<Tensor>& inputs) const {
  std::vector<Tensor> fresh;
  for (const RecordedOutput& output : step_.outputs) {
    Tensor y = empty(output.shape, output.dtype, Device{});
    const Place place = output.place;
    const char* from = nullptr;
    switch (place.kind()) {
      case Place::Kind::block: from = base_ + blocks_[place.number()].offset + place.offset(); break;
      case Place::Kind::input: from = inputs[place.number()].data() + place.offset(); break;
      default: from = reinterpret_cast<const char*>(place.bits());
    }
    backend(y.device()).copy(y.device(), y.data(), from, static_cast<size_t>(y.nbytes()));
    y.impl()->transposed = output.transposed;
    fresh.push_back(std::move(y));
  }
  return fresh;
}

std::vector<const char*> Plan::kernels() const {
  std::vector<const char*> names;
  for (const RecordedCall& call : step_.calls)
    if (call.candidate) names.push_back(call.candidate->name);
  return names;
}

}  // namespace smelt
