#include "core/allocator.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>

namespace smelt {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

size_t in_pages(size_t bytes) {
  static const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

void* system_allocate(int, size_t bytes) {
  if (CachingAllocator::kExact) {
    void* exact = nullptr;
    return posix_memalign(&exact, 64, bytes) ? nullptr : exact;
  }
  if (bytes < kHugePage) return std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  // Mapped, so that a release is one: the heap would keep it. More than is needed, for the alignment; the rest goes back.
  if (bytes > SIZE_MAX - 2 * kHugePage) return nullptr;
  const size_t whole = in_pages(bytes);
  void* const mapped = mmap(nullptr, whole + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  const size_t before = -reinterpret_cast<uintptr_t>(mapped) % kHugePage;
  char* const p = static_cast<char*>(mapped) + before;
  if (before) munmap(mapped, before);
  if (before < kHugePage) munmap(p + whole, kHugePage - before);
  madvise(p, whole, MADV_HUGEPAGE);  // a hint: refusal costs only speed
  return p;
}

void system_release(int, void* p, size_t bytes) {
  CachingAllocator::kExact || bytes < kHugePage ? std::free(p) : static_cast<void>(munmap(p, in_pages(bytes)));
}

}  // namespace

// Four classes to each power of two: at most a quarter of a block is unused.
size_t CachingAllocator::size_class(size_t bytes) const {
  if (exact_) return std::max<size_t>(bytes, 1);
  if (bytes <= 256) return (std::max<size_t>(bytes, 1) + 63) / 64 * 64;
  const size_t step = std::bit_floor(bytes - 1) / 4;
  return (bytes + step - 1) / step * step;
}

void* CachingAllocator::allocate(size_t bytes, bool* over_limit) {
  const size_t size = size_class(bytes);
  if (size < bytes || size > size_t{INT64_MAX}) return nullptr;
  std::lock_guard lock(mutex_);
  const auto wanted = static_cast<int64_t>(size);
  if (stats_.limit && wanted > stats_.limit - stats_.in_use) {  // whatever the cache holds
    if (over_limit) *over_limit = true;
    return nullptr;
  }
  void* p = nullptr;
  std::vector<void*>& blocks = free_[size];
  if (!blocks.empty()) {
    p = blocks.back();
    blocks.pop_back();
    stats_.cached -= static_cast<int64_t>(size);
  } else {
    if (stats_.limit && wanted > stats_.limit - stats_.in_use - stats_.cached) empty_cache_locked();
    p = source_.allocate(device_, size);
    if (!p) {
      empty_cache_locked();
      p = source_.allocate(device_, size);
      if (!p) return nullptr;
    }
    ++stats_.system_allocations;
  }
  ++stats_.allocations;
  stats_.in_use += static_cast<int64_t>(size);
  stats_.peak_in_use = std::max(stats_.peak_in_use, stats_.in_use);
  return p;
}

void CachingAllocator::release(void* p, size_t bytes) {
  if (!p) return;
  const size_t size = size_class(bytes);
  std::lock_guard lock(mutex_);
  stats_.in_use -= static_cast<int64_t>(size);
  const bool beyond = stats_.limit && stats_.in_use + stats_.cached + static_cast<int64_t>(size) > stats_.limit;
  if (exact_ || beyond) return source_.release(device_, p, size);
  free_[size].push_back(p);
  stats_.cached += static_cast<int64_t>(size);
}

void CachingAllocator::empty_cache() {
  std::lock_guard lock(mutex_);
  empty_cache_locked();
}

void CachingAllocator::empty_cache_locked() {
  for (auto& [size, blocks] : free_) {
    for (void* p : blocks) source_.release(device_, p, size);
    blocks.clear();
  }
  stats_.cached = 0;
}

void CachingAllocator::set_limit(int64_t bytes) {
  std::lock_guard lock(mutex_);
  stats_.limit = bytes;
  if (bytes && stats_.in_use + stats_.cached > bytes) empty_cache_locked();
}

MemoryStats CachingAllocator::stats() {
  std::lock_guard lock(mutex_);
  return stats_;
}

void CachingAllocator::reset_peak() {
  std::lock_guard lock(mutex_);
  stats_.peak_in_use = stats_.in_use;
}

CachingAllocator& cpu_allocator() {
  // Never destroyed: tensors may outlive static objects.
  static CachingAllocator* const allocator = [] {
    auto* made = new CachingAllocator({system_allocate, system_release});
    pthread_atfork([] { cpu_allocator().lock_for_fork(); }, [] { cpu_allocator().unlock_after_fork(); },
                   [] { cpu_allocator().unlock_after_fork(); });
    return made;
  }();
  return *allocator;
}

}  // namespace smelt
