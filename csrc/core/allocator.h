// Memory of a device, cached: a freed block is kept for the next request of its size class, because fresh pages cost
// more than many kernels.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

namespace smelt {

struct MemoryStats {
  int64_t in_use = 0;       // bytes handed out
  int64_t peak_in_use = 0;  // most bytes handed out at once
  int64_t cached = 0;       // bytes kept for later requests
  int64_t allocations = 0;  // requests so far
  int64_t system_allocations = 0;  // those that the system had to serve
  int64_t limit = 0;               // most bytes that are taken from the device, cache included; 0 without one
};

class CachingAllocator {
 public:
  // AddressSanitizer is such a watcher.
#ifdef __SANITIZE_ADDRESS__
  static constexpr bool kExact = true;
#else
  static constexpr bool kExact = false;
#endif

  struct Source {  // the device's own memory calls
    void* (*allocate)(int device, size_t bytes);  // null when there is no memory
    void (*release)(int device, void* p, size_t bytes);
  };
  // `exact`: blocks have no slack and are given back at once, so that whoever watches memory sees where they end.
  explicit CachingAllocator(Source source, int device = 0, bool exact = kExact) : source_(source), device_(device), exact_(exact) {}

  // At least `bytes` bytes, aligned to 64; null when the device, or the limit, has no more even after the cache is emptied.
  // `over_limit` says which.
  void* allocate(size_t bytes, bool* over_limit = nullptr);
  void release(void* p, size_t bytes);  // with the `bytes` of the request
  void empty_cache();
  void set_limit(int64_t bytes);  // 0: none
  MemoryStats stats();
  void reset_peak();

  void lock_for_fork() { mutex_.lock(); }
  void unlock_after_fork() { mutex_.unlock(); }

 private:
  size_t size_class(size_t bytes) const;
  void empty_cache_locked();

  Source source_;
  int device_;
  bool exact_;
  std::mutex mutex_;
  std::map<size_t, std::vector<void*>> free_;  // by size class
  MemoryStats stats_;
};

CachingAllocator& cpu_allocator();

}  // namespace smelt
