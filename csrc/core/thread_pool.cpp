#include "core/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/float_environment.h"

namespace smelt {
namespace {

constexpr int kMaxThreads = 256;
// How long a helper stays awake for the next region: waking one takes up to 100 us on a virtual machine. It offers its core to
// others meanwhile.
constexpr auto kSpin = std::chrono::microseconds(200);
// A caller that waits for a helper's last chunk this much longer than a few chunks take shares its cores with other work:
// for kBackoff it runs alone, which gives the same bits.
constexpr auto kStalled = std::chrono::microseconds(400);
constexpr auto kBackoff = std::chrono::milliseconds(20);

using Clock = std::chrono::steady_clock;

inline void pause() {
#ifdef SMELT_X86
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// A region in flight. Helpers enter and leave through `state_`: bit 63 closed, bits 32-62 the region's number, low
// half the helpers inside. Closing and entering are one compare-and-swap, so a late helper finds the door shut and
// never touches a finished region.
class Pool {
 public:
  ~Pool() { stop(); }

  int size() const { return size_.load(std::memory_order_relaxed); }

  void resize(int n) {
    std::lock_guard lock(region_);
    stop();
    size_.store(n, std::memory_order_relaxed);
  }

  // The pool may have been resized since the caller chose `threads`: helpers from that number on stay outside.
  void run(int threads, int64_t chunks, void (*body)(void*, int64_t, int), void* arg) {
    if (chunks <= 1 || threads == 1 || size() == 1 || inside_ || !region_.try_lock()) {
      for (int64_t chunk = 0; chunk < chunks; ++chunk) body(arg, chunk, 0);
      return;
    }
    std::lock_guard lock(region_, std::adopt_lock);
    const Clock::time_point now = Clock::now();
    if (now < alone_until_) {
      for (int64_t chunk = 0; chunk < chunks; ++chunk) body(arg, chunk, 0);
      return;
    }
    start();
    body_ = body;
    arg_ = arg;
    chunks_ = chunks;
    threads_ = threads;
    next_chunk_.store(0, std::memory_order_relaxed);
    const uint64_t number = (++number_ & 0x7fffffffu) << 32;
    state_.store(number, std::memory_order_release);  // open
    generation_.fetch_add(1, std::memory_order_seq_cst);
    if (sleeping_.load(std::memory_order_seq_cst) > 0) generation_.notify_all();

    inside_ = true;
    const int64_t mine = claim(0);
    inside_ = false;
    wait_for_helpers(now, mine);
  }

  // fork() copies the calling thread alone: the child starts its own helpers when it first needs them.
  void before_fork() { region_.lock(); }
  void after_fork_parent() { region_.unlock(); }
  void after_fork_child() {
    new auto(std::move(helpers_));  // handles of threads that do not exist here: never joined
    helpers_.clear();
    sleeping_.store(0);
    state_.store(kClosed);
    region_.unlock();
  }

 private:
  static constexpr uint64_t kClosed = uint64_t{1} << 63;

  void start() {
    const int wanted = size() - 1;
    stop_.store(false, std::memory_order_relaxed);
    try {
      while (static_cast<int>(helpers_.size()) < wanted)
        helpers_.emplace_back([this, thread = helpers_.size() + 1, seen = generation_.load()] {
          help(static_cast<int>(thread), seen);
        });
    } catch (const std::system_error&) {
      size_.store(static_cast<int>(helpers_.size()) + 1, std::memory_order_relaxed);  // the system gives no more threads
    }
  }

  void stop() {
    stop_.store(true, std::memory_order_seq_cst);
    generation_.fetch_add(1, std::memory_order_seq_cst);
    generation_.notify_all();
    for (std::thread& t : helpers_) t.join();
    helpers_.clear();
  }

  // Gives the number of chunks done.
  int64_t claim(int thread) {
    for (int64_t done = 0;; ++done) {
      const int64_t chunk = next_chunk_.fetch_add(1, std::memory_order_relaxed);
      if (chunk >= chunks_) return done;
      body_(arg_, chunk, thread);
    }
  }

  void help(int thread, uint32_t seen) {
    inside_ = true;
    FloatEnvironment environment;
    while (!stop_.load(std::memory_order_acquire)) {
      uint64_t state = state_.load(std::memory_order_acquire);
      while (!(state & kClosed)) {
        if (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel)) continue;
        if (thread < threads_) claim(thread);
        state_.fetch_sub(1, std::memory_order_release);
        break;
      }
      seen = wait_for_region(seen);
    }
  }

  uint32_t wait_for_region(uint32_t seen) {
    const Clock::time_point until = Clock::now() + kSpin;
    uint32_t current = generation_.load(std::memory_order_acquire);
    while (current == seen && Clock::now() < until) {
      for (int i = 0; i < 64 && current == seen; ++i) {
        pause();
        current = generation_.load(std::memory_order_acquire);
      }
      if (current == seen) sched_yield();
    }
    if (current == seen) {
      sleeping_.fetch_add(1, std::memory_order_seq_cst);
      generation_.wait(seen, std::memory_order_seq_cst);
      sleeping_.fetch_sub(1, std::memory_order_seq_cst);
      current = generation_.load(std::memory_order_acquire);
    }
    return current;
  }

  void wait_for_helpers(Clock::time_point begun, int64_t chunks_done) {
    const uint64_t closed = state_.fetch_or(kClosed, std::memory_order_acq_rel);
    if ((closed & 0xffffffffu) == 0) return;
    const Clock::time_point begin = Clock::now();
    int rounds = 0;
    while ((state_.load(std::memory_order_acquire) & 0xffffffffu) != 0) {
      pause();
      if (++rounds % 4096 == 0) sched_yield();
    }
    const Clock::time_point end = Clock::now();
    const auto per_chunk = (begin - begun) / std::max<int64_t>(chunks_done, 1);
    if (end - begin > kStalled + 3 * per_chunk) alone_until_ = end + kBackoff;
  }

  static thread_local bool inside_;

  std::mutex region_;  // held by the thread whose region runs
  std::atomic<int> size_{default_num_threads()};
  std::vector<std::thread> helpers_;
  std::atomic<bool> stop_{false};
  Clock::time_point alone_until_{};
  uint64_t number_ = 0;

  void (*body_)(void*, int64_t, int) = nullptr;
  void* arg_ = nullptr;
  int64_t chunks_ = 0;
  int threads_ = 1;
  alignas(64) std::atomic<uint64_t> state_{kClosed};
  alignas(64) std::atomic<int64_t> next_chunk_{0};
  alignas(64) std::atomic<uint32_t> generation_{0};
  std::atomic<int> sleeping_{0};
};

thread_local bool Pool::inside_ = false;

Pool& pool() {
  // Never destroyed: a thread may still compute while the process exits.
  static Pool* const p = [] {
    auto* made = new Pool;
    pthread_atfork([] { pool().before_fork(); }, [] { pool().after_fork_parent(); },
                   [] { pool().after_fork_child(); });
    return made;
  }();
  return *p;
}

// Whole CPUs that the cgroup grants (version 2, then 1), or a large number.
int cgroup_quota() {
  double quota = 0, period = 0;
  std::string word;
  if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2 >> word >> period && word != "max") {
    quota = std::atof(word.c_str());
  } else if (std::ifstream q("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"); q >> quota) {
    std::ifstream p("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    p >> period;
  }
  return quota > 0 && period > 0 ? std::max(1, static_cast<int>(quota / period)) : kMaxThreads;
}

}  // namespace

int default_num_threads() {
  if (const char* text = std::getenv("SMELT_NUM_THREADS")) {
    char* end = nullptr;
    const long n = std::strtol(text, &end, 10);
    if (*text && !*end && n >= 1 && n <= kMaxThreads) return static_cast<int>(n);
    fail(ErrorKind::value, "SMELT_NUM_THREADS", "must be a number from 1 to ", kMaxThreads, ", got '", text, "'");
  }
  cpu_set_t set;
  const int cpus = sched_getaffinity(0, sizeof set, &set) == 0
                       ? CPU_COUNT(&set)
                       : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return std::clamp(std::min(cpus, cgroup_quota()), 1, kMaxThreads);
}

int num_threads() { return pool().size(); }

void set_num_threads(int n) {
  require(n >= 1 && n <= kMaxThreads, "set_num_threads", "the number must be from 1 to ", kMaxThreads, ", got ", n);
  pool().resize(n);
}

void parallel(int threads, int64_t chunks, void (*body)(void*, int64_t, int), void* arg) {
  pool().run(threads, chunks, body, arg);
}

}  // namespace smelt
