#include "plan/plan.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <numeric>

#include "core/float_environment.h"
#include "core/thread_pool.h"
#include "ops/ops.h"

namespace smelt {
namespace {

constexpr size_t kAlignment = 256;  // that of a GPU's allocations
constexpr size_t kNone = ~size_t{0};
constexpr double kReleaseNs = 100e3;  // of estimated work, from which on other Python threads may run meanwhile
constexpr double kLongNs = 10e6;      // of estimated work, from which on the clock is watched
constexpr auto kSignals = std::chrono::milliseconds(200);  // between looks at signals

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

std::atomic<bool> g_use_graphs{true};

}  // namespace

bool use_graphs() { return g_use_graphs; }
void set_use_graphs(bool on) { g_use_graphs = on; }

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

const Ref<Storage>& Arena::at_least(size_t bytes, Device device) {
  auto piece = std::find_if(pieces_.begin(), pieces_.end(), [&](const Ref<Storage>& p) { return p->device() == device; });
  if (piece != pieces_.end() && (*piece)->bytes() >= bytes) return *piece;
  if (piece != pieces_.end()) pieces_.erase(piece);  // first, so that the larger one may take its place
  return pieces_.emplace_back(Storage::allocate(bytes, device));
}

void Arena::leave() {
  bool any = false;
  std::erase_if(pieces_, [&](const Ref<Storage>& p) {
    const bool much = p->device().kind == DeviceKind::cpu && p->bytes() >= static_cast<size_t>(kMuch);
    any |= much;
    return much || p->device().kind != DeviceKind::cpu;
  });
  if (any) cpu_allocator().empty_cache();
}

void Arena::settle() {
  if (cpu_allocator().stats().cached >= kMuch) cpu_allocator().empty_cache();
}

Plan::Plan(RecordedStep step, Ref<Arena> arena)
    : step_(std::move(step)), arena_(std::move(arena)), threads_(num_threads()), args_(step_.args) {
  find_lifetimes();
  add_workspaces();
  add_backups();
  find_sections();
  bytes_ = place_blocks(blocks_);
}

void Plan::find_lifetimes() {
  for (const size_t bytes : step_.blocks) blocks_.push_back({bytes, 0, kNone, 0});
  for (size_t i = 0; !on_cpu() && i < step_.inputs.size(); ++i) {  // a graph has its addresses built in: inputs are copied
    input_block_.push_back(blocks_.size());
    blocks_.push_back({step_.inputs[i], 0, kNone, 0});
  }
  const auto extend = [&](Place place, size_t call) {
    const bool copied = place.kind() == Place::Kind::input && !on_cpu();
    if (place.kind() != Place::Kind::block && !copied) return;
    PlacedBlock& block = blocks_[copied ? input_block_[place.number()] : place.number()];
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
      if (place.kind() == Place::Kind::input && !on_cpu())
        in_arena_.push_back({own, Place::block(static_cast<int64_t>(input_block_[place.number()]), place.offset())});
      else if (place.kind() == Place::Kind::block)
        in_arena_.push_back({own, place});
      else if (place.kind() == Place::Kind::input)
        in_inputs_.push_back({own, place});
    });
    // What a slot says of its time may ask tables in memory, through pointers that must be in place.
    const bool in_place = std::all_of(slot_info(call.slot).buffers.begin(), slot_info(call.slot).buffers.end(),
                                      [](const BufferField& f) { return !f.persistent; });
    part_ns_[part] += in_place ? slot_info(call.slot).ns(step_.arguments(call)) : kReleaseNs;
  }
  for (const RecordedOutput& output : step_.outputs) extend(output.place, step_.calls.size());
  for (PlacedBlock& block : blocks_)
    if (block.first == kNone) block = {};  // made, and used by no kernel
  for (const size_t block : input_block_) blocks_[block].first = 0;  // copied before the first kernel
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

// Whether a kernel works on memory that these works of the host write to.
bool Plan::reads_or_writes(size_t call, const std::vector<size_t>& works) const {
  bool found = false;
  each_buffer(step_.calls[call].slot, step_.arguments(step_.calls[call]), [&](const char* field, Access) {
    if (Place::of(field).kind() != Place::Kind::kept) return;
    const auto p = reinterpret_cast<const char*>(Place::of(field).bits());
    for (const size_t work : works)
      for (const Ref<Storage>& s : step_.calls[work].writes) found = found || (p >= s->address() && p < s->address() + s->bytes());
  });
  return found;
}

// A work that writes nothing the kernels before it use comes before them all; once one had to stay behind, all others do.
void Plan::find_sections() {
  if (on_cpu()) return;
  for (size_t part = 0; part <= step_.cuts.size(); ++part) {
    Section section{.part = part, .before = {}, .kernels = {}, .after = {}, .graph = nullptr};
    for (size_t i = part_begin(part); i < part_end(part); ++i) {
      if (step_.calls[i].work) {
        const bool in_use = std::any_of(section.kernels.begin(), section.kernels.end(), [&](size_t k) { return reads_or_writes(k, {i}); });
        (in_use || !section.after.empty() ? section.after : section.before).push_back(i);
        continue;
      }
      if (reads_or_writes(i, section.after)) {
        sections_.push_back(std::move(section));
        section = {.part = part, .before = {}, .kernels = {}, .after = {}, .graph = nullptr};
      }
      section.kernels.push_back(i);
    }
    sections_.push_back(std::move(section));
  }
}

