// Operands of a matrix product, copied into panels that its tiles read straight through.
#pragma once
#include "cpu/kernels/gemm_tile.inl.h"

namespace smelt {
namespace {

// Elements that lie together, widened where the target is wider.
template <class S, class T>
inline void copy_run(const S* src, int64_t count, T* dst) {
  each_vector<Vec<T>>(count, [&](int64_t e, int lanes) { store(dst + e, load<Vec<T>>(src + e, lanes), lanes); });
}
inline void copy_run(const bfloat16* src, int64_t count, bfloat16* dst) {
#ifdef __AVX512BW__
  int64_t e = 0;
  for (; e + 32 <= count; e += 32) _mm512_storeu_si512(dst + e, _mm512_loadu_si512(src + e));
  if (e == count) return;
  const auto rest = static_cast<__mmask32>((uint64_t{1} << (count - e)) - 1);
  _mm512_mask_storeu_epi16(dst + e, rest, _mm512_maskz_loadu_epi16(rest, src + e));
#else
  __builtin_memcpy(dst, src, static_cast<size_t>(count) * sizeof(bfloat16));
#endif
}

// A panel whose depth rows are contiguous at the source: dst[p * width + i] = src[p * ld + i], zeros from `count` on.
template <class T, class S>
void pack_copy(const S* src, int64_t ld, int64_t k, int count, int width, T* dst) {
  using V = Vec<T>;
  for (int64_t p = 0; p < k; ++p, src += ld, dst += width) {
    int i = 0;
    for (; i + V::W <= count; i += V::W) V::load(src + i).store(dst + i);
    if (i < width) {
      // The tail may be shorter than a vector on both sides.
      for (; i + V::W <= width; i += V::W) {
        const V v = count > i ? V::load(src + i, count - i) : V::zero();
        v.store(dst + i);
      }
      if (i < width) (count > i ? V::load(src + i, count - i) : V::zero()).store(dst + i, width - i);
    }
  }
}

// A panel that is transposed on the way: dst[p * width + i] = src[i * ld + p], zeros from `count` on.
template <class T, class S>
void pack_transpose(const S* src, int64_t ld, int64_t k, int count, int width, T* dst) {
  int i = 0;
  if constexpr (__is_same(T, float)) {
    constexpr int kB = kTransposeBlock;
    for (; i + kB <= count; i += kB) {
      int64_t p = 0;
      for (; p + kB <= k; p += kB) {
        if constexpr (__is_same(S, float)) {
          transpose_square(src + i * ld + p, 4 * ld, dst + p * width + i, width);
        } else {
          float wide[kB * kB];
          for (int j = 0; j < kB; ++j)
            each_vector<VecF>(kB, [&](int64_t c, int lanes) {
              store(wide + j * kB + c, load<VecF>(src + (i + j) * ld + p + c, lanes), lanes);
            });
          transpose_square(wide, 4 * kB, dst + p * width + i, width);
        }
      }
      for (; p < k; ++p)
        for (int j = 0; j < kB; ++j) dst[p * width + i + j] = from_storage(src[(i + j) * ld + p]);
    }
  }
  for (; i < width; ++i) {
    if (i < count) {
      for (int64_t p = 0; p < k; ++p) dst[p * width + i] = from_storage(src[i * ld + p]);
    } else {
      for (int64_t p = 0; p < k; ++p) dst[p * width + i] = 0;
    }
  }
}

// Rows in row-major order: dst[i * pitch + p] = src[i * ld + p].
template <class T, class S>
void pack_rows(const S* src, int64_t ld, int64_t k, int count, int64_t pitch, T* dst) {
  using V = Vec<T>;
  for (int i = 0; i < count; ++i)
    each_vector<V>(k, [&](int64_t p, int lanes) {
      store(dst + i * pitch + p, load<V>(src + i * ld + p, lanes), lanes);
    });
}

// An interleaved panel of A: dst[p * kMr + i] = src[p * ld + i]. Of each source row `readable` elements may be read. A whole
// panel is copied in whole vectors, which reach beyond its row into the next one's place, or behind the panel.
template <class V, class S>
void pack_interleaved(const S* src, int64_t ld, int64_t k, int count, int64_t readable, typename V::T* dst) {
  constexpr int kMr = Tile<V>::kMr, kWhole = (kMr + V::W - 1) / V::W * V::W;
  if (count < kMr || readable < kWhole) return pack_copy(src, ld, k, count, kMr, dst);
  for (int64_t p = 0; p < k; ++p, src += ld, dst += kMr)
    for (int i = 0; i < kWhole; i += V::W) V::load(src + i).store(dst + i);
}

// Calls f(row, count, panel, g) for each panel of kMr rows in [i, i + rows); the panel's place in dst is its g-th.
template <class Shape, class T, class F>
inline void each_row_panel(int64_t i, int64_t rows, T* dst, const F& f) {
  constexpr int kMr = Shape::kMr;
  for (int g = 0; g * kMr < rows; ++g)
    f(i + g * kMr, static_cast<int>(min_of(rows - g * kMr, int64_t{kMr})), dst + g * Shape::kPanel, g);
}

// Likewise for some rows of the depth of all panels before the next ones: what lies together is read together.
// f(row, count, p, depth, panel) packs depth [p, p + depth).
template <class Shape, class T, class F>
inline void each_row_panel_slice(int64_t i, int64_t rows, int64_t depth, T* dst, const F& f) {
  constexpr int64_t kSlice = 8;
  for (int64_t p = 0; p < depth; p += kSlice)
    each_row_panel<Shape>(i, rows, dst, [&](int64_t row, int count, T* panel, int) {
      f(row, count, p, min_of(kSlice, depth - p), panel + p * Shape::kMr);
    });
}

// Calls f(column, count, panel) for each panel of kNr columns in [j, j + columns); panel is its place in dst.
template <class Shape, class T, class F>
inline void each_panel(int64_t j, int64_t columns, int64_t depth, T* dst, const F& f) {
  constexpr int kNr = Shape::kNr;
  for (int64_t i = 0; i < columns; i += kNr)
    f(j + i, static_cast<int>(min_of(columns - i, int64_t{kNr})), dst + i * depth);
}

}  // namespace
}  // namespace smelt
