// The bytes that tensors share.
#pragma once
#include <atomic>
#include <functional>
#include <utility>

#include "core/dtype.h"
#include "core/recording.h"
#include "core/ref.h"

namespace smelt {

class Storage final : public RefCounted {
 public:
  // MemoryError names the op at work. In check mode the storage has no memory, in a walk an address alone.
  static Ref<Storage> allocate(size_t bytes, Device device);
  // For a walk: an address of its own, with nothing behind it.
  static Ref<Storage> placeholder(size_t bytes, Device device);
  // Memory of somebody else, given back through `done`.
  static Ref<Storage> wrap(void* data, size_t bytes, Device device, std::function<void()> done);

  char* data() const {
    if (Recording* r = recording::current()) [[unlikely]] r->used(const_cast<Storage&>(*this));
    return data_;
  }
  char* address() const { return data_; }  // not to be read or written through
  size_t bytes() const { return bytes_; }
  Device device() const { return device_; }
  bool owned() const { return owned_; }  // memory of its own: not somebody else's, not a part of a flat buffer
  // Whether a recorded step may have its address.
  bool recorded() const { return recorded_.load(std::memory_order_relaxed); }
  void mark_recorded() { recorded_.store(true, std::memory_order_relaxed); }
  // The optimizer whose flat buffer holds or will hold this memory.
  const void* optimizer() const { return optimizer_; }
  void set_optimizer(const void* optimizer) { optimizer_ = optimizer; }

  // Counts the writes after which a value that backward saved is no longer the one it saved.
  uint64_t version() const { return version_.load(std::memory_order_relaxed) + (base_ ? base_->version() : 0); }
  void bump_version() {
    if (Recording* r = recording::current()) [[unlikely]]
      if (bump_is_recorded(*r)) return;
    version_.fetch_add(1, std::memory_order_relaxed);
  }

  // NumPy and DLPack views of this memory that are alive.
  int exports() const { return exports_.load(std::memory_order_relaxed); }
  void add_export() {
    exports_.fetch_add(1, std::memory_order_relaxed);
    mirror_version_.store(kNever);  // what is written through a view has no version
  }
  void drop_export() { exports_.fetch_sub(1, std::memory_order_relaxed); }

  // Moves the content into `base` at `offset`, where it stays: every tensor on this storage follows.
  void move_into(const Ref<Storage>& base, size_t offset);
  // Moves the content back to memory of its own.
  void move_out();
  const Ref<Storage>& base() const { return base_; }

  // A bfloat16 copy of float32 content, made on first use, and where this storage's part of it begins, in bytes. It holds for
  // one version: whoever writes it marks it, and readers look first. Memory that others may write has none.
  bool may_have_mirror() const { return (owned_ || base_) && exports() == 0; }
  std::pair<Ref<Storage>, size_t> mirror();
  bool mirror_is_current() const { return mirror_version_.load(std::memory_order_acquire) == version(); }
  void mark_mirror() {
    recording::host([](RefCounted* object, int64_t) { static_cast<Storage*>(object)->mark_mirror(); }, this);
    mirror_version_.store(may_have_mirror() ? version() : kNever, std::memory_order_release);
  }
  // Of a whole: whether a part of its mirror was asked for since the last mirror_in_use(), which gives the mirror or null.
  bool mirror_used() const { return mirror_used_.load(); }
  char* mirror_in_use() { return mirror_used_.exchange(false) ? mirror_->data() : nullptr; }

 private:
  Storage() = default;
  ~Storage() override;
  void give_back();
  bool bump_is_recorded(Recording& recording);  // and must not be done now

  char* data_ = nullptr;
  size_t bytes_ = 0;
  Device device_;
  bool owned_ = false;
  bool placeholder_ = false;
  std::atomic<uint64_t> version_{0};
  std::atomic<int> exports_{0};
  Ref<Storage> base_, mirror_;
  static constexpr uint64_t kNever = ~uint64_t{0};
  std::atomic<uint64_t> mirror_version_{kNever};
  std::atomic<bool> mirror_used_{false};
  std::atomic<bool> recorded_{false};
  const void* optimizer_ = nullptr;
  std::function<void()> done_;
};

}  // namespace smelt
