// The blocked matrix product that gemm and the convolutions share.
//
// B is packed in panels of kNr columns, (panels, k, kNr). A is taken a panel of kMr rows at a time, in the layout that
// costs least: row-major with a constant row pitch or interleaved (k, kMr), whichever is a plain copy of the source; or
// not copied at all, as runs of elements that lie together, each run with a pointer for every row. A tile of kMr x kNr
// stays in registers over a block of the depth; the depth is cut by shape alone, rows and columns freely. Preparing A is
// cheap enough to do again for every block of columns, so a block of B stays in the second cache.
#pragma once
#include "blocking.h"  // of the instruction set
#include "cpu/kernels/activation.inl.h"

namespace smelt {
namespace {

template <class V>
struct Tile {  // float64 has one lane: a small tile for checks
  static constexpr int kMr = __is_same(V, VecF) ? kTileM : 4;
  static constexpr int kVectors = __is_same(V, VecF) ? kTileVectors : 4;
  static constexpr int kNr = kVectors * V::W;
  static constexpr int64_t kPitch = kBlockK + 16;  // of a packed row of A: no power of two
};

enum class LayoutA { rows, interleaved, runs };

// Runs of one length that cover the depth: element c of run r of row i is pointers[r * kMr + i][c]. Lies at the start of a
// panel's memory.
template <class T>
struct Runs {
  int64_t length;       // of a run
  int64_t skip;         // elements of the first run that come before this block of the depth
  const T* pointers[];  // (runs, kMr)
};

// What happens to a finished element: v = alpha * v, + c (old content or earlier depth blocks), + bias, activation.
template <class T>
struct Epilogue {
  T alpha = 1;
  const T* bias = nullptr;  // (n)
  Activation activation = Activation::none;
  bool add = false;   // to what is in c
  bool last = true;   // depth block: bias and activation
};

// c[i][j] over a tile of `rows` <= R rows and `columns` columns, c_rows[i] being the row's first element of this tile.
template <class V, int R, int NV, LayoutA layout>
__attribute__((noinline)) void micro_kernel(int64_t k, const typename V::T* a, const typename V::T* b,
                                            typename V::T* const* c_rows, int rows, int columns,
                                            const Epilogue<typename V::T>& e) {
  using T = typename V::T;
  using Shape = Tile<V>;
  V acc[R][NV];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) acc[i][j] = V::zero();

  // One step of the depth, element(i) being that of row i.
  const auto advance = [&](const auto& element) __attribute__((always_inline)) {
    V bv[NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) bv[j] = V::load(b + j * V::W);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const V av = V::set(element(i));
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) acc[i][j] = fma(av, bv[j], acc[i][j]);
    }
    b += Shape::kNr;
  };
  if constexpr (layout == LayoutA::runs) {
    const auto* runs = reinterpret_cast<const Runs<T>*>(a);
    const T* const* pointers = runs->pointers;
    for (int64_t c = runs->skip; k > 0; c = 0, pointers += Shape::kMr) {
      const int64_t end = min_of(runs->length, c + k);
      k -= end - c;
      for (; c < end; ++c) advance([&](int i) __attribute__((always_inline)) { return pointers[i][c]; });
    }
  } else {
    constexpr int64_t kRowStep = layout == LayoutA::rows ? Shape::kPitch : 1;
    for (int64_t p = 0; p < k; ++p) {
      advance([&](int i) __attribute__((always_inline)) { return a[i * kRowStep]; });
      a += layout == LayoutA::rows ? 1 : Shape::kMr;
    }
  }

  const V alpha = V::set(e.alpha);
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    if (i >= rows) break;
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) {
      const int lanes = min_of(columns - j * V::W, V::W);
      if (lanes <= 0) break;
      typename V::T* c = c_rows[i] + j * V::W;
      V v = alpha * acc[i][j];
      if (e.add) v = load<V>(c, lanes) + v;
      if (e.last) {
        if (e.bias) v = v + load<V>(e.bias + j * V::W, lanes);
        if (e.activation != Activation::none) v = activate(e.activation, v);
      }
      store(c, v, lanes);
    }
  }
}

// The smallest micro-kernel that covers the tile: rows in steps of 2, one vector or all of them.
template <class V, LayoutA layout, int R = 2>
inline void run_tile(int64_t k, const typename V::T* a, const typename V::T* b, typename V::T* const* c_rows, int rows,
                     int columns, const Epilogue<typename V::T>& e) {
  if constexpr (R < Tile<V>::kMr) {
    if (rows > R) return run_tile<V, layout, R + 2>(k, a, b, c_rows, rows, columns, e);
  }
  if (columns <= V::W)
    micro_kernel<V, R, 1, layout>(k, a, b, c_rows, rows, columns, e);
  else
    micro_kernel<V, R, Tile<V>::kVectors, layout>(k, a, b, c_rows, rows, columns, e);
}

