// The table at run time: per backend and slot an ordered list of candidates, best first.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/kernels.h"

namespace smelt {

// Instruction sets of a CPU, each with all that stands before it.
enum class Isa : uint8_t { portable, avx2, avx512, avx512bf16, amx };

struct Candidate {
  const char* name;                                       // <isa>_<slot>[_<what>], unique within its slot
  Isa isa;                                                // least the device must have
  bool (*supports)(const void* args, Device device);      // null: everything
  Status (*run)(const void* args, Context& context) noexcept;
  size_t (*workspace)(const void* args, int threads);     // bytes; null: none
};

// What is known of a slot without looking at any candidate.
struct SlotInfo {
  const char* name;
  size_t args_size;
  std::span<const BufferField> buffers;
  Work (*work)(const void* args);  // nothing where the arguments do not say
  double (*ns)(const void* args);  // rough time on one core
  bool (*same)(const void* a, const void* b);
};
const SlotInfo& slot_info(int slot);
int find_slot(std::string_view name);  // -1 when there is none

class KernelTable {
 public:
  KernelTable();
  // Puts a candidate before those that are there: while the table is filled, before anybody reads it.
  void prepend(int slot, const Candidate& candidate);
  // Puts a candidate after those that are there, at any time.
  void append(int slot, const Candidate& candidate);
  std::span<const Candidate> candidates(int slot) const { return *slots_[slot].load(std::memory_order_acquire); }
  // Forward and backward both or neither: RuntimeError names the slot that breaks this.
  void check() const;

 private:
  using List = std::vector<Candidate>;
  std::atomic<List*> slots_[kSlotCount];
  std::vector<std::unique_ptr<List>> lists_;  // also those that were replaced: a launch may still read one
  std::mutex mutex_;
};

}  // namespace smelt
