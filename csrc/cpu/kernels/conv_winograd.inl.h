// Winograd's minimal filtering (Lavin & Gray, 2016) for 3x3 kernels of stride 1: pictures are cut into tiles whose sides have A =
// M + 2 pixels, tiles and filters are transformed, and the convolution becomes A^2 matrix products, one for each place xi in a
// tile. F(4x4) does a quarter of the multiplications, at the points 0, +-1/sqrt(2), +-sqrt(2), which round half as much as the
// usual 0, +-1, +-2; F(2x2) at 0, +-1 does 4/9 and rounds like the plain sum.
//
// A transform of a square is the same linear map along both axes. Vectors run along the channels.
#pragma once
#include "cpu/kernels/conv_formats.inl.h"
#include "cpu/kernels/gemm_core.inl.h"

namespace smelt {
namespace {

// Terms that are summed up in one chain. The plain kernel's are longer, which leaves its lead to the transforms' rounding.
constexpr int64_t kChain = kBlockK >= 384 ? 64 : 32;

constexpr float kRoot = 1.41421356237309505f;  // of 2

template <int M>
struct Winograd;

template <>
struct Winograd<4> {
  static constexpr int kM = 4, kA = 6, kPlaces = 36;
  using V = VecF;
  // Pixels of a tile.
  SMELT_INLINE static void input(const V (&d)[6], V (&r)[6]) {
    const V k = V::set(-2.5f), two = V::set(-2.0f), half = V::set(-0.5f);
    const V e1 = fma(two, d[2], d[4]), o1 = V::set(kRoot / 2) * fma(two, d[1], d[3]);
    const V e2 = fma(half, d[2], d[4]), o2 = V::set(kRoot) * fma(half, d[1], d[3]);
    r[0] = fma(k, d[2], d[0] + d[4]);
    r[1] = e1 + o1;
    r[2] = e1 - o1;
    r[3] = e2 + o2;
    r[4] = e2 - o2;
    r[5] = fma(k, d[3], d[1] + d[5]);
  }
  // A filter; in the weight gradient a tile of dy stands in its place, and the result are 3 taps.
  SMELT_INLINE static void filter(const V (&g)[3], V (&r)[6]) {
    const V third = V::set(-2.0f / 3), sixth = V::set(1.0f / 6);
    const V e1 = third * fma(V::set(0.5f), g[2], g[0]), o1 = V::set(-kRoot / 3) * g[1];
    const V e2 = sixth * fma(V::set(2.0f), g[2], g[0]), o2 = V::set(kRoot / 6) * g[1];
    r[0] = g[0];
    r[1] = e1 + o1;
    r[2] = e1 - o1;
    r[3] = e2 + o2;
    r[4] = e2 - o2;
    r[5] = g[2];
  }
  SMELT_INLINE static void gradient(const V (&g)[4], V (&r)[6]) {
    const V third = V::set(-2.0f / 3), sixth = V::set(1.0f / 6), half = V::set(0.5f), two = V::set(2.0f);
    const V e1 = third * fma(half, g[2], g[0]), o1 = V::set(-kRoot / 3) * fma(half, g[3], g[1]);
    const V e2 = sixth * fma(two, g[2], g[0]), o2 = V::set(kRoot / 6) * fma(two, g[3], g[1]);
    r[0] = g[0];
    r[1] = e1 + o1;
    r[2] = e1 - o1;
    r[3] = e2 + o2;
    r[4] = e2 - o2;
    r[5] = g[3];
  }
  // Back to pixels of the result.
  SMELT_INLINE static void output(const V (&m)[6], V (&y)[4]) {
    const V s1 = m[1] + m[2], d1 = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4];
    y[0] = m[0] + (s1 + s2);
    y[1] = V::set(kRoot) * fma(V::set(0.5f), d1, d2);
    y[2] = fma(V::set(2.0f), s2, V::set(0.5f) * s1);
    y[3] = fma(V::set(2 * kRoot), d2, fma(V::set(kRoot / 4), d1, m[5]));
  }
  SMELT_INLINE static void taps(const V (&m)[6], V (&y)[3]) {
    const V s1 = m[1] + m[2], d1 = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4];
    y[0] = m[0] + (s1 + s2);
    y[1] = V::set(kRoot) * fma(V::set(0.5f), d1, d2);
    y[2] = fma(V::set(2.0f), s2, fma(V::set(0.5f), s1, m[5]));
  }
};

