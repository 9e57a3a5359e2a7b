#include "plan/recorder.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "tape/node.h"

namespace smelt {
namespace {

bool covers(const Storage& s, const char* p) { return p >= s.address() && p < s.address() + std::max<size_t>(s.bytes(), 1); }
bool ends_at(const Storage& s, const char* p) { return p == s.address() + s.bytes(); }
bool overlap(const Storage& a, const Storage& b) {
  return a.address() < b.address() + b.bytes() && b.address() < a.address() + a.bytes();
}

std::string name_of(const RecordedCall& call) {
  return call.candidate ? cat(slot_info(call.slot).name, " (", call.op, ")") : std::string("work of the host");
}

}  // namespace

std::string RecordedStep::difference(const RecordedStep& other) const {
  const char* const same = "two runs of it did not do the same";
  for (size_t i = 0; i < std::min(calls.size(), other.calls.size()); ++i) {
    const RecordedCall &a = calls[i], &b = other.calls[i];
    if (a.candidate != b.candidate || a.slot != b.slot || a.work != b.work || a.object != b.object || a.value != b.value)
      return cat(same, ": call ", i, " was ", name_of(a), ", then ", name_of(b));
    if (a.candidate && !(a.device == b.device && slot_info(a.slot).same(arguments(a), other.arguments(b))))
      return cat(same, ": call ", i, ", ", name_of(a), ", had other arguments");
  }
  if (calls.size() != other.calls.size()) return cat(same, ": one had ", calls.size(), " calls, the next ", other.calls.size());
  if (blocks != other.blocks || cuts != other.cuts || guards != other.guards || outputs != other.outputs)
    return cat(same, ": memory or outputs differ");
  return "";
}

Recorder::Recorder(std::vector<Tensor> inputs, bool walk)
    : given_(std::move(inputs)), walking_(walk), changes_(recording::changes()) {
  if (recording::of_thread()) fail(ErrorKind::runtime, "capture", "a step of this thread is already being recorded");
  step_.layout = recording::layout_generation();
  for (size_t i = 0; i < given_.size(); ++i) {
    const Tensor& x = given_[i];
    const Storage& a = x.storage();
    const bool on_tape = x.requires_grad() || a.base();
    step_.inputs.push_back(static_cast<size_t>(x.nbytes()));
    if (on_tape) refuse(cat("its input ", i, " is a parameter or on the tape"));
    for (size_t j = 0; j < i; ++j)
      if (overlap(a, given_[j].storage())) refuse(cat("its inputs ", j, " and ", i, " share memory"));
    const auto keep = [held = x.impl()->storage] {};
    const Ref<Storage> same = Storage::wrap(a.address(), a.bytes(), a.device(), keep);
    inputs_.push_back(on_tape ? x : Tensor(make_ref<TensorImpl>(same, x.impl()->offset, x.shape(), x.dtype())));
    inputs_.back().impl()->transposed = x.transposed();
    if (x.transposed()) refuse(cat("its input ", i, " is transposed: use x.T.copy()"));
  }
  resume();
}

Recorder::~Recorder() { stop(); }

void Recorder::resume() {
  recording::of_thread() = this;
  recording::threads.fetch_add(1);
  recording_ = true;
}

void Recorder::pause() {
  if (!recording_) return;
  recording::of_thread() = nullptr;
  recording::threads.fetch_sub(1);
  recording_ = false;
}

void Recorder::stop() {
  pause();
  while (!restore_.empty()) {
    restore_.back()();
    restore_.pop_back();
  }
}

void Recorder::cut() { step_.cuts.push_back(step_.calls.size()); }

void Recorder::refuse(const std::string& why) {
  if (step_.refusal.empty()) step_.refusal = why;
}

// Memory that was given back may be handed out again, in other pieces: blocks that lay where this storage lies are gone.
void Recorder::forget(const Storage& storage) {
  const auto begin = reinterpret_cast<uintptr_t>(storage.address()), end = begin + std::max<size_t>(storage.bytes(), 1);
  auto it = blocks_at_.upper_bound(begin);
  if (it != blocks_at_.begin()) {
    const auto before = std::prev(it);
    if (before->first + std::max<size_t>(step_.blocks[before->second], 1) > begin) it = before;
  }
  while (it != blocks_at_.end() && it->first < end) it = blocks_at_.erase(it);
}

void Recorder::allocated(Storage& storage) {
  forget(storage);
  blocks_at_[reinterpret_cast<uintptr_t>(storage.address())] = step_.blocks.size();
  block_of_[&storage] = step_.blocks.size();
  step_.blocks.push_back(storage.bytes());
  written_.push_back(0);
}

void Recorder::freed(Storage& storage) {
  const auto found = block_of_.find(&storage);
  if (found == block_of_.end()) return;
  forget(storage);
  block_of_.erase(found);
}

void Recorder::used(Storage& storage) {
  if (block_of_.contains(&storage)) return;
  for (const Tensor& x : inputs_)
    if (&x.storage() == &storage) return;
  if (!used_.insert(&storage).second) return;
  forget(storage);
  storage.mark_recorded();
  step_.memory.emplace_back(&storage);
}

Place Recorder::place(const void* pointer) {
  const char* const p = static_cast<const char*>(pointer);
  for (const bool strictly : {true, false}) {  // an empty part may begin where the whole ends
    const auto holds = [&](const Storage& s) { return strictly ? covers(s, p) : ends_at(s, p); };
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const Storage& s = inputs_[i].storage();
      const char* const first = s.address() + inputs_[i].impl()->offset;
      if (holds(s) && p >= first) return Place::input(static_cast<int64_t>(i), static_cast<size_t>(p - first));
    }
    const auto next = blocks_at_.upper_bound(reinterpret_cast<uintptr_t>(p));
    if (next != blocks_at_.begin()) {
      const auto& [begin, number] = *std::prev(next);
      const size_t offset = reinterpret_cast<uintptr_t>(p) - begin, bytes = step_.blocks[number];
      if (strictly ? offset < std::max<size_t>(bytes, 1) : offset == bytes)
        return Place::block(static_cast<int64_t>(number), offset);
    }
    for (const Ref<Storage>& s : step_.memory)
      if (holds(*s)) return Place::kept(p);
  }
  refuse("a kernel used memory that is no tensor's");
  return Place::kept(p);
}

