// Pictures as matrices: rows of a product's A, gathered straight from a channels-last image, and what the convolutions' products
// have in common. No image is ever unfolded in memory.
//
//   forward          y  (pixels, K)     = gathered x (pixels, R S C)  times w^T
//   backward_input   dx (pixels, C)     = gathered dy (pixels, R S K) times w, one product per phase of the stride
//   backward_weight  dw (K, R S C)      = dy^T times gathered x
#pragma once
#include "cpu/kernels/gemm_core.inl.h"

namespace smelt {
namespace {

// A picture from which rows are gathered: row (n, i, j) is the concatenation over taps of `run` channels of each pixel
// from (i step[0] + tap.y, j step[1] + tap.x) on, and zeros where that lies outside. Pixels that are neighbours in memory
// and in the row count as one tap of several columns.
struct Tap {
  int64_t y, x;
  int64_t offset;  // elements from the row's origin
};
template <class S>
struct Gather {
  const S* image;          // first channel of the group
  int64_t h, w, channels;  // extents, elements from pixel to pixel
  int64_t rows, columns;   // of the grid of rows
  int64_t step[2];
  int64_t run;             // channels taken of each pixel
  int64_t width;           // pixels of each tap
  const Tap* taps;
  int64_t tap_count;

  // At least 1: without channels there is nothing to copy.
  int64_t tap_length() const { return max_of(width * run, int64_t{1}); }

  struct Origin {
    const S* pixel;  // where the row's offsets start from; may lie outside the picture
    int64_t y, x;
    bool inside;  // all taps are
  };
  // Row `index` on the grid, and the one after a place.
  struct Place {
    int64_t n, i, j;
  };
  Place place(int64_t index) const {
    const int64_t n = index / (rows * columns), in_image = index - n * rows * columns, i = in_image / columns;
    return {n, i, in_image - i * columns};
  }
  void advance(Place& p) const {
    if (++p.j < columns) return;
    p.j = 0;
    if (++p.i < rows) return;
    p.i = 0;
    ++p.n;
  }
  Origin origin(const Place& p) const {
    const int64_t y = p.i * step[0], x = p.j * step[1];
    const Tap& first = taps[0];
    const Tap& last = taps[tap_count - 1];
    const int64_t top = min_of(first.y, last.y), bottom = max_of(first.y, last.y);
    const int64_t left = min_of(first.x, last.x), right = max_of(first.x, last.x) + width;
    const bool inside = y + top >= 0 && y + bottom < h && x + left >= 0 && x + right <= w;
    return {image + ((p.n * h + y) * w + x) * channels, y, x, inside};
  }
  Origin origin(int64_t index) const { return origin(place(index)); }

  // Elements [begin, end) of a row to dst.
  template <class T>
  void copy(const Origin& o, int64_t begin, int64_t end, T* dst) const {
    const int64_t length = tap_length();
    for (int64_t t = begin / length; t * length < end; ++t) {
      const int64_t from = max_of(begin - t * length, int64_t{0}), to = min_of(end - t * length, length);
      const S* source = o.pixel + taps[t].offset;
      // The part of [from, to) whose pixels are inside.
      int64_t first = from, last = to;
      if (!o.inside) {
        const int64_t y = o.y + taps[t].y, x = o.x + taps[t].x;
        const bool row_inside = y >= 0 && y < h;
        first = row_inside ? min_of(max_of(from, -x * run), to) : to;
        last = row_inside ? max_of(min_of(to, (w - x) * run), first) : to;
        for (int64_t e = from; e < first; ++e) dst[e - from] = T{};
        for (int64_t e = last; e < to; ++e) dst[e - from] = T{};
      }
      copy_run(source + first, last - first, dst + first - from);
      dst += to - from;
    }
  }

