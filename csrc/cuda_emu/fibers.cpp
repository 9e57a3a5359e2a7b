// Runs a kernel: one fiber for each thread of a block, one block after the other. A fiber runs alone until it waits for
// others, so what it reads of them before they wrote it is what it would read at worst.
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <mutex>
#include <random>

#include "cuda_emu/state.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif
#ifndef __x86_64__
#error "the emulator switches fibers on x86-64 alone"
#endif

// Saves what a call must keep, and goes on where `to` was saved.
extern "C" void smelt_emu_switch(void** from, void* to);
asm(R"(
.text
.globl smelt_emu_switch
.hidden smelt_emu_switch
.type smelt_emu_switch, @function
smelt_emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size smelt_emu_switch, .-smelt_emu_switch
)");

namespace smelt::emu {

Block block;
const Place* place = nullptr;
thread_local bool t_in_kernel = false;

namespace {

std::mutex g_mutex;
std::string g_error;
bool g_broken = false;
void* g_scheduler = nullptr;
void (*g_body)(const void*) = nullptr;
uint64_t g_order = 0;
std::mt19937_64 g_random;

std::string at(const Site& site) {
  const std::string file = site.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(site.line());
}
std::string who(const Fiber& f) {
  const auto three = [](uint3 u) { return "(" + std::to_string(u.x) + ", " + std::to_string(u.y) + ", " + std::to_string(u.z) + ")"; };
  return "thread " + three(f.place.thread) + " of block " + three(f.place.block);
}

#ifdef __SANITIZE_ADDRESS__
const void* g_scheduler_stack = nullptr;
size_t g_scheduler_bytes = 0;
void leave(bool for_ever) {
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(for_ever ? nullptr : &fake, g_scheduler_stack, g_scheduler_bytes);
  smelt_emu_switch(&block.running->stack_pointer, g_scheduler);
  __sanitizer_finish_switch_fiber(fake, &g_scheduler_stack, &g_scheduler_bytes);
}
void enter(Fiber& f) {
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, f.stack, kStack);
  smelt_emu_switch(&g_scheduler, f.stack_pointer);
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
}
void arrived() { __sanitizer_finish_switch_fiber(nullptr, &g_scheduler_stack, &g_scheduler_bytes); }
#else
void leave(bool) { smelt_emu_switch(&block.running->stack_pointer, g_scheduler); }
void enter(Fiber& f) { smelt_emu_switch(&g_scheduler, f.stack_pointer); }
void arrived() {}
#endif

void wait(const char* word, Site site) {
  Fiber& f = *block.running;
  f.word = word;
  f.site = site;
  f.state = Fiber::State::waiting;
  leave(false);
}

// Where a fiber begins.
void fiber_main() {
  arrived();
  g_body(block.argument);
  Fiber& f = *block.running;
  if (block.at_barrier) broken("a thread ends while others wait at sync_threads", f.site);
  f.state = Fiber::State::ended;
  ++block.ended;
  leave(true);
  __builtin_unreachable();
}

void make_stacks(size_t threads) {
  while (block.fibers.size() < threads) {
    const size_t page = 4096;
    auto* memory = static_cast<char*>(
        mmap(nullptr, kStack + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (memory == MAP_FAILED) throw std::bad_alloc();
    mprotect(memory, page, PROT_NONE);
    block.fibers.emplace_back();
    block.fibers.back().stack = memory + page;
  }
}

void prepare(Fiber& f) {
  auto* top = reinterpret_cast<void**>(f.stack + kStack);
  *--top = nullptr;  // keeps the alignment of a call
  *--top = reinterpret_cast<void*>(&fiber_main);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  f.stack_pointer = top;
  f.state = Fiber::State::ready;
  f.shared_top = 0;
  f.copies.clear();
  f.groups = 0;
  f.block_epoch = f.warp_epoch = 0;
}

// ----------------------------------------------------------------------------------------------------- mbarriers

// Eight bytes in shared memory: arrivals that a phase needs, those that it waits for, bytes to come, and its parity.
struct MBarrier {
  uint16_t count, pending;
  uint32_t parity : 1;
  int32_t bytes : 31;
};
static_assert(sizeof(MBarrier) == 8);

MBarrier read(const uint64_t* p) { return std::bit_cast<MBarrier>(*p); }
void write(uint64_t* p, MBarrier b) {
  if (b.pending == 0 && b.bytes == 0) {
    b.parity ^= 1;
    b.pending = b.count;
  }
  *p = std::bit_cast<uint64_t>(b);
}

// Bulk copies arrive when somebody waits at their barrier, no sooner.
void arrive_copies(const uint64_t* barrier) {
  auto& all = block.bulk_copies;
  for (size_t i = 0; i < all.size();) {
    if (all[i].barrier != barrier) {
      ++i;
      continue;
    }
    const Block::BulkCopy c = all[i];
    all.erase(all.begin() + static_cast<int64_t>(i));
    std::memcpy(c.to, c.from, static_cast<size_t>(c.bytes));
    land(c.to, static_cast<size_t>(c.bytes), nullptr);
    MBarrier b = read(c.barrier);
    b.bytes -= c.bytes;
    write(c.barrier, b);
  }
}

bool may_go_on(const Fiber& f) {
  if (!f.mbarrier) return false;
  arrive_copies(f.mbarrier);
  return read(f.mbarrier).parity != static_cast<uint32_t>(f.parity);
}

// ----------------------------------------------------------------------------------------------------- scheduling

// Who waits for what, by place: at most a few lines.
std::string census() {
  std::map<std::string, std::pair<int, const Fiber*>> waiting;
  for (int i = 0; i < block.threads; ++i) {
    const Fiber& f = block.fibers[i];
    if (f.state != Fiber::State::waiting) continue;
    auto& [count, first] = waiting[std::string(f.word) + " at " + at(f.site)];
    if (!count++) first = &f;
  }
  std::string text = "no thread can go on: " + std::to_string(block.ended) + " have ended";
  for (const auto& [what, entry] : waiting)
    text += ", " + std::to_string(entry.first) + " wait for " + what + " (the first is " + who(*entry.second) + ")";
  return text;
}

bool run_block() {
  std::vector<int> order(static_cast<size_t>(block.threads));
  for (int i = 0; i < block.threads; ++i) order[i] = i;
  while (block.ended < block.threads) {
    if (g_order) std::shuffle(order.begin(), order.end(), g_random);
    bool progress = false;
    for (int i : order) {
      Fiber& f = block.fibers[i];
      if (f.state == Fiber::State::waiting && may_go_on(f)) {
        f.mbarrier = nullptr;
        f.state = Fiber::State::ready;
      }
      if (f.state != Fiber::State::ready) continue;
      progress = true;
      block.running = &f;
      place = &f.place;
      enter(f);
      if (g_broken) return false;
    }
    if (!progress) {
      g_error = census();
      return false;
    }
  }
  return true;
}

// Only between these do accesses of this thread belong to a kernel.
struct InKernel {
  InKernel() { t_in_kernel = true; }
  ~InKernel() { t_in_kernel = false; }
};

}  // namespace

char* shared_memory() {
  alignas(1024) static char memory[kMaxShared];
  return memory;
}

bool run(dim3 grid, dim3 size, size_t dynamic, void (*body)(const void*), const void* argument, size_t argument_bytes) {
  const std::lock_guard lock(g_mutex);
  const unsigned threads = size.x * size.y * size.z;
  if (threads == 0 || threads > kMaxThreads || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535 ||
      grid.x > 0x7fffffffu || dynamic > kMaxShared) {
    g_error = "invalid configuration argument: " + std::to_string(threads) + " threads, grid (" + std::to_string(grid.x) + ", " +
              std::to_string(grid.y) + ", " + std::to_string(grid.z) + "), " + std::to_string(dynamic) + " bytes of shared memory";
    return false;
  }
  make_stacks(threads);
  const Unlocked unlocked;
  const InKernel in_kernel;
  g_body = body;
  g_broken = false;
  g_random.seed(g_order);
  block.argument = argument;
  block.argument_bytes = argument_bytes;
  block.threads = static_cast<int>(threads);
  block.dynamic_bytes = dynamic;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        size_t dirty = dynamic;  // of the block before: a NaN in every float
        for (const auto& [offset, array] : block.arrays) dirty = std::max(dirty, offset + array.bytes);
        std::memset(shared_memory(), 0xff, std::min(dirty + kRedZone, kMaxShared));
        block.arrays.clear();
        block.bulk_copies.clear();
        block.ended = block.at_barrier = 0;
        block.has_mbarrier = false;
        forget_accesses();
        for (unsigned i = 0; i < threads; ++i) {
          Fiber& f = block.fibers[i];
          f.number = static_cast<int>(i);
          f.place = {{i % size.x, i / size.x % size.y, i / size.x / size.y}, {x, y, z}, size, grid};
          prepare(f);
        }
        if (!run_block()) return false;
      }
  return true;
}

const char* error() { return g_error.c_str(); }
void set_order(uint64_t seed) { g_order = seed; }

void broken(const char* what, Site site) {
  g_error = std::string(what) + ": " + who(*block.running) + (site.line() ? " at " + at(site) : "");
  g_broken = true;
  leave(true);
  __builtin_unreachable();
}

int lane() { return block.running->number % kWarp; }

void sync_threads(Site site) {
  if (block.ended) broken("sync_threads is reached after other threads have ended", site);
  for (int i = 0; i < block.threads && block.at_barrier; ++i) {
    const Fiber& f = block.fibers[i];
    if (f.state == Fiber::State::waiting && f.word == std::string_view("sync_threads") && f.site.line() != site.line())
      broken("threads of one block wait at different sync_threads", site);
  }
  if (++block.at_barrier < block.threads) return wait("sync_threads", site);
  block.at_barrier = 0;
  for (int i = 0; i < block.threads; ++i) {
    block.fibers[i].state = Fiber::State::ready;
    ++block.fibers[i].block_epoch;
  }
}

void meet(unsigned mask, const char* word, void* given, void (*combine)(void* const*, unsigned), Site site) {
  Fiber& self = *block.running;
  const int first = self.number / kWarp * kWarp, lanes = std::min(kWarp, block.threads - first);
  if (!(mask >> lane() & 1)) broken("a thread is not in the mask that it gives", site);
  // Lanes beyond the block are no threads; the full mask means those that are there.
  if (mask == ~0u && lanes < kWarp) mask = (1u << lanes) - 1;
  void* all[kWarp] = {};
  all[self.number - first] = given;
  for (int i = 0; i < kWarp; ++i) {
    if (!(mask >> i & 1) || first + i == self.number) continue;
    if (i >= lanes) broken("a mask has lanes beyond the block", site);
    const Fiber& other = block.fibers[first + i];
    if (other.state == Fiber::State::ended) broken("a mask has a lane whose thread has ended", site);
    const bool there = other.state == Fiber::State::waiting && other.word == std::string_view(word) && other.mask == mask &&
                       other.site.line() == site.line();
    if (!there) {
      self.mask = mask;
      self.given = given;
      return wait(word, site);
    }
    all[i] = other.given;
  }
  t_in_kernel = false;  // combine works for all lanes, on the stacks of each
  if (combine) combine(all, mask);
  t_in_kernel = true;
  for (int i = 0; i < lanes; ++i) {
    if (!(mask >> i & 1)) continue;
    Fiber& f = block.fibers[first + i];
    f.state = Fiber::State::ready;
    ++f.warp_epoch;
  }
}

// -------------------------------------------------------------------------------------------------- shared memory

char* shared_array(size_t bytes, size_t alignment, Site site) {
  Fiber& f = *block.running;
  const size_t begin = std::max(f.shared_top, block.dynamic_bytes ? block.dynamic_bytes + kRedZone : 0);
  const size_t step = std::max<size_t>(alignment, 16), offset = (begin + step - 1) / step * step;
  if (offset + bytes > kMaxShared) broken("shared arrays need more than 227 KB", site);
  const auto [entry, made] = block.arrays.try_emplace(offset, SharedArray{bytes, site});
  if (!made && (entry->second.bytes != bytes || entry->second.site.line() != site.line()))
    broken("threads of one block come by different shared arrays", site);
  f.shared_top = offset + bytes + kRedZone;
  return shared_memory() + offset;
}

char* dynamic_shared() { return shared_memory(); }

// ------------------------------------------------------------------------------------------------ asynchronous copies

void cp_async(void* to, const void* from, int bytes, int size, Site site) {
  if (bytes < 0 || bytes > size) broken("cp_async copies between 0 and all of its bytes", site);
  check_write(to, static_cast<size_t>(size), static_cast<size_t>(size), site);
  if (bytes) check_read(from, static_cast<size_t>(bytes), static_cast<size_t>(size), site);
  // Until it is waited for, nobody can rely on the old content or the new.
  std::memset(to, 0xff, static_cast<size_t>(size));
  Fiber& f = *block.running;
  take_off(to, static_cast<size_t>(size));
  f.copies.push_back({to, from, bytes, size, f.groups});
}
void cp_async_commit() { ++block.running->groups; }
void cp_async_wait(int in_flight) {
  Fiber& f = *block.running;
  std::erase_if(f.copies, [&](const Fiber::AsyncCopy& c) {
    if (c.group >= f.groups - in_flight) return false;
    std::memcpy(c.to, c.from, static_cast<size_t>(c.bytes));
    std::memset(static_cast<char*>(c.to) + c.bytes, 0, static_cast<size_t>(c.size - c.bytes));
    land(c.to, static_cast<size_t>(c.size), &f);
    return true;
  });
}

void mbarrier_init(uint64_t* barrier, int count, Site site) {
  check_write(barrier, 8, 8, site);
  block.has_mbarrier = true;
  *barrier = std::bit_cast<uint64_t>(MBarrier{static_cast<uint16_t>(count), static_cast<uint16_t>(count), 0, 0});
}
void mbarrier_arrive(uint64_t* barrier, int bytes, Site site) {
  MBarrier b = read(barrier);
  if (b.pending == 0) broken("more arrivals at an mbarrier than its phase waits for", site);
  --b.pending;
  b.bytes += bytes;
  write(barrier, b);
}
void mbarrier_wait(uint64_t* barrier, int parity, Site site) {
  Fiber& f = *block.running;
  f.mbarrier = barrier;
  f.parity = parity;
  if (may_go_on(f)) {
    f.mbarrier = nullptr;
    return;
  }
  wait("mbarrier_wait", site);
}
void bulk_copy(void* to, const void* from, int bytes, uint64_t* barrier, Site site) {
  if (bytes <= 0 || bytes % 16) broken("bulk_copy takes a multiple of 16 bytes", site);
  check_write(to, static_cast<size_t>(bytes), 16, site);
  check_read(from, static_cast<size_t>(bytes), 16, site);
  std::memset(to, 0xff, static_cast<size_t>(bytes));
  take_off(to, static_cast<size_t>(bytes));
  block.bulk_copies.push_back({to, from, bytes, barrier});
}

}  // namespace smelt::emu
