#include "core/recording.h"

#include <mutex>

#include "core/error.h"

namespace smelt::recording {
namespace {

thread_local Recording* t_recording = nullptr;
std::atomic<uint64_t> g_layout{1}, g_changes{1};

struct LastChange {
  std::mutex mutex;
  std::string what;
};
LastChange& last() {
  static LastChange* const l = new LastChange;  // never destroyed: a thread may still run at the program's end
  return *l;
}

}  // namespace

std::atomic<int> threads{0};
Recording*& of_thread() { return t_recording; }

void read_value() {
  Recording* const r = current();
  if (!r) return;
  r->refuse("it reads a value on the host");
  if (r->walking()) fail(ErrorKind::runtime, "plan", "the step reads a value on the host, where there is none before training");
}

uint64_t layout_generation() { return g_layout.load(std::memory_order_relaxed); }
void change_layout() { g_layout.fetch_add(1, std::memory_order_relaxed); }
uint64_t changes() { return g_changes.load(std::memory_order_relaxed); }
void note_change(const std::string& what) {
  const std::lock_guard lock(last().mutex);
  last().what = what;
  g_changes.fetch_add(1, std::memory_order_relaxed);
}
std::string last_change() {
  const std::lock_guard lock(last().mutex);
  return last().what;
}

}  // namespace smelt::recording