size_t Plan::graphs() const {
  return static_cast<size_t>(std::count_if(sections_.begin(), sections_.end(), [](const Section& s) { return !s.kernels.empty(); }));
}

// Sets the pointers that lead into the arena, which may have moved.
void Plan::settle() {
  char* const base = arena_->at_least(bytes_, step_.device)->data();
  if (base == base_) return;
  for (Section& section : sections_) section.graph = nullptr;
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
    if (x.device() != step_.device) return false;
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

void Plan::run_kernel(size_t i, Context& context) {
  const RecordedCall& call = step_.calls[i];
  const void* const args = reinterpret_cast<const char*>(args_.data()) + call.args;
  context.device = call.device;
  context.workspace = workspaces_[i];
  const Status status = call.candidate->run(args, context);
  if (status != Status::ok) [[unlikely]] {
    const OpScope scope(call.op);
    raise(status, call.slot, args, context);
  }
}

void Plan::make_graph(Section& section) {
  const OpScope scope("plan");
  const Backend& b = backend(step_.device);
  Context context = device_context(step_.device);
  if (!b.module->begin_graph(step_.device.index, &context.stream)) b.fail_in();
  try {
    for (const size_t i : section.kernels) run_kernel(i, context);
  } catch (...) {
    if (void* const broken = b.module->end_graph(step_.device.index, context.stream)) b.module->release_graph(broken);
    throw;
  }
  void* const graph = b.module->end_graph(step_.device.index, context.stream);
  if (!graph) b.fail_in();
  section.graph = std::make_unique<DeviceGraph>(*b.module, graph);
}

void Plan::run_on_device(size_t part, const std::vector<Tensor>& inputs) {
  const Device device = step_.device;
  const Backend& b = backend(device);
  const FloatEnvironment environment;
  for (size_t i = 0; part == 0 && i < inputs.size(); ++i) {
    const PlacedBlock& block = blocks_[input_block_[i]];
    b.copy(device, base_ + block.offset, inputs[i].data(), block.bytes);
  }
  const auto work = [&](const std::vector<size_t>& works) {
    for (const size_t i : works) step_.calls[i].work(step_.calls[i].object, step_.calls[i].value);
  };
  for (Section& section : sections_) {
    if (section.part != part) continue;
    work(section.before);
    if (!use_graphs()) {
      Context context = device_context(device);
      for (const size_t i : section.kernels) run_kernel(i, context);
    } else if (!section.kernels.empty()) {
      if (!section.graph) make_graph(section);
      if (!section.graph->launch(device.index)) b.fail_in();
    }
    work(section.after);
  }
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
  if (!on_cpu()) return run_on_device(part, inputs);
  const FloatEnvironment environment;
  Context context;
  context.threads = threads_;
  context.parallel = parallel;
  using Clock = std::chrono::steady_clock;
  Clock::time_point looked = Clock::now();
  for (size_t i = part_begin(part); i < part_end(part); ++i) {
    const RecordedCall& call = step_.calls[i];
    if (call.work) {
      call.work(call.object, call.value);
      continue;
    }
    run_kernel(i, context);
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

std::vector<Tensor> Plan::prepare(size_t count) {
  settle();
  for (Section& section : sections_)
    if (use_graphs() && !section.graph && !section.kernels.empty()) make_graph(section);
  std::vector<Tensor> fresh;
  for (size_t i = 0; i < std::min(count, step_.outputs.size()); ++i) {
    const RecordedOutput& output = step_.outputs[i];
    fresh.push_back(empty(output.shape, output.dtype, output.device));
    fresh.back().impl()->transposed = output.transposed;
  }
  return fresh;
}

void Plan::copy_outputs(const std::vector<Tensor>& inputs, const std::vector<Tensor>& to) const {
  for (size_t i = 0; i < to.size(); ++i) {
    const Place place = step_.outputs[i].place;
    const char* from = nullptr;
    switch (place.kind()) {
      case Place::Kind::block: from = base_ + blocks_[place.number()].offset + place.offset(); break;
      case Place::Kind::input: from = inputs[place.number()].data() + place.offset(); break;
      default: from = reinterpret_cast<const char*>(place.bits());
    }
    backend(to[i].device()).copy(to[i].device(), to[i].data(), from, static_cast<size_t>(to[i].nbytes()));
  }
}

std::vector<Tensor> Plan::outputs(const std::vector<Tensor>& inputs) {
  const std::vector<Tensor> fresh = prepare(step_.outputs.size());
  copy_outputs(inputs, fresh);
  return fresh;
}

std::vector<Tensor> Plan::views(const std::vector<Tensor>& inputs, size_t count) {
  std::vector<Tensor> results;
  for (size_t i = 0; i < std::min(count, step_.outputs.size()); ++i) {
    const RecordedOutput& output = step_.outputs[i];
    if (output.place.kind() != Place::Kind::block) return outputs(inputs);
    const auto offset = static_cast<int64_t>(blocks_[output.place.number()].offset + output.place.offset());
    results.emplace_back(make_ref<TensorImpl>(arena_->at_least(bytes_, step_.device), offset, output.shape, output.dtype));
    results.back().impl()->transposed = output.transposed;
  }
  return results;
}

std::vector<const char*> Plan::kernels() const {
  std::vector<const char*> names;
  for (const RecordedCall& call : step_.calls)
    if (call.candidate) names.push_back(call.candidate->name);
  return names;
}

}  // namespace smelt
