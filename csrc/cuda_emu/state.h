// What the emulator's parts know of the block that runs.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "cuda_emu/emu.h"

namespace smelt::emu {

constexpr int kWarp = 32;
constexpr int kMaxThreads = 1024;
constexpr size_t kMaxShared = 227 << 10;  // of a block, on Hopper
constexpr size_t kRedZone = 64;           // bytes between shared arrays, which nobody may touch

// A thread of the block.
struct Fiber {
  enum class State { ready, waiting, ended };
  void* stack_pointer = nullptr;
  char* stack = nullptr;  // lowest address
  Place place;
  int number = 0;
  State state = State::ready;

  // What it waits for.
  const char* word = "";
  Site site;
  unsigned mask = 0;
  void* given = nullptr;
  uint64_t* mbarrier = nullptr;
  int parity = 0;

  size_t shared_top = 0;  // of the static shared arrays that it has come by
  struct AsyncCopy {
    void* to;
    const void* from;
    int bytes, size;
    int group;
  };
  std::vector<AsyncCopy> copies;
  int groups = 0;  // committed

  // For races: waits that this thread and others have passed.
  uint32_t block_epoch = 0, warp_epoch = 0;
};

struct SharedArray {
  size_t bytes;
  Site site;
};

struct Block {
  std::vector<Fiber> fibers;
  int threads = 0, ended = 0, at_barrier = 0;
  Fiber* running = nullptr;
  std::map<size_t, SharedArray> arrays;  // by offset
  size_t dynamic_bytes = 0;
  uint32_t generation = 0;  // of all blocks so far: makes what is known of shared memory old
  bool has_mbarrier = false;
  struct BulkCopy {
    void* to;
    const void* from;
    int bytes;
    uint64_t* barrier;
  };
  std::vector<BulkCopy> bulk_copies;
  const void* argument = nullptr;
  size_t argument_bytes = 0;
};

extern Block block;
extern thread_local bool t_in_kernel;
constexpr size_t kStack = 64 << 10;
char* shared_memory();  // kMaxShared bytes

// A kernel's launch that is run later, as often as wanted.
struct Launch {
  dim3 grid, block;
  size_t dynamic_shared;
  void (*body)(const void*);
  std::vector<std::max_align_t> argument;
  size_t argument_bytes;
};

// memory.cpp: the device's memory. Outside of kernels and copies no access to it succeeds.
void* device_allocate(int device, size_t bytes);
void device_release(int device, void* p, size_t bytes);
size_t device_bytes_in_use();
class Unlocked {
 public:
  Unlocked();
  ~Unlocked();
};
enum class Where { elsewhere, inside, outside };  // outside: in the device's memory, but of no allocation
Where find_in_device(const void* p, size_t bytes);
std::string describe_in_device(const void* p);

// check.cpp
void forget_accesses();  // a new block begins
void take_off(void* p, size_t bytes);  // an asynchronous copy to shared memory has begun: nobody may touch it
void land(void* p, size_t bytes, const Fiber* by);  // and has ended

}  // namespace smelt::emu
