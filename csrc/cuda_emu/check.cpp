// Looks at every access of a kernel. The compiler puts a call before each (-fsanitize=thread, whose own library is not
// linked): these are the calls. An access must be to memory that is there, shared memory must have been written before it is
// read, and of two threads that touch the same byte of it, one writing, a wait of both must stand between.
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "cuda_emu/state.h"

namespace smelt::emu {
namespace {

// Of one byte of shared memory. Threads are numbered from 1; kMany stands for several readers.
struct Byte {
  uint32_t generation = 0;
  uint32_t written_block = 0, written_warp = 0, read_block = 0, read_warp = 0;  // epochs
  uint16_t writer = 0, reader = 0;
  int16_t reader_warp = 0;  // or kMany
  bool in_flight = false;   // of an asynchronous copy
};
constexpr int kMany = -1;
#ifdef __SANITIZE_ADDRESS__
constexpr bool kEveryAccess = false;  // ordinary ones are looked at by AddressSanitizer instead
#else
constexpr bool kEveryAccess = true;
#endif
Byte g_bytes[kMaxShared];

// The linker's marks around this library: tables of constants lie within.
extern "C" const char __ehdr_start[] __attribute__((visibility("hidden")));
extern "C" const char _end[] __attribute__((visibility("hidden")));

bool within(const void* p, size_t bytes, const void* begin, size_t size) {
  return p >= begin && static_cast<const char*>(p) + bytes <= static_cast<const char*>(begin) + size;
}

// "file.cu:12" of an address in code, where addr2line is installed.
std::string source_of(const void* code) {
  Dl_info info;
  if (!dladdr(code, &info)) return "";
  char command[4096];
  std::snprintf(command, sizeof command, "addr2line -e '%s' %#zx 2>/dev/null", info.dli_fname,
                static_cast<size_t>(static_cast<const char*>(code) - 1 - static_cast<const char*>(info.dli_fbase)));
  std::string line;
  if (FILE* pipe = popen(command, "r")) {
    char text[1024];
    if (std::fgets(text, sizeof text, pipe)) line = text;
    pclose(pipe);
  }
  line = line.substr(line.rfind('/') + 1);
  return line.substr(0, line.find_first_of(" \n"));
}

[[noreturn]] void broken_at(const std::string& what, const void* code, Site site) {
  const std::string where = code ? source_of(code) : "";
  broken((where.empty() ? what : what + " in " + where).c_str(), code ? Site() : site);
}

// Both threads have passed a wait of each other since the earlier access.
bool apart(const Fiber& self, int other, int other_warp, uint32_t block_epoch, uint32_t warp_epoch) {
  if (other == self.number + 1 || block_epoch != self.block_epoch) return true;
  return other_warp == self.number / kWarp && warp_epoch != self.warp_epoch;
}

void check_shared(const void* p, size_t bytes, bool write, const void* code, Site site) {
  const size_t offset = static_cast<size_t>(static_cast<const char*>(p) - shared_memory());
  bool inside = offset + bytes <= block.dynamic_bytes;
  auto next = block.arrays.upper_bound(offset);
  if (!inside && next != block.arrays.begin()) inside = offset + bytes <= std::prev(next)->first + std::prev(next)->second.bytes;
  if (!inside) broken_at(std::string(write ? "writes" : "reads") + " beyond a shared array", code, site);
  if (!kEveryAccess) return;
  const Fiber& self = *block.running;
  const auto number = static_cast<uint16_t>(self.number + 1);
  const auto warp = static_cast<int16_t>(self.number / kWarp);
  for (size_t i = offset; i < offset + bytes; ++i) {
    Byte& b = g_bytes[i];
    if (b.generation != block.generation) {
      b = Byte{};
      b.generation = block.generation;
    }
    if (b.in_flight) broken_at(std::string(write ? "writes" : "reads") + " shared memory to which an asynchronous copy is under way", code, site);
    if (!write && !b.writer) broken_at("reads shared memory that no thread has written", code, site);
    const bool race = (b.writer && !apart(self, b.writer, (b.writer - 1) / kWarp, b.written_block, b.written_warp)) ||
                      (write && b.reader && !apart(self, b.reader, b.reader_warp, b.read_block, b.read_warp));
    if (race && !block.has_mbarrier)  // the waits at an mbarrier order threads in ways that are not followed here
      broken_at(std::string(write ? "writes" : "reads") + " shared memory that another thread uses, without a wait of both between", code,
                site);
    if (write) {
      b.writer = number;
      b.written_block = self.block_epoch;
      b.written_warp = self.warp_epoch;
      b.reader = 0;
    } else {
      const bool alone = !b.reader || b.reader == number || b.read_block != self.block_epoch;
      b.reader_warp = alone || b.reader_warp == warp ? warp : static_cast<int16_t>(kMany);
      b.reader = alone ? number : static_cast<uint16_t>(kMaxThreads + 1);
      b.read_block = self.block_epoch;
      b.read_warp = self.warp_epoch;
    }
  }
}

void check(const void* p, size_t bytes, bool write, const void* code, Site site) {
  if (!t_in_kernel || within(p, bytes, block.running->stack, kStack)) return;
  if (within(p, bytes, shared_memory(), kMaxShared)) return check_shared(p, bytes, write, code, site);
  switch (find_in_device(p, bytes)) {
    case Where::inside: return;
    case Where::outside:
      broken_at(std::string(write ? "writes " : "reads ") + std::to_string(bytes) + " bytes out of bounds, " + describe_in_device(p), code,
                site);
    case Where::elsewhere: break;
  }
  if (!write && (within(p, bytes, block.argument, block.argument_bytes) || within(p, bytes, __ehdr_start, static_cast<size_t>(_end - __ehdr_start)) ||
                 within(p, bytes, block.fibers.data(), block.fibers.size() * sizeof(Fiber))))
    return;
  broken_at(std::string(write ? "writes to" : "reads from") + " an address that is not in the device's memory", code, site);
}

}  // namespace

void forget_accesses() { ++block.generation; }

void take_off(void* p, size_t bytes) {
  const auto offset = static_cast<char*>(p) - shared_memory();
  for (size_t i = 0; i < bytes; ++i) g_bytes[static_cast<size_t>(offset) + i].in_flight = true;
}
// For others it is written now, not when the copy began.
void land(void* p, size_t bytes, const Fiber* by) {
  const auto offset = static_cast<char*>(p) - shared_memory();
  for (size_t i = 0; i < bytes; ++i) {
    Byte& b = g_bytes[static_cast<size_t>(offset) + i];
    b.in_flight = false;
    if (!by) continue;
    b.written_block = by->block_epoch;
    b.written_warp = by->warp_epoch;
  }
}

void check_read(const void* p, size_t bytes, size_t alignment, Site site) {
  if (reinterpret_cast<uintptr_t>(p) % alignment) broken("a wide access is misaligned", site);
  check(p, bytes, false, nullptr, site);
}
void check_write(void* p, size_t bytes, size_t alignment, Site site) {
  if (reinterpret_cast<uintptr_t>(p) % alignment) broken("a wide access is misaligned", site);
  check(p, bytes, true, nullptr, site);
}

}  // namespace smelt::emu

