// The tile registers of AMX. A tile has 16 rows of 64 bytes. Register numbers are constants of the instructions.
#pragma once
#include <cstdint>
#include <cstring>

#ifdef SMELT_EMULATE_ISA
#include <cstdlib>
#endif

namespace smelt {
namespace {

struct alignas(64) TileConfig {  // LDTILECFG's operand, palette 1
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

#ifdef SMELT_EMULATE_ISA

struct EmulatedTiles {
  bool configured;
  uint8_t bytes[8][16][64];
};
constinit thread_local EmulatedTiles t_tiles{};
inline uint8_t* emulated_tile(int tile) {
  if (!t_tiles.configured) std::abort();  // where the CPU raises an invalid opcode
  return &t_tiles.bytes[tile][0][0];
}

inline void tile_configure(const TileConfig&) { t_tiles.configured = true; }
inline void tile_release() { t_tiles.configured = false; }
template <int tile>
inline void tile_zero() {
  std::memset(emulated_tile(tile), 0, 1024);
}
template <int tile>
inline void tile_load(const void* p, int64_t pitch) {
  for (int i = 0; i < 16; ++i) std::memcpy(emulated_tile(tile) + 64 * i, static_cast<const char*>(p) + i * pitch, 64);
}
template <int tile>
inline void tile_load_stream(const void* p, int64_t pitch) {
  tile_load<tile>(p, pitch);
}
template <int tile>
inline void tile_store(void* p, int64_t pitch) {
  for (int i = 0; i < 16; ++i) std::memcpy(static_cast<char*>(p) + i * pitch, emulated_tile(tile) + 64 * i, 64);
}
// In the order of the instruction: sums of the lower and of the upper halves over the depth, then both to c.
template <int c, int a, int b>
inline void tile_multiply_add() {
  float sums[16][16], low[16], high[16];
  uint32_t rows[16][16], columns[16][16];
  std::memcpy(sums, emulated_tile(c), 1024);
  std::memcpy(rows, emulated_tile(a), 1024);
  std::memcpy(columns, emulated_tile(b), 1024);
  const auto real = [](uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
  };
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 16; ++j) low[j] = high[j] = 0;
    for (int p = 0; p < 16; ++p)
      for (int j = 0; j < 16; ++j) {
        low[j] += real(rows[i][p] << 16) * real(columns[p][j] << 16);
        high[j] += real(rows[i][p] & 0xffff0000u) * real(columns[p][j] & 0xffff0000u);
      }
    for (int j = 0; j < 16; ++j) sums[i][j] += low[j] + high[j];
  }
  std::memcpy(emulated_tile(c), sums, 1024);
}

#else

inline void tile_configure(const TileConfig& config) { __asm__ volatile("ldtilecfg %0" ::"m"(config)); }
inline void tile_release() { __asm__ volatile("tilerelease" ::: "memory"); }
template <int tile>
inline void tile_zero() {
  __asm__ volatile("tilezero %%tmm%c0" ::"i"(tile));
}
template <int tile>
inline void tile_load(const void* p, int64_t pitch) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(pitch), "i"(tile) : "memory");
}
template <int tile>
inline void tile_load_stream(const void* p, int64_t pitch) {  // says that it will not be needed again soon
  __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(pitch), "i"(tile) : "memory");
}
template <int tile>
inline void tile_store(void* p, int64_t pitch) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(pitch), "i"(tile) : "memory");
}
template <int c, int a, int b>
inline void tile_multiply_add() {
  __asm__ volatile("tdpbf16ps %%tmm%c0, %%tmm%c1, %%tmm%c2" ::"i"(b), "i"(a), "i"(c));
}

#endif

// Tile registers are configured as long as this lives. Not once per thread: another library may release them in between.
struct TileScope {
  TileScope() {
    static constexpr TileConfig config;
    tile_configure(config);
  }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
  ~TileScope() { tile_release(); }
};

}  // namespace
}  // namespace smelt