// ---------------------------------------------------------------------------------------------------------- packing

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
  if constexpr (__is_same(S, float)) {
    for (; i + kTransposeBlock <= count; i += kTransposeBlock) {
      int64_t p = 0;
      for (; p + kTransposeBlock <= k; p += kTransposeBlock)
        transpose_square(src + i * ld + p, ld, dst + p * width + i, width);
      for (; p < k; ++p)
        for (int j = 0; j < kTransposeBlock; ++j) dst[p * width + i + j] = src[(i + j) * ld + p];
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

// Calls f(column, count, panel) for each panel of kNr columns in [j, j + columns); panel is its place in dst.
template <class V, class T, class F>
inline void each_panel(int64_t j, int64_t columns, int64_t depth, T* dst, const F& f) {
  constexpr int kNr = Tile<V>::kNr;
  for (int64_t i = 0; i < columns; i += kNr)
    f(j + i, static_cast<int>(min_of(columns - i, int64_t{kNr})), dst + i * depth);
}

// --------------------------------------------------------------------------------------------------------- the loops

struct Extent {
  int64_t m, n, k;
};

// How many elements of the depth a block has: equal parts of at most kBlockK.
inline int64_t depth_block(int64_t k) {
  const int64_t blocks = max_of(int64_t{1}, ceil_div(k, kBlockK));
  return max_of(int64_t{1}, ceil_div(k, blocks));
}
template <class V>
int64_t column_block(int64_t n) {
  return min_of(round_up(max_of(n, int64_t{1}), Tile<V>::kNr), round_up(kBlockN, Tile<V>::kNr));
}

// Bytes that blocked_product needs: one block of B, and a panel of A for every thread.
template <class V>
size_t product_workspace(const Extent& x, int threads) {
  const int64_t panel_a = Tile<V>::kMr * Tile<V>::kPitch;
  const int64_t block_b = depth_block(x.k) * column_block<V>(x.n);
  return static_cast<size_t>(round_up(block_b + panel_a * threads, 16)) * sizeof(typename V::T);
}

// c = epilogue(a b). pack_a(i, rows, p, depth, dst, thread) packs rows [i, i + rows) and depth [p, p + depth) in `layout`;
// pack_b(j, columns, p, depth, dst) packs columns [j, j + columns) as panels one after the other; row(i) is the address
// of row i of c.
// `accumulate` adds to what c holds. With `alone` the calling thread does everything.
template <class V, LayoutA layout, class PackA, class PackB, class Row>
void blocked_product(Context& context, const Extent& x, typename V::T alpha, const typename V::T* bias,
                     Activation activation, bool accumulate, void* workspace, bool alone, const PackA& pack_a,
                     const PackB& pack_b, const Row& row) {
  using T = typename V::T;
  using Shape = Tile<V>;
  const int64_t kc = depth_block(x.k), nc = column_block<V>(x.n);
  const int64_t depth_blocks = max_of(int64_t{1}, ceil_div(x.k, kc));  // a depth of 0 still writes c
  T* const block_b = static_cast<T*>(workspace);
  T* const panels_a = block_b + kc * nc;

  Context serial = context;
  serial.threads = 1;
  // Below some 20 us of work a parallel region costs more than it saves.
  Context& region = alone || 2.0 * x.m * x.n * x.k < 1e6 ? serial : context;

  for (int64_t j0 = 0; j0 < x.n; j0 += nc) {
    const int64_t columns = min_of(nc, x.n - j0), panels = ceil_div(columns, Shape::kNr);
    // Pieces of work: groups of row panels, and of column panels too where the rows are few.
    const int64_t row_panels = ceil_div(x.m, Shape::kMr);
    const int64_t wanted = 8 * region.threads;
    const int64_t row_groups = region.threads == 1 ? min_of(row_panels, int64_t{1}) : min_of(row_panels, max_of(wanted, row_panels / 4));
    const int64_t column_groups = region.threads == 1 ? 1 : min_of(panels, ceil_div(wanted, max_of(row_groups, int64_t{1})));
    for (int64_t block = 0; block < depth_blocks; ++block) {
      const int64_t p0 = block * kc, depth = min_of(kc, x.k - p0);
      parallel_for(region, panels, max_of(int64_t{1}, 16384 / max_of(depth * Shape::kNr, int64_t{1})),
                   [&](int64_t begin, int64_t end) {
                     const int64_t j = begin * Shape::kNr;
                     pack_b(j0 + j, min_of(columns, end * Shape::kNr) - j, p0, depth, block_b + j * depth);
                   });
      Epilogue<T> epilogue{alpha, nullptr, activation, accumulate || block > 0, block + 1 == depth_blocks};
      parallel_chunks(region, row_groups * column_groups, [&](int64_t job, int thread) {
        T* const panel_a = panels_a + thread * Shape::kMr * Shape::kPitch;
        const int64_t group = job / column_groups, part = job % column_groups;
        const int64_t first_row = row_panels * group / row_groups, last_row = row_panels * (group + 1) / row_groups;
        const int64_t first = panels * part / column_groups, last = panels * (part + 1) / column_groups;
        for (int64_t panel = first_row; panel < last_row; ++panel) {
          const int64_t i0 = panel * Shape::kMr;
          const int rows = static_cast<int>(min_of(x.m - i0, int64_t{Shape::kMr}));
          pack_a(i0, rows, p0, depth, panel_a, thread);
          T* base[Shape::kMr];
          for (int i = 0; i < Shape::kMr; ++i) base[i] = row(i0 + min_of(i, rows - 1)) + j0;
          Epilogue<T> e = epilogue;
          for (int64_t q = first; q < last; ++q) {
            const int64_t j = q * Shape::kNr;
            T* c_rows[Shape::kMr];
            for (int i = 0; i < Shape::kMr; ++i) c_rows[i] = base[i] + j;
            e.bias = bias ? bias + j0 + j : nullptr;
            run_tile<V, layout>(depth, panel_a, block_b + q * depth * Shape::kNr, c_rows, rows,
                                static_cast<int>(min_of(columns - j, int64_t{Shape::kNr})), e);
          }
        }
      });
    }
  }
}

}  // namespace
}  // namespace smelt
