#include "cpu/cpu_info.h"

#include <cerrno>
#include <cstring>
#include <fstream>

#ifdef SMELT_X86
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace smelt::cpu {
namespace {

struct Features {
  bool avx2 = false, fma = false, f16c = false, bmi2 = false;
  bool avx512f = false, avx512bw = false, avx512vl = false, avx512dq = false;
  bool avx512_bf16 = false, amx_tile = false, amx_bf16 = false;
  bool os_avx = false, os_avx512 = false, os_amx = false;  // the system saves these registers
  int amx_refusal = 0;                                     // errno of the system when asked for the tile registers
};

#ifdef SMELT_X86
// Linux gives a process the tile registers when it asks, for all threads that begin later; 0, or an errno.
[[maybe_unused]] int ask_for_tiles() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0 ? 0 : errno;
}

Features detect() {
  Features f;
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return f;
  f.fma = c >> 12 & 1;
  f.f16c = c >> 29 & 1;
  if (c >> 27 & 1) {  // OSXSAVE: XCR0 can be read
    unsigned low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    f.os_avx = (low & 0x6) == 0x6;
    f.os_avx512 = (low & 0xe6) == 0xe6;
    f.os_amx = (low & 0x60000) == 0x60000;
  }
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return f;
  f.avx2 = b >> 5 & 1;
  f.bmi2 = b >> 8 & 1;
  f.avx512f = b >> 16 & 1;
  f.avx512dq = b >> 17 & 1;
  f.avx512bw = b >> 30 & 1;
  f.avx512vl = b >> 31 & 1;
  f.amx_bf16 = d >> 22 & 1;
  f.amx_tile = d >> 24 & 1;
  if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) f.avx512_bf16 = a >> 5 & 1;
#ifdef SMELT_EMULATE_ISA
  f.os_avx512 = f.avx512f = f.avx512bw = f.avx512vl = f.avx512dq = f.os_avx;
  f.avx512_bf16 = f.amx_tile = f.amx_bf16 = f.os_amx = f.os_avx;
#else
  if (f.os_amx && f.amx_tile) f.amx_refusal = ask_for_tiles();
#endif
  return f;
}
#else
Features detect() { return {}; }
#endif

const Features& info() {
  static const Features f = detect();
  return f;
}

}  // namespace

Isa detected_isa() {
  const Features& f = info();
  const bool avx2 = f.os_avx && f.avx2 && f.fma && f.f16c && f.bmi2;
  const bool avx512 = avx2 && f.os_avx512 && f.avx512f && f.avx512bw && f.avx512vl && f.avx512dq;
  const bool avx512_bf16 = avx512 && f.avx512_bf16;
  const bool amx = avx512_bf16 && f.amx_tile && f.amx_bf16 && f.os_amx && f.amx_refusal == 0;
  return amx           ? Isa::amx
         : avx512_bf16 ? Isa::avx512bf16
         : avx512      ? Isa::avx512
         : avx2        ? Isa::avx2
                       : Isa::portable;
}

std::string model_name() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown CPU";
}

std::string features() {
  const Features& f = info();
  std::string out;
  const auto add = [&](bool has, const char* name) {
    if (has) out.append(out.empty() ? "" : " ").append(name);
  };
  add(f.avx2 && f.os_avx, "avx2");
  add(f.fma && f.os_avx, "fma");
  add(f.f16c && f.os_avx, "f16c");
  add(f.avx512f && f.os_avx512, "avx512f");
  add(f.avx512bw && f.os_avx512, "avx512bw");
  add(f.avx512vl && f.os_avx512, "avx512vl");
  add(f.avx512dq && f.os_avx512, "avx512dq");
  add(f.avx512_bf16 && f.os_avx512, "avx512_bf16");
  add(f.amx_tile && f.os_amx, "amx_tile");
  add(f.amx_bf16 && f.os_amx, "amx_bf16");
#ifdef SMELT_EMULATE_ISA
  out += " (emulated beyond AVX2)";
#endif
  return out.empty() ? "none" : out;
}

std::string isa_note() {
  const Features& f = info();
  if (!f.amx_tile || !f.amx_bf16) return "";
  if (!f.os_amx) return "the CPU has AMX, but the operating system does not save its registers";
  if (f.amx_refusal)
    return std::string("the CPU has AMX, but the operating system refused its use: ") + std::strerror(f.amx_refusal);
  return "";
}

}  // namespace smelt::cpu
