// The blocked matrix product that gemm and the convolutions share.
//
// B is packed in panels of kNr columns, (panels, k, kNr). A is taken a panel of kMr rows at a time, in the layout that
// costs least: row-major with a constant row pitch or interleaved (k, kMr), whichever is a plain copy of the source; or
// not copied at all, as runs of elements that lie together, each run with a pointer for every row, or as columns of the source
// that lie together. A tile of kMr x kNr
// stays in registers over a block of the depth; the depth is cut by shape alone, rows and columns freely.
//
// Two orders of the loops, by the caches of the instruction set's machines (blocking.h). With kPanelsA = 1 a panel of A
// stays in the first cache and a block of B in the second. With more, a panel of B stays in the first, the panels of A
// that meet it in the second, and B comes from the third, packed for several blocks of the depth at once: fewer waits
// between threads. Where the rows are few, no thread waits for another.
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
  static constexpr int64_t kPanel = kMr * kPitch;  // elements of a panel of A
};

enum class LayoutA { rows, interleaved, runs, columns };

// Runs of one length that cover the depth: element c of run r of row i is pointers[r * kMr + i][c]. Lies at the start of a
// panel's memory.
template <class T>
struct Runs {
  int64_t length;       // of a run
  int64_t skip;         // elements of the first run that come before this block of the depth
  const T* pointers[];  // (runs, kMr)
};

// Elements of one depth that lie together, and the way to those of the next one. Lies at the start of a panel's memory.
template <class T>
struct Columns {
  const T* first;
  int64_t step;
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

  // The tile of c is asked for now, to be here when the sums are.
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    __builtin_prefetch(c_rows[i], 1);
    __builtin_prefetch(c_rows[i] + columns - 1, 1);
  }

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
  } else if constexpr (layout == LayoutA::columns) {
    const auto* columns_of_a = reinterpret_cast<const Columns<T>*>(a);
    const T* column = columns_of_a->first;
    for (int64_t p = 0; p < k; ++p, column += columns_of_a->step)
      advance([&](int i) __attribute__((always_inline)) { return column[i]; });
  } else {
    constexpr int64_t kRowStep = layout == LayoutA::rows ? Shape::kPitch : 1;
    for (int64_t p = 0; p < k; ++p) {
      advance([&](int i) __attribute__((always_inline)) { return a[i * kRowStep]; });
      a += layout == LayoutA::rows ? 1 : Shape::kMr;
    }
  }

  const V alpha = V::set(e.alpha);
  const bool finish = e.last && (e.bias || e.activation != Activation::none);
  if (rows == R && columns == NV * V::W && !finish) {  // most tiles of a large product
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) {
        typename V::T* c = c_rows[i] + j * V::W;
        const V v = alpha * acc[i][j];
        (e.add ? V::load(c) + v : v).store(c);
      }
    return;
  }
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

