// The device's memory: one range of addresses, which the host cannot touch while no kernel or copy is at work on it.
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <mutex>

#include "cuda_emu/state.h"

namespace smelt::emu {
namespace {

constexpr size_t kReserved = size_t{64} << 30;  // addresses, not memory
constexpr size_t kMemory = size_t{4} << 30;     // of the device
constexpr size_t kAlignment = 256;

std::recursive_mutex g_mutex;
std::map<uintptr_t, size_t> g_live;            // bytes of each allocation, by address
std::map<uintptr_t, size_t> g_free;            // bytes of each gap below g_top
uintptr_t g_top = 0;                           // nothing beyond was ever handed out
size_t g_in_use = 0;
int g_unlocked = 0;

uintptr_t base() {
  static const uintptr_t kBase = [] {
    void* p = mmap(nullptr, kReserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    return reinterpret_cast<uintptr_t>(p);
  }();
  return kBase;
}

// An allocation's part of the range: something beyond its end always stays free.
size_t span_of(size_t bytes) { return (bytes + kRedZone + kAlignment - 1) / kAlignment * kAlignment; }

void protect(int access) {
  if (g_top > base()) mprotect(reinterpret_cast<void*>(base()), g_top - base(), access);
}

}  // namespace

Unlocked::Unlocked() {
  g_mutex.lock();
  if (!g_unlocked++) protect(PROT_READ | PROT_WRITE);
}
Unlocked::~Unlocked() {
  if (!--g_unlocked) protect(PROT_NONE);
  g_mutex.unlock();
}

void* device_allocate(int, size_t bytes) {
  const std::lock_guard lock(g_mutex);
  const size_t span = span_of(bytes);
  if (span < bytes || g_in_use + span > kMemory) return nullptr;
  if (!g_top) g_top = base();
  auto gap = std::find_if(g_free.begin(), g_free.end(), [&](const auto& g) { return g.second >= span; });
  uintptr_t at;
  if (gap != g_free.end()) {
    at = gap->first;
    const size_t rest = gap->second - span;
    g_free.erase(gap);
    if (rest) g_free[at + span] = rest;
  } else {
    if (g_top + span > base() + kReserved) return nullptr;
    at = g_top;
    g_top = (at + span + 4095) / 4096 * 4096;
    if (g_top > at + span) g_free[at + span] = g_top - at - span;
  }
  g_live[at] = bytes;
  g_in_use += span;
  const Unlocked unlocked;
  std::memset(reinterpret_cast<void*>(at), 0xff, bytes);  // a NaN in every float
  return reinterpret_cast<void*>(at);
}

void device_release(int, void* p, size_t) {
  const std::lock_guard lock(g_mutex);
  const auto entry = g_live.find(reinterpret_cast<uintptr_t>(p));
  if (entry == g_live.end()) return;
  uintptr_t at = entry->first;
  size_t span = span_of(entry->second);
  g_live.erase(entry);
  g_in_use -= span;
  auto next = g_free.lower_bound(at);
  if (next != g_free.end() && next->first == at + span) {
    span += next->second;
    next = g_free.erase(next);
  }
  if (next != g_free.begin() && std::prev(next)->first + std::prev(next)->second == at) {
    at = std::prev(next)->first;
    span += std::prev(next)->second;
  }
  const uintptr_t page = (at + 4095) / 4096 * 4096;
  if (at + span == g_top && page < g_top) {  // the fewer pages there are, the sooner access to them is taken away and given
    madvise(reinterpret_cast<void*>(page), g_top - page, MADV_DONTNEED);
    mprotect(reinterpret_cast<void*>(page), g_top - page, PROT_NONE);
    g_top = page;
    span = page - at;
  }
  g_free[at] = span;
  if (!span) g_free.erase(at);
}

size_t device_bytes_in_use() {
  const std::lock_guard lock(g_mutex);
  return g_in_use;
}

Where find_in_device(const void* p, size_t bytes) {
  const auto at = reinterpret_cast<uintptr_t>(p);
  if (at < base() || at >= base() + kReserved) return Where::elsewhere;
  auto next = g_live.upper_bound(at);
  if (next == g_live.begin()) return Where::outside;
  const auto& [begin, size] = *std::prev(next);
  return at + bytes <= begin + size ? Where::inside : Where::outside;
}

std::string describe_in_device(const void* p) {
  const auto at = reinterpret_cast<uintptr_t>(p);
  auto next = g_live.upper_bound(at);
  if (next == g_live.begin()) return "before every allocation";
  const auto& [begin, size] = *std::prev(next);
  return std::to_string(at - begin) + " bytes into an allocation of " + std::to_string(size);
}

}  // namespace smelt::emu
