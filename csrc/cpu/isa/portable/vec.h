// Vectors of any CPU: 16 bytes through the compiler's vector types (SSE2 or NEON where there is one).
#pragma once
#include <cmath>

#include "cpu/isa/portable/stream.inl.h"
#include "cpu/isa/portable/transpose.inl.h"

namespace smelt {
namespace {

struct VecF {
  static constexpr int W = 4;
  using T = float;
  typedef float R __attribute__((vector_size(16)));
  typedef int I __attribute__((vector_size(16)));
  struct Mask {
    I m;
    friend Mask operator&(Mask a, Mask b) { return {a.m & b.m}; }
    friend Mask operator|(Mask a, Mask b) { return {a.m | b.m}; }
    friend Mask operator!(Mask a) { return {~a.m}; }
    // Bit i for lane i.
    unsigned bits() const {
      return (m[0] != 0) | (m[1] != 0) << 1 | (m[2] != 0) << 2 | (m[3] != 0) << 3;
    }
  };
  R v;

  static VecF set(float x) { return {R{x, x, x, x}}; }
  static VecF zero() { return set(0); }
  static VecF load(const float* p) {
    VecF r;
    __builtin_memcpy(&r.v, p, 16);
    return r;
  }
  static VecF load(const float* p, int n) {  // lanes from n on are 0
    VecF r = zero();
    for (int i = 0; i < n; ++i) r.v[i] = p[i];
    return r;
  }
  void store(float* p) const { __builtin_memcpy(p, &v, 16); }
  void store(float* p, int n) const {
    for (int i = 0; i < n; ++i) p[i] = v[i];
  }
  static VecF load(const bfloat16* p, int n = W) {
    VecF r = zero();
    for (int i = 0; i < n; ++i) r.v[i] = to_float(p[i]);
    return r;
  }
  static VecF load(const float16* p, int n = W) {
    VecF r = zero();
    for (int i = 0; i < n; ++i) r.v[i] = to_float(p[i]);
    return r;
  }
  void store(bfloat16* p, int n = W) const {
    for (int i = 0; i < n; ++i) p[i] = to_bfloat16(v[i]);
  }
  void store(float16* p, int n = W) const {
    for (int i = 0; i < n; ++i) p[i] = to_float16(v[i]);
  }
  // Past the caches where an instruction set has such stores, to a multiple of the vector's size.
  template <class S>
  void stream(S* p) const {
    store(p);
  }

  // Numbers from 0 to 255 in a byte each.
  static VecF load_bytes(const uint8_t* p, int n = W) {
    VecF r = zero();
    for (int i = 0; i < n; ++i) r.v[i] = p[i];
    return r;
  }
  void store_bytes(uint8_t* p, int n = W) const {
    for (int i = 0; i < n; ++i) p[i] = static_cast<uint8_t>(v[i]);
  }

  friend VecF operator+(VecF a, VecF b) { return {a.v + b.v}; }
  friend VecF operator-(VecF a, VecF b) { return {a.v - b.v}; }
  friend VecF operator*(VecF a, VecF b) { return {a.v * b.v}; }
  friend VecF operator/(VecF a, VecF b) { return {a.v / b.v}; }
  friend VecF operator-(VecF a) { return {-a.v}; }
  friend Mask operator<(VecF a, VecF b) { return {a.v < b.v}; }
  friend Mask operator<=(VecF a, VecF b) { return {a.v <= b.v}; }
  friend Mask operator==(VecF a, VecF b) { return {a.v == b.v}; }
};

inline VecF fma(VecF a, VecF b, VecF c) { return {a.v * b.v + c.v}; }  // two roundings: no CPU at hand has to have it
inline VecF select(VecF::Mask m, VecF a, VecF b) {
  return {(VecF::R)((m.m & (VecF::I)a.v) | (~m.m & (VecF::I)b.v))};
}
inline VecF abs(VecF a) { return {(VecF::R)((VecF::I)a.v & 0x7fffffff)}; }
inline VecF sqrt(VecF a) {
  return {VecF::R{std::sqrt(a.v[0]), std::sqrt(a.v[1]), std::sqrt(a.v[2]), std::sqrt(a.v[3])}};
}
inline VecF floor(VecF a) {
  return {VecF::R{std::floor(a.v[0]), std::floor(a.v[1]), std::floor(a.v[2]), std::floor(a.v[3])}};
}
inline VecF trunc(VecF a) {
  return {VecF::R{std::trunc(a.v[0]), std::trunc(a.v[1]), std::trunc(a.v[2]), std::trunc(a.v[3])}};
}
inline VecF round(VecF a) {  // to nearest, ties to even
  return {VecF::R{std::nearbyint(a.v[0]), std::nearbyint(a.v[1]), std::nearbyint(a.v[2]), std::nearbyint(a.v[3])}};
}
// b where a is not greater (also for a NaN in a or b): the operand order of x86.
inline VecF max(VecF a, VecF b) { return select(b < a, a, b); }
inline VecF min(VecF a, VecF b) { return select(a < b, a, b); }
// 2^n for whole n in [-126, 127].
inline VecF exp2_whole(VecF n) {
  const VecF::I i = {(int)n.v[0], (int)n.v[1], (int)n.v[2], (int)n.v[3]};
  return {(VecF::R)((i + 127) << 23)};
}
// p 2^n for such n.
inline VecF times_exp2(VecF p, VecF n) { return p * exp2_whole(n); }
// x = m 2^e with m in [1, 2); finite, normal, positive x only.
inline void split_exponent(VecF x, VecF* m, VecF* e) {
  const VecF::I bits = (VecF::I)x.v, power = ((bits >> 23) & 0xff) - 127;
  e->v = VecF::R{(float)power[0], (float)power[1], (float)power[2], (float)power[3]};
  m->v = (VecF::R)((bits & 0x7fffff) | 0x3f800000);
}
inline float sum(VecF a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
inline float max_lane(VecF a) { return std::fmax(std::fmax(a.v[0], a.v[2]), std::fmax(a.v[1], a.v[3])); }

}  // namespace
}  // namespace smelt