  // Whether a panel's pointers to the runs of one depth block fit its memory. Halves are widened as they are copied.
  template <class Shape>
  bool fits_runs(int64_t depth) const {
    if (sizeof(S) == 2) return false;
    const int64_t runs = depth / tap_length() + 2;
    const int64_t room = Shape::kPanel * static_cast<int64_t>(sizeof(S));
    return static_cast<int64_t>(sizeof(Runs<S>)) + runs * Shape::kMr * static_cast<int64_t>(sizeof(S*)) <= room;
  }

  // Rows [index, index + rows) over the depth [begin, end) as runs. Taps outside the picture point to zeros; those that
  // reach over its edge are put together in `edge`, which has room for a panel's rows.
  template <class Shape>
  void runs(int64_t index, int count, int64_t begin, int64_t end, const S* zeros, S* edge, S* panel) const {
    const int64_t length = tap_length(), first = begin / length, last = ceil_div(end, length);
    auto* out = reinterpret_cast<Runs<S>*>(panel);
    out->length = length;
    out->skip = begin - first * length;
    Place at = place(index);
    for (int i = 0; i < count; ++i, advance(at)) {
      const Origin o = origin(at);
      const S** to = out->pointers + i;
      // Each pixel is read once, and where they are a stride apart no hardware foresees the next.
      if (tap_count == 1 && o.inside)
        for (int64_t e = begin; e < end; e += 64 / static_cast<int64_t>(sizeof(S)))
          __builtin_prefetch(o.pixel + taps[0].offset + e, 0, 2);
      if (o.inside) {
        for (int64_t t = first; t < last; ++t, to += Shape::kMr) *to = o.pixel + taps[t].offset;
        continue;
      }
      for (int64_t t = first; t < last; ++t, to += Shape::kMr) {
        const int64_t y = o.y + taps[t].y, x = o.x + taps[t].x;
        *to = o.pixel + taps[t].offset;
        if (y < 0 || y >= h || x + width <= 0 || x >= w) {
          *to = zeros;
        } else if (x < 0 || x + width > w) {
          copy(o, t * length, (t + 1) * length, edge);
          *to = edge;
          edge += length;
        }
      }
    }
    for (int i = count; i < Shape::kMr; ++i)
      for (int64_t t = first; t < last; ++t) out->pointers[(t - first) * Shape::kMr + i] = zeros;
  }
};

// Elements for the runs of one panel that reach over the edge.
template <class Shape>
int64_t edge_room(int64_t tap_length) {
  return (kBlockK + 2 * tap_length) * Shape::kMr;
}
// Elements of each thread: zeros, and the runs at the edge of its panels.
template <class Shape>
int64_t edge_elements(int64_t tap_length) {
  tap_length = max_of(tap_length, int64_t{1});
  return round_up(tap_length + kMostPanels<Shape> * edge_room<Shape>(tap_length), 16);
}

// The taps of forward and weight gradient, (r, s) in order; those of a kernel row are one where they can be.
inline bool merges_columns(const ConvShape& s) { return s.groups == 1 && s.dilation[1] == 1; }
inline int64_t tap_bytes(const ConvShape& s) { return round_up(s.r * s.s * static_cast<int64_t>(sizeof(Tap)), 64); }

template <class S>
Gather<S> forward_gather(const ConvShape& s, const S* x, int64_t group, Tap* taps) {
  const int64_t run = s.c / s.groups;
  const bool merged = merges_columns(s);
  int64_t count = 0;
  for (int64_t r = 0; r < s.r; ++r)
    for (int64_t c = 0; c < (merged ? 1 : s.s); ++c) {
      const int64_t y = r * s.dilation[0] - s.pad[0], dx = c * s.dilation[1] - s.pad[1];
      taps[count++] = {y, dx, (y * s.w + dx) * s.c};
    }
  return {x + group * run, s.h, s.w, s.c, s.p, s.q, {s.stride[0], s.stride[1]}, run, merged ? s.s : 1, taps, count};
}

Extent forward_extent(const ConvShape& s) {
  return {s.n * s.p * s.q, s.k / s.groups, s.r * s.s * (s.c / s.groups)};
}

// Input rows h = phase, phase + stride, ... meet the same kernel rows: those with (h + pad - r dilation) % stride == 0,
// at output row i + offset where i counts the rows of the phase.
inline int64_t phase_rows(int64_t extent, int64_t stride, int64_t phase) {
  return extent > phase ? ceil_div(extent - phase, stride) : 0;
}

Extent input_extent(const ConvShape& s) {  // of the phase with most rows and taps
  return {s.n * ceil_div(s.h, s.stride[0]) * ceil_div(s.w, s.stride[1]), s.c / s.groups,
          s.r * s.s * (s.k / s.groups)};
}

// The taps of the input pixels of a phase, and their places in the kernel.
inline int64_t phase_taps(const ConvShape& s, int64_t phase_y, int64_t phase_x, Tap* taps, int64_t* kernel_at) {
  int64_t count = 0;
  for (int64_t r = 0; r < s.r; ++r) {
    const int64_t y = phase_y + s.pad[0] - r * s.dilation[0];
    if (y % s.stride[0] != 0) continue;
    for (int64_t c = s.s - 1; c >= 0; --c) {  // from left to right in dy
      const int64_t x = phase_x + s.pad[1] - c * s.dilation[1];
      if (x % s.stride[1] != 0) continue;
      const int64_t p = y / s.stride[0], q = x / s.stride[1];
      taps[count] = {p, q, (p * s.q + q) * s.k};
      kernel_at[count++] = r * s.s + c;
    }
  }
  return count;
}

// Of `count` such taps, those of a kernel row as one where their pixels and channels lie together: how many pixels each has then.
inline int64_t merge_taps(const ConvShape& s, Tap* taps, int64_t* count) {
  int64_t width = 1;
  while (width < *count && taps[width].y == taps[0].y && taps[width].x == taps[0].x + width) ++width;
  const bool all = width == *count || taps[width].y != taps[0].y;
  if (s.groups != 1 || !all || width == 1) return 1;
  *count /= width;
  for (int64_t t = 1; t < *count; ++t) taps[t] = taps[t * width];
  return width;
}

template <class O>
void zero_phase(const Conv2dBackwardInputArgs& a, Context& context, int64_t phase_y, int64_t phase_x) {
  const ConvShape& s = a.shape;
  const int64_t height = phase_rows(s.h, s.stride[0], phase_y);
  parallel_for(context, s.n * height, ceil_div(16384, max_of(s.w * s.c, int64_t{1})), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      O* to = static_cast<O*>(a.dx) + (row / height * s.h + phase_y + row % height * s.stride[0]) * s.w * s.c;
      for (int64_t x = phase_x; x < s.w; x += s.stride[1]) __builtin_memset(to + x * s.c, 0, static_cast<size_t>(s.c) * sizeof(O));
    }
  });
}

