// The blocked matrix product that gemm and the convolutions share: the loops around a tile.
//
// B is packed in panels of kNr columns, (panels, k, kNr). A is taken a panel of kMr rows at a time, in the layout that
// costs least (gemm_tile.inl.h). A tile of kMr x kNr stays in registers over a block of the depth; the depth is cut by shape
// alone, rows and columns freely.
//
// Two orders of the loops, by the caches of the instruction set's machines (blocking.h). With kPanelsA = 1 a panel of A
// stays in the first cache and a block of B in the second. With more, a panel of B stays in the first, the panels of A
// that meet it in the second, and B comes from the third, packed for several blocks of the depth at once: fewer waits
// between threads. Where the rows are few, no thread waits for another.
#pragma once
#include "cpu/kernels/gemm_pack.inl.h"

namespace smelt {
namespace {

struct Extent {
  int64_t m, n, k;
};

// Below some 10 us of work a parallel region costs more than it saves.
inline bool is_small(const Extent& x) { return 2.0 * x.m * x.n * x.k < 5e5; }

// How many elements of the depth a block has: equal parts of at most kBlockK.
template <class Shape>
int64_t depth_block(int64_t k) {
  const int64_t blocks = max_of(int64_t{1}, ceil_div(k, kBlockK));
  return max_of(int64_t{1}, round_up(ceil_div(k, blocks), Shape::kDepthStep));
}
template <class Shape>
int64_t column_block(int64_t n) {
  return min_of(round_up(max_of(n, int64_t{1}), Shape::kNr), round_up(kBlockN, Shape::kNr));
}

// How much of the depth is packed at once: whole blocks, as many as kBlockB elements hold. What one thread does alone
// needs no more than one block: only the waits between threads are saved.
template <class Shape>
int64_t packed_depth(const Extent& x, int threads) {
  const int64_t kc = depth_block<Shape>(x.k);
  return threads == 1 ? kc : kc * max_of(int64_t{1}, kBlockB / column_block<Shape>(x.n) / kc);
}

// Products of few rows: every thread packs the columns that it needs, a strip at a time, next to all rows of A.
constexpr int64_t kFewRows = 192, kStrip = 4;  // rows at most, panels of a strip
template <class Shape>
constexpr int64_t kMostPanels = max_of(int64_t{kPanelsA}, ceil_div(kFewRows, int64_t{Shape::kMr}));
inline bool has_few_rows(const Extent& x) { return x.m <= kFewRows; }
template <class Shape>
int64_t strip_elements(const Extent& x) {  // of one thread
  const int64_t panels = ceil_div(min_of(x.m, kFewRows), int64_t{Shape::kMr});
  return round_up(panels * Shape::kPanel + kStrip * Shape::kNr * min_of(max_of(x.k, int64_t{1}), int64_t{kBlockK}), 16);
}

// Bytes that blocked_product needs, also for any smaller m and k: packed B, kPanelsA panels of A for every thread, and the sums
// of a column block where the results, of type C, are narrower and the depth has several blocks.
template <class Shape, class C>
size_t product_workspace(const Extent& x, int threads) {
  using T = typename Shape::Vector::T;
  const int64_t nc = column_block<Shape>(x.n);
  const int64_t depth = min_of(max_of(x.k, int64_t{1}), max_of(kBlockK, threads == 1 ? 0 : kBlockB / nc));
  const bool wide_sums = sizeof(C) < sizeof(T) && x.k > kBlockK;
  const int64_t few_rows = min_of(x.m, kFewRows);
  const int64_t few = strip_elements<Shape>(x) * threads + (wide_sums ? few_rows * round_up(x.n, Shape::kNr) : 0);
  const int64_t many = depth * nc + kPanelsA * Shape::kPanel * threads + (wide_sums ? x.m * nc : 0);
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

inline int64_t sums_pitch(int64_t n) { return round_up(n, 16); }

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
template <class Shape, LayoutA layout, class PackA, class PackB, class Row>
class BlockedProduct {
 public:
  using V = typename Shape::Vector;
  using T = typename V::T;
  using C = typename Pointee<decltype(static_cast<const Row*>(nullptr)->operator()(int64_t{}))>::type;

  BlockedProduct(const Extent& extent, const Epilogue<T>& epilogue, const PackA& a, const PackB& b, const Row& c)
      : x(extent), whole(epilogue), pack_a(a), pack_b(b), row(c) {}

  // With `alone` the calling thread does everything.
  void run(Context& context, void* workspace, bool alone) {
    Context serial = context;
    serial.threads = 1;
    Context& region = alone || is_small(x) ? serial : context;
    packed = static_cast<T*>(workspace);
    has_few_rows(x) ? few_rows(region) : blocks(region);
    if (whole.column_sums) add_panels(region);
  }

 private:
  static constexpr bool kNarrow = sizeof(C) < sizeof(T);

  // Packed rows of panels [panel, panel + count) times columns [first, last) of the part's panels.
  void multiply(const Part<T>& part, int64_t panel, int count, int64_t first, int64_t last, const T* panels_a) const {
    const bool first_depth = part.p0 == 0, last_depth = part.p0 + part.depth >= x.k;
    const int64_t first_row = panel * Shape::kMr;
    Epilogue<T> e = whole;
    e.add = whole.add || !first_depth;
    e.last = last_depth;
    C* c_of_row[kMostPanels<Shape>][Shape::kMr];
    int rows[kMostPanels<Shape>];
    for (int g = 0; g < count; ++g) {
      const int64_t i0 = first_row + g * Shape::kMr;
      rows[g] = static_cast<int>(min_of(x.m - i0, int64_t{Shape::kMr}));
      for (int i = 0; i < Shape::kMr; ++i) c_of_row[g][i] = row(i0 + min_of(i, rows[g] - 1)) + part.j0;
    }
    for (int64_t q = first; q < last; ++q) {
      const int64_t j = q * Shape::kNr;
      const int width = static_cast<int>(min_of(part.columns - j, int64_t{Shape::kNr}));
      e.bias = whole.bias ? whole.bias + part.j0 + j : nullptr;
      for (int g = 0; g < count; ++g) {
        C* c_rows[Shape::kMr];
        for (int i = 0; i < Shape::kMr; ++i) c_rows[i] = c_of_row[g][i] + j;
        const T* a = panels_a + g * Shape::kPanel;
        const T* b = part.b + j * part.depth;
        if constexpr (kNarrow)
          narrow_tile(part, a, b, first_row + g * Shape::kMr, j, c_rows, rows[g], width, e);
        else
          Shape::template run<layout>(part.depth, a, b, c_rows, rows[g], width, e);
        if (e.partial_sums && e.last)
          add_rows_of_tile(c_rows, rows[g], width, e.partial_sums + (panel + g) * sums_pitch(x.n) + part.j0 + j);
      }
    }
  }

  // Sums that are wider than c: where the depth is one block, in registers or on the stack, else in `partial` from block to
  // block.
  void narrow_tile(const Part<T>& part, const T* a, const T* b, int64_t i0, int64_t j, C* const* c_rows, int rows, int width,
                   Epilogue<T> e) const {
    const bool first_depth = part.p0 == 0;
    if constexpr (Shape::kNarrows)
      if (first_depth && e.last) return Shape::template run<layout>(part.depth, a, b, c_rows, rows, width, e);
    T scratch[Shape::kMr * Shape::kNr];
    T* sums[Shape::kMr];
    for (int i = 0; i < Shape::kMr; ++i)
      sums[i] = first_depth && e.last ? scratch + i * Shape::kNr
                                      : partial + (i0 + min_of(i, rows - 1)) * partial_pitch + (has_few_rows(x) ? part.j0 : 0) + j;
    Shape::template run<layout>(part.depth, a, b, sums, rows, width,
                                Epilogue<T>{T{1}, nullptr, Activation::none, !first_depth, false});
    e.add = whole.add;
    if (e.last) finish_tile<V>(sums, c_rows, rows, width, e);
  }

  // The sums of a tile's columns, as they were written.
  static void add_rows_of_tile(C* const* c_rows, int rows, int columns, T* sums) {
    each_vector<V>(columns, [&](int64_t j, int lanes) {
      V total = V::zero();
      for (int i = 0; i < rows; ++i) total = total + load<V>(c_rows[i] + j, lanes);
      store(sums + j, total, lanes);
    });
  }

  // Panels are added in their order, whoever has summed them up.
  void add_panels(Context& region) const {
    const int64_t pitch = sums_pitch(x.n), panels = ceil_div(x.m, Shape::kMr);
    parallel_for(region, ceil_div(x.n, V::W), 64, [&](int64_t begin, int64_t end) {
      const int64_t first = begin * V::W;
      each_vector<V>(min_of(end * V::W, x.n) - first, [&](int64_t j, int lanes) {
        V total = V::zero();
        for (int64_t p = 0; p < panels; ++p) total = total + load<V>(whole.partial_sums + p * pitch + first + j, lanes);
        store(whole.column_sums + first + j, total, lanes);
      });
    });
  }

  // Each thread has its columns and all rows: it packs both, a strip of columns at a time.
  void few_rows(Context& region) {
    const int64_t panels = ceil_div(x.n, Shape::kNr), row_panels = ceil_div(x.m, Shape::kMr), kc = depth_block<Shape>(x.k);
    const int64_t each = strip_elements<Shape>(x);
    partial = packed + each * region.threads;
    partial_pitch = round_up(x.n, Shape::kNr);
    // A piece for each thread, or two where that is cheap: each packs the rows anew.
    const int64_t pieces =
        region.threads == 1 ? 1 : min_of(panels, int64_t{region.threads} * (x.n >= 16 * x.m ? 2 : 1));
    parallel_chunks(region, pieces, [&](int64_t piece, int thread) {
      [[maybe_unused]] const typename Shape::Scope scope;
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
    const int64_t kc = depth_block<Shape>(x.k), nc = column_block<Shape>(x.n), together = packed_depth<Shape>(x, region.threads);
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
          [[maybe_unused]] const typename Shape::Scope scope;
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
  const Epilogue<T> whole;  // of the product; its `add` says whether to add to what c holds
  const PackA& pack_a;
  const PackB& pack_b;
  const Row& row;
  T* packed = nullptr;
  T* partial = nullptr;  // with kNarrow, the sums of several blocks of the depth: (m, partial_pitch)
  int64_t partial_pitch = 0;
};

template <class Shape, LayoutA layout, class PackA, class PackB, class Row>
void blocked_product(Context& context, const Extent& x, const Epilogue<typename Shape::Vector::T>& epilogue, void* workspace,
                     bool alone, const PackA& pack_a, const PackB& pack_b, const Row& row) {
  BlockedProduct<Shape, layout, PackA, PackB, Row>(x, epilogue, pack_a, pack_b, row).run(context, workspace, alone);
}

// ------------------------------------------------------------------------------------------- what candidates of gemm share

// Products that are small each but many: whole ones go to threads.
inline bool by_batch(const GemmArgs& a) { return a.batch > 1 && 2.0 * a.m * a.n * a.k < 4e7; }

// Calls one(context, index, workspace, alone) for each product of a batch; `each` is a small one's workspace.
template <class F>
void each_product(const GemmArgs& a, Context& context, size_t each, const F& one) {
  if (by_batch(a)) {
    // Some 10 us of work at once, for which threads do not get in each other's way.
    const int64_t most = max_of(int64_t{1}, a.batch / (8 * context.threads));
    const int64_t group = min_of(most, static_cast<int64_t>(1 + 1e6 / max_of(2.0 * a.m * a.n * a.k, 1.0)));
    return parallel_chunks(context, ceil_div(a.batch, group), [&](int64_t chunk, int thread) {
      for (int64_t i = chunk * group; i < min_of(a.batch, (chunk + 1) * group); ++i)
        one(context, i, static_cast<char*>(context.workspace) + thread * each, true);
    });
  }
  for (int64_t i = 0; i < a.batch; ++i) one(context, i, context.workspace, false);
}

// What a product's epilogue needs at the start of the workspace: the bias of halves, widened, and the sums of panels.
template <class Shape, class S>
size_t epilogue_room(const GemmArgs& a) {
  const int64_t bias = sizeof(S) == 2 && a.bias ? round_up(a.n * 4, 64) : 0;
  const int64_t panels = a.column_sums ? ceil_div(a.m, int64_t{Shape::kMr}) : 0;
  return bias + round_up(panels * sums_pitch(a.n) * static_cast<int64_t>(sizeof(Compute<S>)), 64);
}
template <class Shape, class S>
Epilogue<Compute<S>> epilogue_of(const GemmArgs& a, void** workspace) {
  using T = Compute<S>;
  Epilogue<T> e{static_cast<T>(a.alpha), nullptr, a.activation, a.accumulate, true};
  auto* room = static_cast<T*>(*workspace);
  if (a.bias) {
    const S* bias = static_cast<const S*>(a.bias);
    if constexpr (sizeof(S) == 2) {
      for (int64_t j = 0; j < a.n; ++j) room[j] = from_storage(bias[j]);
      e.bias = room;
      room += round_up(a.n, 16);
    } else {
      e.bias = bias;
    }
  }
  // c and its residual have the same strides.
  if (a.residual) e.residual = static_cast<const char*>(a.residual) - static_cast<const char*>(a.c);
  if (a.column_sums) {
    e.column_sums = static_cast<T*>(a.column_sums);
    e.partial_sums = room;
  }
  *workspace = static_cast<char*>(*workspace) + epilogue_room<Shape, S>(a);
  return e;
}

}  // namespace
}  // namespace smelt