// A finished tile to results that are narrower than its sums.
template <class V, class C>
void finish_tile(typename V::T* const* sums, C* const* c_rows, int rows, int columns, const Epilogue<typename V::T>& e) {
  for (int i = 0; i < rows; ++i)
    each_vector<V>(columns, [&](int64_t j, int lanes) {
      V v = load<V>(sums[i] + j, lanes);
      if (e.add) v = load<V>(c_rows[i] + j, lanes) + v;
      if (e.bias) v = v + load<V>(e.bias + j, lanes);
      if (e.activation != Activation::none) v = activate(e.activation, v);
      store(c_rows[i] + j, v, lanes);
    });
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
  if constexpr (__is_same(T, float)) {
    constexpr int kB = kTransposeBlock;
    for (; i + kB <= count; i += kB) {
      int64_t p = 0;
      for (; p + kB <= k; p += kB) {
        if constexpr (__is_same(S, float)) {
          transpose_square(src + i * ld + p, ld, dst + p * width + i, width);
        } else {
          float wide[kB * kB];
          for (int j = 0; j < kB; ++j)
            each_vector<VecF>(kB, [&](int64_t c, int lanes) {
              store(wide + j * kB + c, load<VecF>(src + (i + j) * ld + p + c, lanes), lanes);
            });
          transpose_square(wide, kB, dst + p * width + i, width);
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
template <class V, class T, class F>
inline void each_row_panel(int64_t i, int64_t rows, T* dst, const F& f) {
  constexpr int kMr = Tile<V>::kMr;
  for (int g = 0; g * kMr < rows; ++g)
    f(i + g * kMr, static_cast<int>(min_of(rows - g * kMr, int64_t{kMr})), dst + g * Tile<V>::kPanel, g);
}

// Likewise for some rows of the depth of all panels before the next ones: what lies together is read together.
// f(row, count, p, depth, panel) packs depth [p, p + depth).
template <class V, class T, class F>
inline void each_row_panel_slice(int64_t i, int64_t rows, int64_t depth, T* dst, const F& f) {
  constexpr int64_t kSlice = 8;
  for (int64_t p = 0; p < depth; p += kSlice)
    each_row_panel<V>(i, rows, dst, [&](int64_t row, int count, T* panel, int) {
      f(row, count, p, min_of(kSlice, depth - p), panel + p * Tile<V>::kMr);
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

// Below some 10 us of work a parallel region costs more than it saves.
inline bool is_small(const Extent& x) { return 2.0 * x.m * x.n * x.k < 5e5; }

// How many elements of the depth a block has: equal parts of at most kBlockK.
inline int64_t depth_block(int64_t k) {
  const int64_t blocks = max_of(int64_t{1}, ceil_div(k, kBlockK));
  return max_of(int64_t{1}, ceil_div(k, blocks));
}
template <class V>
int64_t column_block(int64_t n) {
  return min_of(round_up(max_of(n, int64_t{1}), Tile<V>::kNr), round_up(kBlockN, Tile<V>::kNr));
}

// How much of the depth is packed at once: whole blocks, as many as kBlockB elements hold. What one thread does alone
// needs no more than one block: only the waits between threads are saved.
template <class V>
int64_t packed_depth(const Extent& x, int threads) {
  const int64_t kc = depth_block(x.k);
  return threads == 1 ? kc : kc * max_of(int64_t{1}, kBlockB / column_block<V>(x.n) / kc);
}

// Products of few rows: every thread packs the columns that it needs, a strip at a time, next to all rows of A.
constexpr int64_t kFewRows = 192, kStrip = 4;  // rows at most, panels of a strip
template <class V>
constexpr int64_t kMostPanels = max_of(int64_t{kPanelsA}, ceil_div(kFewRows, int64_t{Tile<V>::kMr}));
inline bool has_few_rows(const Extent& x) { return x.m <= kFewRows; }
template <class V>
int64_t strip_elements(const Extent& x) {  // of one thread
  const int64_t panels = ceil_div(min_of(x.m, kFewRows), int64_t{Tile<V>::kMr});
  return round_up(panels * Tile<V>::kPanel + kStrip * Tile<V>::kNr * min_of(max_of(x.k, int64_t{1}), int64_t{kBlockK}), 16);
}

// Bytes that blocked_product needs, also for any smaller m and k: packed B, kPanelsA panels of A for every thread, and the sums
// of a column block where the results, of type C, are narrower and the depth has several blocks.
template <class V, class C>
size_t product_workspace(const Extent& x, int threads) {
  using T = typename V::T;
  const int64_t nc = column_block<V>(x.n);
  const int64_t depth = min_of(max_of(x.k, int64_t{1}), max_of(kBlockK, threads == 1 ? 0 : kBlockB / nc));
  const bool wide_sums = sizeof(C) < sizeof(T) && x.k > kBlockK;
  const int64_t few_rows = min_of(x.m, kFewRows);
  const int64_t few = strip_elements<V>(x) * threads + (wide_sums ? few_rows * round_up(x.n, Tile<V>::kNr) : 0);
  const int64_t many = depth * nc + kPanelsA * Tile<V>::kPanel * threads + (wide_sums ? x.m * nc : 0);
  return static_cast<size_t>(round_up(has_few_rows(x) ? few : max_of(few, many), 16)) * sizeof(T);
}

// Row panels in pieces of work: large ones for three quarters of the rows, then small ones, so that threads end together.
struct RowPieces {
  int64_t panels, large, large_count, small, count;
  RowPieces(int64_t row_panels, int threads) : panels(row_panels) {
    large = threads == 1 ? max_of(panels, int64_t{1}) : max_of(int64_t{1}, min_of(int64_t{max_of(kPanelsA, 4)}, panels / (4 * threads)));
    large_count = threads == 1 ? min_of(panels, int64_t{1}) : panels * 3 / 4 / large;
    small = max_of(int64_t{1}, large / 4);
    count = large_count + ceil_div(panels - large_count * large, small);
  }
  int64_t begin(int64_t piece) const {
    return min_of(panels, piece < large_count ? piece * large : large_count * large + (piece - large_count) * small);
  }
};

template <class P>
struct Pointee;
template <class P>
struct Pointee<P*> {
  using type = P;
};

// A part of the product: columns [j0, j0 + columns) over the depth [p0, p0 + depth), packed at b.
template <class T>
struct Part {
  int64_t j0, columns, p0, depth;
  T* b;
};

// c = epilogue(a b). pack_a(i, rows, p, depth, dst, thread) packs rows [i, i + rows) and depth [p, p + depth) in `layout`, as
// at most kMostPanels panels, each kPanel elements from the last; pack_b(j, columns, p, depth, dst) packs columns [j, j +
// columns) as panels one after the other; row(i) is the address of row i of c, whose elements may be narrower than the sums.
template <class V, LayoutA layout, class PackA, class PackB, class Row>
class BlockedProduct {
 public:
  using T = typename V::T;
  using C = typename Pointee<decltype(static_cast<const Row*>(nullptr)->operator()(int64_t{}))>::type;

  BlockedProduct(const Extent& extent, T factor, const T* bias_or_null, Activation act, bool add, const PackA& a,
                 const PackB& b, const Row& c)
      : x(extent), alpha(factor), bias(bias_or_null), activation(act), accumulate(add), pack_a(a), pack_b(b), row(c) {}

  // With `alone` the calling thread does everything.
  void run(Context& context, void* workspace, bool alone) {
    Context serial = context;
    serial.threads = 1;
    Context& region = alone || is_small(x) ? serial : context;
    packed = static_cast<T*>(workspace);
    has_few_rows(x) ? few_rows(region) : blocks(region);
  }

 private:
  using Shape = Tile<V>;
  static constexpr bool kNarrow = sizeof(C) < sizeof(T);

  // Packed rows of panels [panel, panel + count) times columns [first, last) of the part's panels.
  void multiply(const Part<T>& part, int64_t panel, int count, int64_t first, int64_t last, const T* panels_a) const {
    const bool first_depth = part.p0 == 0, last_depth = part.p0 + part.depth >= x.k;
    const int64_t first_row = panel * Shape::kMr;
    Epilogue<T> e{alpha, nullptr, activation, accumulate || !first_depth, last_depth};
    C* c_of_row[kMostPanels<V>][Shape::kMr];
    int rows[kMostPanels<V>];
    for (int g = 0; g < count; ++g) {
      const int64_t i0 = first_row + g * Shape::kMr;
      rows[g] = static_cast<int>(min_of(x.m - i0, int64_t{Shape::kMr}));
      for (int i = 0; i < Shape::kMr; ++i) c_of_row[g][i] = row(i0 + min_of(i, rows[g] - 1)) + part.j0;
    }
    for (int64_t q = first; q < last; ++q) {
      const int64_t j = q * Shape::kNr;
      const int width = static_cast<int>(min_of(part.columns - j, int64_t{Shape::kNr}));
      e.bias = bias ? bias + part.j0 + j : nullptr;
      for (int g = 0; g < count; ++g) {
        C* c_rows[Shape::kMr];
        for (int i = 0; i < Shape::kMr; ++i) c_rows[i] = c_of_row[g][i] + j;
        const T* a = panels_a + g * Shape::kPanel;
        const T* b = part.b + j * part.depth;
        if constexpr (kNarrow)
          narrow_tile(part, a, b, first_row + g * Shape::kMr, j, c_rows, rows[g], width, e);
        else
          run_tile<V, layout>(part.depth, a, b, c_rows, rows[g], width, e);
      }
    }
  }

  // Sums that are wider than c: on the stack where the depth is one block, else in `partial` from block to block.
  void narrow_tile(const Part<T>& part, const T* a, const T* b, int64_t i0, int64_t j, C* const* c_rows, int rows, int width,
                   Epilogue<T> e) const {
    const bool first_depth = part.p0 == 0;
    T scratch[Shape::kMr * Shape::kNr];
    T* sums[Shape::kMr];
    for (int i = 0; i < Shape::kMr; ++i)
      sums[i] = first_depth && e.last ? scratch + i * Shape::kNr
                                      : partial + (i0 + min_of(i, rows - 1)) * partial_pitch + (has_few_rows(x) ? part.j0 : 0) + j;
    run_tile<V, layout>(part.depth, a, b, sums, rows, width,
                        Epilogue<T>{alpha, nullptr, Activation::none, !first_depth, false});
    e.add = accumulate;
    if (e.last) finish_tile<V>(sums, c_rows, rows, width, e);
  }

  // Each thread has its columns and all rows: it packs both, a strip of columns at a time.
  void few_rows(Context& region) {
    const int64_t panels = ceil_div(x.n, Shape::kNr), row_panels = ceil_div(x.m, Shape::kMr), kc = depth_block(x.k);
    const int64_t each = strip_elements<V>(x);
    partial = packed + each * region.threads;
    partial_pitch = round_up(x.n, Shape::kNr);
    // A piece for each thread, or two where that is cheap: each packs the rows anew.
    const int64_t pieces =
        region.threads == 1 ? 1 : min_of(panels, int64_t{region.threads} * (x.n >= 16 * x.m ? 2 : 1));
    parallel_chunks(region, pieces, [&](int64_t piece, int thread) {
      T* const panels_a = packed + thread * each;
      T* const strip = panels_a + row_panels * Shape::kPanel;
      const int64_t end = panels * (piece + 1) / pieces;
      for (int64_t p = 0; p < max_of(x.k, int64_t{1}); p += kc) {  // a depth of 0 still writes c
        const int64_t depth = min_of(kc, x.k - p);
        pack_a(0, x.m, p, depth, panels_a, thread);
        for (int64_t q = panels * piece / pieces; q < end; q += kStrip) {
          const int64_t j0 = q * Shape::kNr, columns = min_of(min_of(q + kStrip, end) * Shape::kNr, x.n) - j0;
          pack_b(j0, columns, p, depth, strip);
          multiply({j0, columns, p, depth, strip}, 0, static_cast<int>(row_panels), 0, ceil_div(columns, Shape::kNr), panels_a);
        }
      }
    });
  }

  // All threads pack blocks of columns together, then each takes pieces of the rows.
  void blocks(Context& region) {
    const int64_t kc = depth_block(x.k), nc = column_block<V>(x.n), together = packed_depth<V>(x, region.threads);
    T* const all_panels_a = packed + min_of(together, max_of(x.k, int64_t{1})) * nc;
    partial = all_panels_a + kPanelsA * Shape::kPanel * region.threads;
    partial_pitch = nc;
    const RowPieces pieces(ceil_div(x.m, Shape::kMr), region.threads);
    for (int64_t j0 = 0; j0 < x.n; j0 += nc) {
      const int64_t columns = min_of(nc, x.n - j0), panels = ceil_div(columns, Shape::kNr);
      // Where the rows are few, the columns are cut too.
      const int64_t cuts = region.threads == 1 ? 1 : ceil_div(8 * int64_t{region.threads}, max_of(pieces.count, int64_t{1}));
      const int64_t column_groups = min_of(panels, cuts);
      for (int64_t p0 = 0; p0 < max_of(x.k, int64_t{1}); p0 += together) {
        const int64_t count = max_of(int64_t{1}, ceil_div(min_of(together, x.k - p0), kc));
        const auto part = [&](int64_t block) {
          const int64_t p = p0 + block * kc;
          return Part<T>{j0, columns, p, min_of(kc, x.k - p), packed + block * kc * panels * Shape::kNr};
        };
        pack_blocks(region, part, count, panels);
        parallel_chunks(region, pieces.count * column_groups, [&](int64_t job, int thread) {
          const int64_t piece = job / column_groups, side = job % column_groups;
          for (int64_t block = 0; block < count; ++block)
            piece_of_rows(part(block), pieces.begin(piece), pieces.begin(piece + 1), panels * side / column_groups,
                          panels * (side + 1) / column_groups, all_panels_a + thread * kPanelsA * Shape::kPanel, thread);
        });
      }
    }
  }

  template <class PartOf>
  void pack_blocks(Context& region, const PartOf& part, int64_t count, int64_t panels) const {
    const int64_t least = max_of(int64_t{1}, 16384 / max_of(part(0).depth * Shape::kNr, int64_t{1}));
    parallel_for(region, count * panels, least, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin / panels; block * panels < end; ++block) {
        const Part<T> t = part(block);
        const int64_t first = max_of(begin - block * panels, int64_t{0}), last = min_of(end - block * panels, panels);
        const int64_t j = first * Shape::kNr;
        pack_b(t.j0 + j, min_of(t.columns, last * Shape::kNr) - j, t.p0, t.depth, t.b + j * t.depth);
      }
    });
  }

  void piece_of_rows(const Part<T>& part, int64_t first_panel, int64_t last_panel, int64_t first, int64_t last, T* panels_a,
                     int thread) const {
    for (int64_t panel = first_panel; panel < last_panel; panel += kPanelsA) {
      const int count = static_cast<int>(min_of(last_panel - panel, int64_t{kPanelsA}));
      const int64_t i = panel * Shape::kMr;
      pack_a(i, min_of(x.m - i, int64_t{count} * Shape::kMr), part.p0, part.depth, panels_a, thread);
      multiply(part, panel, count, first, last, panels_a);
    }
  }

  const Extent x;
  const T alpha;
  const T* const bias;
  const Activation activation;
  const bool accumulate;  // adds to what c holds
  const PackA& pack_a;
  const PackB& pack_b;
  const Row& row;
  T* packed = nullptr;
  T* partial = nullptr;  // with kNarrow, the sums of several blocks of the depth: (m, partial_pitch)
  int64_t partial_pitch = 0;
};

template <class V, LayoutA layout, class PackA, class PackB, class Row>
void blocked_product(Context& context, const Extent& x, typename V::T alpha, const typename V::T* bias,
                     Activation activation, bool accumulate, void* workspace, bool alone, const PackA& pack_a,
                     const PackB& pack_b, const Row& row) {
  BlockedProduct<V, layout, PackA, PackB, Row>(x, alpha, bias, activation, accumulate, pack_a, pack_b, row)
      .run(context, workspace, alone);
}

}  // namespace
}  // namespace smelt
