// Records a step while it runs: its kernels in order, with every pointer traced to where the memory came from.
#pragma once
#include <map>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/launch.h"
#include "core/recording.h"
#include "core/tensor.h"

namespace smelt {

// Where bytes of a step lie, in the place of a pointer: the address itself for memory that outlives the step.
class Place {
 public:
  enum class Kind { none, kept, block, input };
  static Place block(int64_t number, size_t offset) { return Place(kBlock | number << kOffsetBits | offset); }
  static Place input(int64_t number, size_t offset) { return Place(kInput | number << kOffsetBits | offset); }
  static Place kept(const void* address) { return Place(reinterpret_cast<uintptr_t>(address)); }
  static Place of(const void* field) { return Place(*static_cast<const uint64_t*>(field)); }

  Kind kind() const { return !bits_ ? Kind::none : bits_ & kBlock ? Kind::block : bits_ & kInput ? Kind::input : Kind::kept; }
  size_t number() const { return (bits_ & ~(kBlock | kInput)) >> kOffsetBits; }
  size_t offset() const { return bits_ & ((uint64_t{1} << kOffsetBits) - 1); }
  uint64_t bits() const { return bits_; }
  bool operator==(const Place&) const = default;

 private:
  explicit Place(uint64_t bits) : bits_(bits) {}
  static constexpr int kOffsetBits = 40;
  static constexpr uint64_t kBlock = uint64_t{1} << 62, kInput = uint64_t{1} << 63;
  uint64_t bits_;
};

// A kernel, its arguments at `args` with places for pointers; or work of the host.
struct RecordedCall {
  const Candidate* candidate = nullptr;
  int slot = -1;
  Device device;
  const char* op = "";
  size_t args = 0;
  HostWork work = nullptr;
  RefCounted* object = nullptr;
  int64_t value = 0;
  std::vector<Ref<Storage>> writes;  // of the host
};

struct RecordedGuard {
  HostCheck holds;
  RefCounted* object;
  int64_t value;
  bool operator==(const RecordedGuard&) const = default;
};

struct RecordedOutput {
  Place place;
  Shape shape;
  DType dtype;
  Device device;
  bool transposed;
  bool operator==(const RecordedOutput&) const = default;
};

// What one run of a step did.
struct RecordedStep {
  Device device;                        // of its kernels
  std::vector<RecordedCall> calls;
  std::vector<std::max_align_t> args;
  std::vector<size_t> inputs;           // bytes of each
  std::vector<size_t> blocks;           // bytes of each piece of memory that the step made
  std::vector<size_t> cuts;             // where the step's parts end, but for the last
  std::vector<RecordedGuard> guards;
  std::vector<RecordedOutput> outputs;
  std::vector<Ref<Storage>> memory;     // that it used and that outlives it
  std::vector<Ref<RefCounted>> objects;
  uint64_t layout = 0;
  std::string refusal;                  // why it cannot be replayed; empty when it can

  const void* arguments(const RecordedCall& call) const { return reinterpret_cast<const char*>(args.data()) + call.args; }
  bool same_start(const RecordedStep& other) const { return guards == other.guards; }
  // Empty when both did the same, else a sentence without its end.
  std::string difference(const RecordedStep& other) const;
};

// Walks every pointer of a call's arguments.
template <class F>
void each_buffer(int slot, const void* args, F&& f) {
  for (const BufferField& field : slot_info(slot).buffers) {
    const char* const at = static_cast<const char*>(args) + field.offset;
    const bool adds = field.accumulate >= 0 && *(static_cast<const char*>(args) + field.accumulate);
    const Access access = field.access == Access::out && adds ? Access::inout : field.access;
    if (Place::of(at).kind() != Place::Kind::none) f(at, access);
  }
}

class Recorder final : public Recording {
 public:
  // Records this thread from now on. In a walk the inputs may be placeholders.
  Recorder(std::vector<Tensor> inputs, bool walk);
  ~Recorder() override;

  // What the step must use for its inputs: the same memory, told from other ways to it.
  const std::vector<Tensor>& inputs() const { return inputs_; }

  void pause();   // until resume(): what happens is no part of the step
  void resume();
  void cut();     // the step's next part begins
  RecordedStep finish(const std::vector<Tensor>& outputs);

  bool walking() const override { return walking_; }
  void restore_later(std::function<void()> restore) override { restore_.push_back(std::move(restore)); }
  void launched(int slot, const void* args, Device device, const Candidate& candidate) override;
  void host(HostWork work, RefCounted* object, int64_t value, bool keep, std::span<const Ref<Storage>> writes) override;
  void guard(HostCheck holds, RefCounted* object, int64_t value) override;
  bool worked_on(const RefCounted* object) const override { return worked_on_.contains(object); }
  void allocated(Storage& storage) override;
  void freed(Storage& storage) override;
  void used(Storage& storage) override;
  bool owns(const Storage& storage) const override { return block_of_.contains(&storage); }
  void refuse(const std::string& why) override;

 private:
  Place place(const void* pointer);
  void forget(const Storage& storage);
  void stop();

  RecordedStep step_;
  std::vector<Tensor> given_, inputs_;
  bool walking_;
  bool recording_ = false;
  bool launched_ = false;  // a kernel
  uint64_t changes_;
  std::map<uintptr_t, size_t> blocks_at_;                     // newest block at each address
  std::unordered_map<const Storage*, size_t> block_of_;       // of the storages of the step that are alive
  std::vector<char> written_;                                 // of each block
  std::unordered_set<const Storage*> used_;
  std::unordered_set<const RefCounted*> worked_on_;
  std::vector<std::function<void()>> restore_;
};

}  // namespace smelt