#ifndef __SANITIZE_ADDRESS__  // whose own calls are in their place
#define SMELT_ACCESS(name, type, bytes, write)                                                                       \
  extern "C" __attribute__((visibility("hidden"))) void __tsan_##name(type* p) {                                     \
    if (smelt::emu::t_in_kernel && !__builtin_strstr(#name, "unaligned") && reinterpret_cast<uintptr_t>(p) % bytes)              \
      smelt::emu::broken("an access is misaligned", smelt::emu::Site());                                             \
    smelt::emu::check(p, bytes, write, __builtin_return_address(0), smelt::emu::Site());                             \
  }
SMELT_ACCESS(read1, const void, 1, false)
SMELT_ACCESS(read2, const void, 2, false)
SMELT_ACCESS(read4, const void, 4, false)
SMELT_ACCESS(read8, const void, 8, false)
SMELT_ACCESS(read16, const void, 16, false)
SMELT_ACCESS(unaligned_read2, const void, 2, false)
SMELT_ACCESS(unaligned_read4, const void, 4, false)
SMELT_ACCESS(unaligned_read8, const void, 8, false)
SMELT_ACCESS(unaligned_read16, const void, 16, false)
SMELT_ACCESS(write1, void, 1, true)
SMELT_ACCESS(write2, void, 2, true)
SMELT_ACCESS(write4, void, 4, true)
SMELT_ACCESS(write8, void, 8, true)
SMELT_ACCESS(write16, void, 16, true)
SMELT_ACCESS(unaligned_write2, void, 2, true)
SMELT_ACCESS(unaligned_write4, void, 4, true)
SMELT_ACCESS(unaligned_write8, void, 8, true)
SMELT_ACCESS(unaligned_write16, void, 16, true)

extern "C" {
__attribute__((visibility("hidden"))) void __tsan_read_range(const void* p, size_t bytes) {
  smelt::emu::check(p, bytes, false, __builtin_return_address(0), smelt::emu::Site());
}
__attribute__((visibility("hidden"))) void __tsan_write_range(void* p, size_t bytes) {
  smelt::emu::check(p, bytes, true, __builtin_return_address(0), smelt::emu::Site());
}
__attribute__((visibility("hidden"))) void __tsan_init() {}
__attribute__((visibility("hidden"))) void __tsan_func_entry(void*) {}
__attribute__((visibility("hidden"))) void __tsan_func_exit() {}
__attribute__((visibility("hidden"))) void __tsan_vptr_update(void**, void*) {}
__attribute__((visibility("hidden"))) void __tsan_vptr_read(void**) {}
}
#endif
