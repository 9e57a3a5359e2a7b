// cuda/words.cuh for the emulator: the same words, made of emu.h. Layouts are those of the PTX ISA; tests compare them with
// bytes that a GPU gave.
#pragma once
#include <bit>
#include <cstring>

#include "core/float16.h"
#include "cuda_emu/emu.h"

#define SMELT_WORD inline
#define SMELT_SHARED(T, name, count) \
  T* const name = reinterpret_cast<T*>(::smelt::emu::shared_array(sizeof(T) * (count), alignof(T), ::smelt::emu::Site::current()))

namespace smelt::cuda {

using emu::Site;
constexpr unsigned kAllLanes = 0xffffffffu;

struct alignas(16) Bytes16 {
  uint32_t word[4];
};

inline int lane() { return emu::lane(); }

// ----------------------------------------------------------------------------------------------- threads of a block

inline void sync_threads(Site site = Site::current()) { emu::sync_threads(site); }
inline void sync_warp(unsigned mask = kAllLanes, Site site = Site::current()) {
  emu::meet(mask, "sync_warp", nullptr, nullptr, site);
}

// What a lane gives to a shuffle, and where it finds the answer.
template <class T>
struct Shuffled {
  T value, result;
  int from;
};
template <class T>
T shuffled(T v, int from, const char* word, unsigned mask, Site site) {
  Shuffled<T> mine{v, v, from};
  emu::meet(
      mask, word, &mine,
      [](void* const* given, unsigned lanes) {
        for (int i = 0; i < 32; ++i) {
          if (!(lanes >> i & 1)) continue;
          auto* one = static_cast<Shuffled<T>*>(given[i]);
          // A lane that takes no part has no value to give.
          if (!given[one->from]) emu::broken("a shuffle reads from a lane that is not in its mask", Site::current());
          one->result = static_cast<Shuffled<T>*>(given[one->from])->value;
        }
      },
      site);
  return mine.result;
}
template <class T>
T shuffle(T v, int from, unsigned mask = kAllLanes, Site site = Site::current()) {
  return shuffled(v, from & 31, "shuffle", mask, site);
}
template <class T>
T shuffle_xor(T v, int distance, unsigned mask = kAllLanes, Site site = Site::current()) {
  return shuffled(v, (lane() ^ distance) & 31, "shuffle_xor", mask, site);
}
template <class T>
T shuffle_up(T v, int distance, unsigned mask = kAllLanes, Site site = Site::current()) {
  return shuffled(v, lane() >= distance ? lane() - distance : lane(), "shuffle_up", mask, site);
}
inline int count_bits(unsigned bits) { return std::popcount(bits); }
inline unsigned ballot(bool on, unsigned mask = kAllLanes, Site site = Site::current()) {
  struct Vote {
    bool on;
    unsigned all;
  } mine{on, 0};
  emu::meet(
      mask, "ballot", &mine,
      [](void* const* given, unsigned lanes) {
        unsigned all = 0;
        for (int i = 0; i < 32; ++i)
          if (lanes >> i & 1 && static_cast<Vote*>(given[i])->on) all |= 1u << i;
        for (int i = 0; i < 32; ++i)
          if (lanes >> i & 1) static_cast<Vote*>(given[i])->all = all;
      },
      site);
  return mine.all;
}

template <class T>
T* dynamic_shared() {
  return reinterpret_cast<T*>(emu::dynamic_shared());
}

// -------------------------------------------------------------------------------------------------------- accesses

inline Bytes16 load16(const void* p, Site site = Site::current()) {
  emu::check_read(p, 16, 16, site);
  Bytes16 b;
  __builtin_memcpy(&b, p, 16);
  return b;
}
inline void fence_system() {}
inline void store16(void* p, Bytes16 b, Site site = Site::current()) {
  emu::check_write(p, 16, 16, site);
  __builtin_memcpy(p, &b, 16);
}
inline void cp_async16(void* to_shared, const void* from, int bytes = 16, Site site = Site::current()) {
  emu::cp_async(to_shared, from, bytes, 16, site);
}
inline void cp_async4(void* to_shared, const void* from, int bytes = 4, Site site = Site::current()) {
  emu::cp_async(to_shared, from, bytes, 4, site);
}
inline void cp_async_commit() { emu::cp_async_commit(); }
template <int kInFlight>
void cp_async_wait() {
  emu::cp_async_wait(kInFlight);
}

inline int atomic_add(int* p, int v, Site site = Site::current()) {
  emu::check_write(p, 4, 4, site);
  const int old = *p;
  *p = old + v;
  return old;
}
inline unsigned long long atomic_min(unsigned long long* p, unsigned long long v, Site site = Site::current()) {
  emu::check_write(p, 8, 8, site);
  const unsigned long long old = *p;
  if (v < old) *p = v;
  return old;
}

// ------------------------------------------------------------------------------------------------- matrix products

struct MatrixLoad {
  const void* row;
  uint32_t* r;
};
template <bool transposed>
void load_matrices(uint32_t (&r)[4], const void* row, Site site) {
  emu::check_read(row, 16, 16, site);
  MatrixLoad mine{row, r};
  emu::meet(
      kAllLanes, "ldmatrix", &mine,
      [](void* const* given, unsigned) {
        for (int matrix = 0; matrix < 4; ++matrix)
          for (int i = 0; i < 32; ++i) {
            uint16_t pair[2];
            for (int e = 0; e < 2; ++e) {
              const int line = transposed ? i % 4 * 2 + e : i / 4, column = transposed ? i / 4 : i % 4 * 2 + e;
              const void* from = static_cast<MatrixLoad*>(given[matrix * 8 + line])->row;
              std::memcpy(&pair[e], static_cast<const char*>(from) + 2 * column, 2);
            }
            static_cast<MatrixLoad*>(given[i])->r[matrix] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
          }
      },
      site);
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, Site site = Site::current()) { load_matrices<false>(r, row, site); }
inline void ldmatrix_x4_transposed(uint32_t (&r)[4], const void* row, Site site = Site::current()) {
  load_matrices<true>(r, row, site);
}

struct MatrixProduct {
  float* d;
  const uint32_t *a, *b;
};
template <class Half>
float half_at(const uint32_t* registers, int number, int which) {
  return to_float(Half{static_cast<uint16_t>(registers[number] >> (16 * which))});
}
// The tensor cores add the products of a step in no stated order and precision; float32 stands for it here.
template <class Half>
void half_product(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site) {
  MatrixProduct mine{d, a, b};
  emu::meet(
      kAllLanes, "mma", &mine,
      [](void* const* given, unsigned) {
        float left[16][16], right[16][8];
        for (int i = 0; i < 32; ++i) {
          const auto* one = static_cast<MatrixProduct*>(given[i]);
          for (int r = 0; r < 4; ++r)
            for (int e = 0; e < 2; ++e) left[i / 4 + r % 2 * 8][i % 4 * 2 + e + r / 2 * 8] = half_at<Half>(one->a, r, e);
          for (int r = 0; r < 2; ++r)
            for (int e = 0; e < 2; ++e) right[i % 4 * 2 + e + r * 8][i / 4] = half_at<Half>(one->b, r, e);
        }
        for (int i = 0; i < 32; ++i)
          for (int e = 0; e < 4; ++e) {
            float sum = 0;
            for (int k = 0; k < 16; ++k) sum += left[i / 4 + e / 2 * 8][k] * right[k][i % 4 * 2 + e % 2];
            static_cast<MatrixProduct*>(given[i])->d[e] += sum;
          }
      },
      site);
}
inline void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], bfloat16, Site site = Site::current()) {
  half_product<bfloat16>(d, a, b, site);
}
inline void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], float16, Site site = Site::current()) {
  half_product<float16>(d, a, b, site);
}
inline void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], float, Site site = Site::current()) {
  MatrixProduct mine{d, a, b};
  emu::meet(
      kAllLanes, "mma", &mine,
      [](void* const* given, unsigned) {
        float left[16][8], right[8][8];
        const auto value = [](uint32_t bits) { return std::bit_cast<float>(bits & 0xffffe000u); };
        for (int i = 0; i < 32; ++i) {
          const auto* one = static_cast<MatrixProduct*>(given[i]);
          for (int r = 0; r < 4; ++r) left[i / 4 + r % 2 * 8][i % 4 + r / 2 * 4] = value(one->a[r]);
          for (int r = 0; r < 2; ++r) right[i % 4 + r * 4][i / 4] = value(one->b[r]);
        }
        for (int i = 0; i < 32; ++i)
          for (int e = 0; e < 4; ++e) {
            float sum = 0;
            for (int k = 0; k < 8; ++k) sum += left[i / 4 + e / 2 * 8][k] * right[k][i % 4 * 2 + e % 2];
            static_cast<MatrixProduct*>(given[i])->d[e] += sum;
          }
      },
      site);
}
// To nearest, ties away from zero, 10 bits of mantissa.
inline uint32_t to_tf32(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  if ((u & 0x7f800000u) == 0x7f800000u) return u & 0x007fffffu ? 0x7fffffffu : u;  // NaN, infinity
  return (u + 0x1000u) & 0xffffe000u;
}

// --------------------------------------------------------------------------------------- barriers in shared memory (sm_90)

inline void mbarrier_init(uint64_t* barrier, int count, Site site = Site::current()) { emu::mbarrier_init(barrier, count, site); }
inline void mbarrier_arrive(uint64_t* barrier, Site site = Site::current()) { emu::mbarrier_arrive(barrier, 0, site); }
inline void mbarrier_arrive_expect(uint64_t* barrier, int bytes, Site site = Site::current()) {
  emu::mbarrier_arrive(barrier, bytes, site);
}
inline void mbarrier_wait(uint64_t* barrier, int parity, Site site = Site::current()) { emu::mbarrier_wait(barrier, parity, site); }
inline void bulk_copy(void* to_shared, const void* from, int bytes, uint64_t* barrier, Site site = Site::current()) {
  emu::bulk_copy(to_shared, from, bytes, barrier, site);
}

}  // namespace smelt::cuda