// The reduction over pixels is cut by shape alone: into at most kParts parts where dw is small and the pixels are many.
constexpr int64_t kParts = 16;
Extent weight_extent(const ConvShape& s) {
  return {s.k / s.groups, s.r * s.s * (s.c / s.groups), s.n * s.p * s.q};
}
int64_t weight_parts(const ConvShape& s) {
  const Extent e = weight_extent(s);
  if (e.m * e.n > 256 * 1024) return 1;
  return max_of(int64_t{1}, min_of(kParts, e.k / (2 * kBlockK)));
}

// The sums of all parts, in their order.
template <class T, class O>
void add_parts(Context& context, const T* partial, int64_t parts, int64_t size, O* dw, bool accumulate) {
  using V = Vec<T>;
  parallel_for(context, size, 8192, [&](int64_t begin, int64_t end) {
    each_vector<V>(end - begin, [&](int64_t offset, int lanes) {
      const int64_t i = begin + offset;
      V sum = load<V>(partial + i, lanes);
      for (int64_t p = 1; p < parts; ++p) sum = sum + load<V>(partial + p * size + i, lanes);
      if (accumulate) sum = load<V>(dw + i, lanes) + sum;
      store(dw + i, sum, lanes);
    });
  });
}

}  // namespace
}  // namespace smelt