template <>
struct Winograd<2> {
  static constexpr int kM = 2, kA = 4, kPlaces = 16;
  using V = VecF;
  SMELT_INLINE static void input(const V (&d)[4], V (&r)[4]) {
    r[0] = d[0] - d[2];
    r[1] = d[1] + d[2];
    r[2] = d[2] - d[1];
    r[3] = d[3] - d[1];
  }
  SMELT_INLINE static void filter(const V (&g)[3], V (&r)[4]) {
    const V half = V::set(0.5f), e = half * (g[0] + g[2]), o = half * g[1];
    r[0] = g[0];
    r[1] = e + o;
    r[2] = e - o;
    r[3] = g[2];
  }
  SMELT_INLINE static void output(const V (&m)[4], V (&y)[2]) {
    y[0] = m[0] + (m[1] + m[2]);
    y[1] = (m[1] - m[2]) + m[3];
  }
};

// A square of N x N vectors from get(i, j), transformed along both axes to R x R for put(i, j, v).
template <int N, int R, class Map, class Get, class Put>
SMELT_INLINE void transform(const Map& map, const Get& get, const Put& put) {
  VecF half[R][N];
#pragma GCC unroll 6
  for (int j = 0; j < N; ++j) {
    VecF in[N], out[R];
#pragma GCC unroll 6
    for (int i = 0; i < N; ++i) in[i] = get(i, j);
    map(in, out);
#pragma GCC unroll 6
    for (int i = 0; i < R; ++i) half[i][j] = out[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < R; ++i) {
    VecF out[R];
    map(half[i], out);
#pragma GCC unroll 6
    for (int j = 0; j < R; ++j) put(i, j, out[j]);
  }
}

// The tiles of a result (n, rows, columns), and the pixels of a picture that each needs, from (-pad, -pad) on.
struct Tiles {
  int64_t n, rows, columns;      // of the result
  int64_t down, across, count;   // tiles
  Tiles(int m, int64_t pictures, int64_t p, int64_t q)
      : n(pictures), rows(p), columns(q), down(ceil_div(p, m)), across(ceil_div(q, m)), count(n * down * across) {}
};
struct TileAt {
  int64_t n, i, j;
  TileAt(const Tiles& t, int64_t tile) : n(tile / (t.down * t.across)), i(tile / t.across % t.down), j(tile % t.across) {}
};

// Where the pixels of a square lie in a picture (h, w, channels); those outside are zeros.
template <int N, class S>
struct Square {
  const S* at[N][N];
  Square(const S* picture, int64_t h, int64_t w, int64_t channels, int64_t y, int64_t x, const S* zeros) {
    for (int i = 0; i < N; ++i)
      for (int j = 0; j < N; ++j)
        at[i][j] = y + i >= 0 && y + i < h && x + j >= 0 && x + j < w ? picture + ((y + i) * w + x + j) * channels : zeros;
  }
};

// Elements from one place's matrix to the next: an odd number of cache lines, so that the places of a tile do not fall into
// one set of the cache.
inline int64_t place_pitch(int64_t elements) { return (round_up(elements, 16) / 16 | 1) * 16; }

// Below so many channels the transforms cost more than the products save; products of pairs cost less.
constexpr int64_t kLeastChannels = kIsa == Isa::avx512bf16 ? 48 : 24;

// Multiplications of each output that the products of F(MxM) cost, times all.
inline int64_t winograd_cost(int m, int64_t p, int64_t q) { return ceil_div(p, m) * ceil_div(q, m) * (m + 2) * (m + 2); }
inline bool winograd_fits(const ConvShape& s) {
  return s.r == 3 && s.s == 3 && s.groups == 1 && s.stride[0] == 1 && s.stride[1] == 1 && s.dilation[0] == 1 && s.dilation[1] == 1;
}

}  // namespace
}  // namespace smelt