void Recorder::launched(int slot, const void* args, Device device, const Candidate& candidate) {
  if (!std::exchange(launched_, true)) step_.device = device;
  if (device != step_.device) refuse(cat("its kernels run on ", step_.device, " and on ", device));
  RecordedCall call;
  call.candidate = &candidate;
  call.slot = slot;
  call.device = device;
  call.op = current_op();
  const SlotInfo& info = slot_info(slot);
  call.args = step_.args.size() * sizeof(std::max_align_t);
  step_.args.resize(step_.args.size() + (info.args_size + sizeof(std::max_align_t) - 1) / sizeof(std::max_align_t));
  char* const copy = reinterpret_cast<char*>(step_.args.data()) + call.args;
  std::memcpy(copy, args, info.args_size);
  for (const BufferField& field : info.buffers) {
    const void* pointer = nullptr;
    std::memcpy(&pointer, copy + field.offset, sizeof pointer);
    if (!pointer) continue;
    const uint64_t bits = place(pointer).bits();
    std::memcpy(copy + field.offset, &bits, sizeof bits);
  }
  std::vector<size_t> outputs;
  each_buffer(slot, copy, [&](const char* field, Access access) {
    const Place at = Place::of(field);
    if (at.kind() == Place::Kind::input && access != Access::in) {
      refuse("it writes to one of its inputs");
      const recording::Paused paused;
      given_[at.number()].storage().bump_version();
    }
    if (at.kind() != Place::Kind::block) return;
    if (access != Access::out && !written_[at.number()] && step_.blocks[at.number()])
      refuse(cat("the kernel ", name_of(call), " reads values that no kernel of the step wrote"));
    if (access != Access::in) outputs.push_back(at.number());
  });
  for (const size_t block : outputs) written_[block] = 1;
  step_.calls.push_back(call);
}

void Recorder::host(HostWork work, RefCounted* object, int64_t value, bool keep, std::span<const Ref<Storage>> writes) {
  if (object) worked_on_.insert(object);
  if (object && keep) step_.objects.emplace_back(object);
  RecordedCall call;
  call.work = work;
  call.object = object;
  call.value = value;
  call.writes.assign(writes.begin(), writes.end());
  step_.calls.push_back(std::move(call));
}

void Recorder::guard(HostCheck holds, RefCounted* object, int64_t value) {
  const RecordedGuard guard{holds, object, value};
  if (std::find(step_.guards.begin(), step_.guards.end(), guard) != step_.guards.end()) return;
  step_.objects.emplace_back(object);
  step_.guards.push_back(guard);
}

RecordedStep Recorder::finish(const std::vector<Tensor>& outputs) {
  pause();
  std::unordered_set<const Storage*> given;
  for (const Tensor& y : outputs) {
    given.insert(&y.storage());
    const auto& maker = y.impl()->grad_fn;
    if (maker ? !maker->freed : y.requires_grad())
      refuse("it gives back a tensor that is still on the tape: return x.detach(), or run it under no_grad");
    used(y.storage());
    const Place at = place(y.storage().address() + y.impl()->offset);
    if (at.kind() == Place::Kind::block && !written_[at.number()] && y.numel())
      refuse("it gives back values that no kernel of the step wrote");
    step_.outputs.push_back({at, y.shape(), y.dtype(), y.device(), y.transposed()});
  }
  for (const auto& [storage, block] : block_of_) {
    const auto views = static_cast<size_t>(std::count_if(outputs.begin(), outputs.end(), [&](const Tensor& y) {
      return &y.storage() == storage && std::none_of(outputs.begin(), outputs.begin() + (&y - outputs.data()),
                                                     [&](const Tensor& other) { return other.impl() == y.impl(); });
    }));
    if (!given.contains(storage)) refuse("a tensor that it made is kept beyond its end, and is not one of its outputs");
    if (given.contains(storage) && storage->use_count() > views) refuse("a tensor that it gives back is also kept elsewhere");
  }
  if (recording::layout_generation() != step_.layout) refuse("its parameters were moved, exchanged, frozen or given hooks");
  if (recording::changes() != changes_) refuse(cat("it changes ", recording::last_change()));
  for (const Ref<Storage>& s : step_.memory)
    for (size_t i = 0; i < inputs_.size(); ++i)
      if (overlap(*s, inputs_[i].storage())) refuse(cat("its input ", i, " shares memory with what it uses besides"));
  stop();
  return std::move(step_);
}

}  // namespace smelt
