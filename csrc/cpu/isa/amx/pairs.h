// Sums of products of pairs of bfloat16, a tile of 16 x 16 at a time: AMX.
#pragma once
#include "cpu/kernels/gemm_tile.inl.h"
#include "tiles.h"

namespace smelt {
namespace {

// 32 x 32 sums in four tile registers. An element is a pair of bfloat16, neighbours in the depth. A lies as (k / 16, 32, 16)
// pairs, one tile after the other; B as (k, 32), so that two tiles stand side by side.
struct PairTile {
  using Vector = VecF;
  static constexpr int kMr = 32, kNr = 32, kDepthStep = 16;
  static constexpr int64_t kPanel = kMr * kBlockK;
  static constexpr LayoutA kLayout = LayoutA::tiles, kLayoutTransposed = LayoutA::tiles;
  static constexpr bool kNarrows = true;
  using Scope = TileScope;

  template <LayoutA layout, class C>
  static void run(int64_t k, const float* a, const float* b, C* const* c_rows, int rows, int columns,
                  const Epilogue<float>& e) {
    static_assert(layout == LayoutA::tiles);
    alignas(64) float sums[kMr][kNr];
    if (rows <= 16)
      columns <= 16 ? sum_up<1, 1>(k, a, b, sums) : sum_up<1, 2>(k, a, b, sums);
    else
      columns <= 16 ? sum_up<2, 1>(k, a, b, sums) : sum_up<2, 2>(k, a, b, sums);
    float* sums_of_row[kMr];
    for (int i = 0; i < kMr; ++i) sums_of_row[i] = sums[i];
    finish_tile<VecF>(sums_of_row, c_rows, rows, columns, e);
  }

  // The most that can be had: operations done on kProbe elements, A and B, which stay in the first cache.
  static constexpr int64_t kProbe = 2 * 128 * 32;
  static double probe(const float* data, int64_t rounds) {
    constexpr int64_t kPairs = 128;
    rounds = max_of(rounds / 256, int64_t{1});  // about as long as one of other units
    alignas(64) float sums[kMr][kNr];
    const TileScope scope;
    clear<2, 2>();
    for (int64_t r = 0; r < rounds; ++r) multiply<2, 2>(kPairs, data, data + kPairs * kMr);
    store<2, 2>(sums);
    volatile float sink = sums[0][0];
    (void)sink;
    return 4.0 * kMr * kNr * kPairs * static_cast<double>(rounds);
  }

 private:
  // Registers 0 to 3 hold the sums of R x Q tiles, 4 and 5 tiles of A, 6 and 7 tiles of B.
  static constexpr int64_t kTilePitch = 64, kRowOfB = kNr * sizeof(float);

  template <int R, int Q>
  static void clear() {
    tile_zero<0>();
    if constexpr (Q == 2) tile_zero<1>();
    if constexpr (R == 2) tile_zero<2>();
    if constexpr (R == 2 && Q == 2) tile_zero<3>();
  }

  template <int R, int Q>
  static void multiply(int64_t k, const float* a, const float* b) {
    for (int64_t p = 0; p < k; p += 16, a += kMr * 16, b += kNr * 16) {
      tile_load<6>(b, kRowOfB);
      tile_load_stream<4>(a, kTilePitch);  // B stays in the first cache, A passes by
      tile_multiply_add<0, 4, 6>();
      if constexpr (Q == 2) {
        tile_load<7>(b + 16, kRowOfB);
        tile_multiply_add<1, 4, 7>();
      }
      if constexpr (R == 2) {
        tile_load_stream<5>(a + 256, kTilePitch);
        tile_multiply_add<2, 5, 6>();
        if constexpr (Q == 2) tile_multiply_add<3, 5, 7>();
      }
    }
  }

  template <int R, int Q>
  static void store(float (*sums)[kNr]) {
    tile_store<0>(&sums[0][0], kRowOfB);
    if constexpr (Q == 2) tile_store<1>(&sums[0][16], kRowOfB);
    if constexpr (R == 2) tile_store<2>(&sums[16][0], kRowOfB);
    if constexpr (R == 2 && Q == 2) tile_store<3>(&sums[16][16], kRowOfB);
  }

  template <int R, int Q>
  static void sum_up(int64_t k, const float* a, const float* b, float (*sums)[kNr]) {
    clear<R, Q>();
    multiply<R, Q>(k, a, b);
    store<R, Q>(sums);
  }
};

}  // namespace
}  // namespace smelt
