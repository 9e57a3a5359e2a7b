// What the layers below a recorder tell it of a step, besides its kernels: memory, and work of the host that a replay does
// again. While no thread records, each of these costs one load.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "core/dtype.h"
#include "core/ref.h"

namespace smelt {

class Storage;
struct Candidate;

using HostWork = void (*)(RefCounted* object, int64_t value);
using HostCheck = bool (*)(RefCounted* object, int64_t value);

class Recording {
 public:
  virtual ~Recording() = default;

  // Whether the step is only walked through: its memory has addresses but no content, and no kernel runs.
  virtual bool walking() const = 0;
  // In a walk: puts back what the walk has changed, after its end.
  virtual void restore_later(std::function<void()> restore) = 0;

  virtual void launched(int slot, const void* args, Device device, const Candidate& candidate) = 0;
  // Work that stands between the kernels. Of an object that is not kept alive, the end changes layout_generation(). `writes`
  // is the device's memory that it writes to.
  virtual void host(HostWork work, RefCounted* object, int64_t value, bool keep, std::span<const Ref<Storage>> writes = {}) = 0;
  // What must hold before a replay, so that it does what the step would.
  virtual void guard(HostCheck holds, RefCounted* object, int64_t value) = 0;
  // Whether the step has already done work on the object.
  virtual bool worked_on(const RefCounted* object) const = 0;

  virtual void allocated(Storage& storage) = 0;
  virtual void freed(Storage& storage) = 0;
  virtual void used(Storage& storage) = 0;
  virtual bool owns(const Storage& storage) const = 0;  // memory of the step itself

  // The step cannot be recorded: a sentence without its end.
  virtual void refuse(const std::string& why) = 0;
};

namespace recording {

extern std::atomic<int> threads;  // that record now
Recording*& of_thread();
// The recording of this thread, or null.
inline Recording* current() { return threads.load(std::memory_order_relaxed) ? of_thread() : nullptr; }

inline bool walking() {
  const Recording* r = current();
  return r && r->walking();
}
// Nothing that happens on this thread meanwhile is part of the step.
class Paused {
 public:
  Paused() : paused_(of_thread()) { of_thread() = nullptr; }
  ~Paused() { of_thread() = paused_; }
  Paused(const Paused&) = delete;
  Paused& operator=(const Paused&) = delete;

 private:
  Recording* paused_;
};

// Notes work that has been done, or that the caller does.
inline void host(HostWork work, RefCounted* object, int64_t value = 0, bool keep = true, std::span<const Ref<Storage>> writes = {}) {
  if (Recording* r = current()) [[unlikely]] r->host(work, object, value, keep, writes);
}
// Notes work and does it, but not in a walk.
inline void perform(HostWork work, RefCounted* object, int64_t value = 0, bool keep = true, std::span<const Ref<Storage>> writes = {}) {
  host(work, object, value, keep, writes);
  if (walking()) return;
  const Paused paused;
  work(object, value);
}
inline void refuse(const std::string& why) {
  if (Recording* r = current()) [[unlikely]] r->refuse(why);
}
// A value was asked for on the host; in a walk there is none.
void read_value();

// Counts what makes every plan invalid: parameters that moved, were exchanged, frozen or given hooks.
uint64_t layout_generation();
void change_layout();
// Counts what may make a step another one, such as attributes of modules: the next step is compared again.
uint64_t changes();
void note_change(const std::string& what);
std::string last_change();

}  // namespace recording
}  // namespace smelt
