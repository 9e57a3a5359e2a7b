// The words of CUDA C++ that kernels use, for a compiler that knows none of them: included before each .cu file of the
// emulator's build. A kernel runs as one fiber per thread of a block, block after block, on the calling thread.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <source_location>

#define SMELT_EMU 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

namespace smelt::emu {

// Where the thread that runs now stands.
struct Place {
  uint3 thread, block;
  dim3 block_size, grid_size;
};
extern const Place* place;

using Site = std::source_location;

// Runs body(argument) once for every thread. False when a rule was broken; error() tells which, where and by whom.
bool run(dim3 grid, dim3 block, size_t dynamic_shared, void (*body)(const void*), const void* argument, size_t argument_bytes);
const char* error();

// Keeps a launch, with a copy of its argument, for run_all. Graphs are vectors of launches.
void keep(void* graph, dim3 grid, dim3 block, size_t dynamic_shared, void (*body)(const void*), const void* argument, size_t argument_bytes);
// Threads take turns in an order drawn from the seed; 0: in that of their numbers.
void set_order(uint64_t seed);

// ---- what words.cuh is made of; each may hand over to another thread

void sync_threads(Site site);
// Waits for all lanes of the mask. The last one calls combine with what every lane gave (null outside the mask).
void meet(unsigned mask, const char* word, void* given, void (*combine)(void* const* given, unsigned mask), Site site);
int lane();

char* shared_array(size_t bytes, size_t alignment, Site site);
char* dynamic_shared();

void cp_async(void* to, const void* from, int bytes, int size, Site site);
void cp_async_commit();
void cp_async_wait(int groups_in_flight);

void mbarrier_init(uint64_t* barrier, int count, Site site);
void mbarrier_arrive(uint64_t* barrier, int bytes_to_come, Site site);
void mbarrier_wait(uint64_t* barrier, int parity, Site site);
void bulk_copy(void* to_shared, const void* from, int bytes, uint64_t* barrier, Site site);

// Checks of a word's own accesses; ordinary ones are checked where the compiler put a call (check.cpp).
void check_read(const void* p, size_t bytes, size_t alignment, Site site);
void check_write(void* p, size_t bytes, size_t alignment, Site site);
// Ends the kernel: `what` is a sentence without its end.
[[noreturn]] void broken(const char* what, Site site);

}  // namespace smelt::emu

#define threadIdx (::smelt::emu::place->thread)
#define blockIdx (::smelt::emu::place->block)
#define blockDim (::smelt::emu::place->block_size)
#define gridDim (::smelt::emu::place->grid_size)
