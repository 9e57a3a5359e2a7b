#include "core/table.h"

#include <cstring>
#include <utility>

#include "core/error.h"

namespace smelt {
namespace {

template <class Args>
SlotInfo make_info() {
  static constexpr auto kBuffers = Args::buffers();
  static_assert(std::is_trivially_copyable_v<Args>, "recorded as bytes");
  const auto work = [](const void* args) -> Work {
    if constexpr (requires(const Args& a) { a.work(); }) return static_cast<const Args*>(args)->work();
    return {};
  };
  const auto ns = [](const void* args) -> double {
    if constexpr (requires(const Args& a) { a.ns(); }) return static_cast<const Args*>(args)->ns();
    if constexpr (requires(const Args& a) { a.work(); }) {
      const Work w = static_cast<const Args*>(args)->work();
      return 0.01 * w.flops + 0.08 * w.bytes;
    }
    return 0;
  };
  const auto same = [](const void* a, const void* b) { return *static_cast<const Args*>(a) == *static_cast<const Args*>(b); };
  return {Args::name, sizeof(Args), kBuffers, work, ns, same};
}

template <size_t... I>
std::array<SlotInfo, kSlotCount> make_infos(std::index_sequence<I...>) {
  return {make_info<std::tuple_element_t<I, Slots>>()...};
}

}  // namespace

const SlotInfo& slot_info(int slot) {
  static const std::array<SlotInfo, kSlotCount> kInfos = make_infos(std::make_index_sequence<kSlotCount>{});
  return kInfos[slot];
}

int find_slot(std::string_view name) {
  for (int slot = 0; slot < kSlotCount; ++slot)
    if (name == slot_info(slot).name) return slot;
  return -1;
}

KernelTable::KernelTable() {
  for (std::atomic<List*>& slot : slots_) slot = lists_.emplace_back(std::make_unique<List>()).get();
}

void KernelTable::prepend(int slot, const Candidate& candidate) {
  List& list = *slots_[slot].load();
  list.insert(list.begin(), candidate);
}

void KernelTable::append(int slot, const Candidate& candidate) {
  const std::lock_guard lock(mutex_);
  List& longer = *lists_.emplace_back(std::make_unique<List>(*slots_[slot].load()));
  longer.push_back(candidate);
  slots_[slot].store(&longer, std::memory_order_release);
}

void KernelTable::check() const {
  for (int slot = 0; slot < kSlotCount; ++slot) {
    const std::string forward = slot_info(slot).name;
    for (int other = 0; other < kSlotCount; ++other) {
      const std::string_view name = slot_info(other).name;
      if (!name.starts_with(forward + "_backward")) continue;
      if (candidates(slot).empty() != candidates(other).empty())
        fail(ErrorKind::runtime, "kernel table", "forward and backward must both be there or both be absent, got ",
             candidates(slot).size(), " candidates for ", forward, " and ", candidates(other).size(), " for ",
             std::string(name));
    }
  }
}

}  // namespace smelt
