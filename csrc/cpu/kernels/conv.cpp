// Convolutions as matrix products whose rows are gathered straight from the channels-last image: the weight in the
// role of B, a pixel's neighbourhood as a row of A. No image is ever unfolded in memory.
//
//   forward          y  (pixels, K)     = gathered x (pixels, R S C)  times w^T
//   backward_input   dx (pixels, C)     = gathered dy (pixels, R S K) times w, one product per phase of the stride
//   backward_weight  dw (K, R S C)      = dy^T times gathered x
#include "cpu/kernels/gemm_core.inl.h"
#include "cpu/kernels/families.h"

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
  Origin origin(int64_t index) const {
    const int64_t n = index / (rows * columns), in_image = index - n * rows * columns;
    const int64_t i = in_image / columns, y = i * step[0], x = (in_image - i * columns) * step[1];
    const Tap& first = taps[0];
    const Tap& last = taps[tap_count - 1];
    const int64_t top = min_of(first.y, last.y), bottom = max_of(first.y, last.y);
    const int64_t left = min_of(first.x, last.x), right = max_of(first.x, last.x) + width;
    const bool inside = y + top >= 0 && y + bottom < h && x + left >= 0 && x + right <= w;
    return {image + ((n * h + y) * w + x) * channels, y, x, inside};
  }

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
        for (int64_t e = from; e < first; ++e) dst[e - from] = 0;
        for (int64_t e = last; e < to; ++e) dst[e - from] = 0;
      }
      each_vector<Vec<T>>(last - first, [&](int64_t e, int lanes) {
        store(dst + first - from + e, load<Vec<T>>(source + first + e, lanes), lanes);
      });
      dst += to - from;
    }
  }

  // Whether a panel's pointers to the runs of one depth block fit its memory. Halves are widened as they are copied.
  template <class V>
  bool fits_runs(int64_t depth) const {
    if (sizeof(S) == 2) return false;
    const int64_t runs = depth / tap_length() + 2;
    const int64_t room = Tile<V>::kMr * Tile<V>::kPitch * static_cast<int64_t>(sizeof(S));
    return static_cast<int64_t>(sizeof(Runs<S>)) + runs * Tile<V>::kMr * static_cast<int64_t>(sizeof(S*)) <= room;
  }

  // Rows [index, index + rows) over the depth [begin, end) as runs. Taps outside the picture point to zeros; those that
  // reach over its edge are put together in `edge`, which has room for a panel's rows.
  template <class V>
  void runs(int64_t index, int count, int64_t begin, int64_t end, const S* zeros, S* edge, S* panel) const {
    const int64_t length = tap_length(), first = begin / length, last = ceil_div(end, length);
    auto* out = reinterpret_cast<Runs<S>*>(panel);
    out->length = length;
    out->skip = begin - first * length;
    for (int i = 0; i < count; ++i) {
      const Origin o = origin(index + i);
      for (int64_t t = first; t < last; ++t) {
        const S* p = o.pixel + taps[t].offset;
        if (!o.inside) {
          const int64_t y = o.y + taps[t].y, x = o.x + taps[t].x;
          if (y < 0 || y >= h || x + width <= 0 || x >= w) {
            p = zeros;
          } else if (x < 0 || x + width > w) {
            copy(o, t * length, (t + 1) * length, edge);
            p = edge;
            edge += length;
          }
        }
        out->pointers[(t - first) * Tile<V>::kMr + i] = p;
      }
    }
    for (int i = count; i < Tile<V>::kMr; ++i)
      for (int64_t t = first; t < last; ++t) out->pointers[(t - first) * Tile<V>::kMr + i] = zeros;
  }
};

// Elements for the runs of one panel that reach over the edge.
template <class S>
int64_t edge_room(int64_t tap_length) {
  return (kBlockK + 2 * tap_length) * Tile<Vec<S>>::kMr;
}
// Elements of each thread: zeros, and the runs at the edge of its panels.
template <class S>
int64_t edge_elements(int64_t tap_length) {
  tap_length = max_of(tap_length, int64_t{1});
  return round_up(tap_length + kMostPanels<Tile<Vec<S>>> * edge_room<S>(tap_length), 16);
}

// A product whose A is gathered from a picture.
template <class S, class PackB, class Row>
void gathered_product(Context& context, const Extent& extent, const Gather<S>& gather, const Compute<S>* bias,
                      Activation activation, bool accumulate, void* workspace, const PackB& pack_b, const Row& row) {
  using V = Vec<S>;
  using T = typename V::T;
  const int64_t length = gather.tap_length(), each = edge_elements<S>(length);
  S* const edges = static_cast<S*>(workspace);
  void* const rest = edges + each * context.threads;
  const Epilogue<T> epilogue{T{1}, bias, activation, accumulate};
  if (!gather.template fits_runs<V>(depth_block<Tile<V>>(extent.k))) {
    blocked_product<Tile<V>, LayoutA::rows>(
        context, extent, epilogue, rest, false,
        [&](int64_t i, int64_t rows, int64_t p, int64_t depth, T* dst, int) {
          each_row_panel<Tile<V>>(i, rows, dst, [&](int64_t first, int count, T* panel, int) {
            for (int j = 0; j < count; ++j) gather.copy(gather.origin(first + j), p, p + depth, panel + j * Tile<V>::kPitch);
          });
        },
        pack_b, row);
    return;
  }
  if constexpr (is_real<S>) {
    for (int t = 0; t < context.threads; ++t)
      for (int64_t i = 0; i < length; ++i) edges[t * each + i] = 0;
    blocked_product<Tile<V>, LayoutA::runs>(
        context, extent, epilogue, rest, false,
        [&](int64_t i, int64_t rows, int64_t p, int64_t depth, T* dst, int thread) {
          S* const zeros = edges + thread * each;
          each_row_panel<Tile<V>>(i, rows, dst, [&](int64_t first, int count, T* panel, int g) {
            gather.template runs<V>(first, count, p, p + depth, zeros, zeros + length + g * edge_room<S>(length), panel);
          });
        },
        pack_b, row);
  }
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

// ---------------------------------------------------------------------------------------------------------- forward

Extent forward_extent(const ConvShape& s) {
  return {s.n * s.p * s.q, s.k / s.groups, s.r * s.s * (s.c / s.groups)};
}

// Of halves: the bias that is added to the sums.
template <class S>
int64_t bias_bytes(const ConvShape& s) {
  return sizeof(S) == 2 ? round_up(s.k * 4, 64) : 0;
}

size_t forward_workspace(const Conv2dArgs& a, int threads) {
  return with_floating(a.dtype, [&]<class S>(S) {
    const ConvShape& s = a.shape;
    const int64_t length = (merges_columns(s) ? s.s : 1) * (s.c / s.groups);
    return tap_bytes(s) + bias_bytes<S>(s) + edge_elements<S>(length) * threads * sizeof(S) +
           product_workspace<Tile<Vec<S>>, S>(forward_extent(s), threads);
  });
}

template <class S>
void forward(const Conv2dArgs& a, Context& context) {
  using V = Vec<S>;
  using T = typename V::T;
  const ConvShape& s = a.shape;
  const Extent extent = forward_extent(s);
  Tap* taps = static_cast<Tap*>(context.workspace);
  T* wide_bias = reinterpret_cast<T*>(static_cast<char*>(context.workspace) + tap_bytes(s));
  void* workspace = static_cast<char*>(context.workspace) + tap_bytes(s) + bias_bytes<S>(s);
  const T* bias = static_cast<const T*>(a.bias);
  if constexpr (sizeof(S) == 2) {
    for (int64_t i = 0; a.bias && i < s.k; ++i) wide_bias[i] = from_storage(static_cast<const S*>(a.bias)[i]);
    bias = a.bias ? wide_bias : nullptr;
  }
  for (int64_t group = 0; group < s.groups; ++group) {
    const Gather<S> gather = forward_gather(s, static_cast<const S*>(a.x), group, taps);
    const S* w = static_cast<const S*>(a.w) + group * extent.n * extent.k;
    S* y = static_cast<S*>(a.y) + group * extent.n;
    gathered_product(
        context, extent, gather, bias ? bias + group * extent.n : nullptr, a.activation, false, workspace,
        [&](int64_t first, int64_t columns, int64_t p, int64_t depth, T* dst) {
          each_panel<Tile<V>>(first, columns, depth, dst, [&](int64_t j, int n, T* panel) {
            pack_transpose(w + j * extent.k + p, extent.k, depth, n, Tile<V>::kNr, panel);
          });
        },
        [&](int64_t i) { return y + i * s.k; });
  }
}

Status conv2d(const Conv2dArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) { forward<S>(a, context); });
  return Status::ok;
}

// --------------------------------------------------------------------------------------------------- input gradient

// Input rows h = phase, phase + stride, ... meet the same kernel rows: those with (h + pad - r dilation) % stride == 0,
// at output row i + offset where i counts the rows of the phase.
inline int64_t phase_rows(int64_t extent, int64_t stride, int64_t phase) {
  return extent > phase ? ceil_div(extent - phase, stride) : 0;
}

Extent input_extent(const ConvShape& s) {  // of the phase with most rows and taps
  return {s.n * ceil_div(s.h, s.stride[0]) * ceil_div(s.w, s.stride[1]), s.c / s.groups,
          s.r * s.s * (s.k / s.groups)};
}

// Any phase's depth may be cut differently, so the workspace is for the longest block.
size_t input_workspace(const Conv2dBackwardInputArgs& a, int threads) {
  return with_sums(a.dtype, a.dx_dtype, [&]<class S, class O>(S, O) -> size_t {
    const Extent e = input_extent(a.shape);
    const int64_t edges = edge_elements<S>(a.shape.k / a.shape.groups) * threads * static_cast<int64_t>(sizeof(S));
    return 2 * tap_bytes(a.shape) + edges + product_workspace<Tile<Vec<S>>, O>(e, threads);
  });
}

template <class O>
void zero_phase(const Conv2dBackwardInputArgs& a, int64_t phase_y, int64_t phase_x) {
  const ConvShape& s = a.shape;
  O* dx = static_cast<O*>(a.dx);
  for (int64_t n = 0; n < s.n; ++n)
    for (int64_t y = phase_y; y < s.h; y += s.stride[0])
      for (int64_t x = phase_x; x < s.w; x += s.stride[1])
        for (int64_t c = 0; c < s.c; ++c) dx[((n * s.h + y) * s.w + x) * s.c + c] = to_storage<O>(0);
}

template <class S, class O>
void backward_input_phase(const Conv2dBackwardInputArgs& a, Context& context, int64_t phase_y, int64_t phase_x) {
  using V = Vec<S>;
  using T = typename V::T;
  const ConvShape& s = a.shape;
  const int64_t kg = s.k / s.groups, cg = s.c / s.groups;
  Tap* taps = static_cast<Tap*>(context.workspace);
  int64_t* kernel_at = reinterpret_cast<int64_t*>(static_cast<char*>(context.workspace) + tap_bytes(s));
  void* workspace = static_cast<char*>(context.workspace) + 2 * tap_bytes(s);
  int64_t count = 0;
  for (int64_t r = 0; r < s.r; ++r) {
    const int64_t y = phase_y + s.pad[0] - r * s.dilation[0];
    if (y % s.stride[0] != 0) continue;
    for (int64_t c = 0; c < s.s; ++c) {
      const int64_t x = phase_x + s.pad[1] - c * s.dilation[1];
      if (x % s.stride[1] != 0) continue;
      const int64_t p = y / s.stride[0], q = x / s.stride[1];
      taps[count] = {p, q, (p * s.q + q) * s.k};
      kernel_at[count++] = r * s.s + c;
    }
  }
  if (count == 0) {  // a stride beyond the kernel leaves these pixels out
    if (!a.accumulate) zero_phase<O>(a, phase_y, phase_x);
    return;
  }
  const int64_t rows = phase_rows(s.h, s.stride[0], phase_y), columns = phase_rows(s.w, s.stride[1], phase_x);
  const Extent extent{s.n * rows * columns, cg, count * kg};
  for (int64_t group = 0; group < s.groups; ++group) {
    const Gather<S> gather{static_cast<const S*>(a.dy) + group * kg, s.p, s.q, s.k, rows, columns, {1, 1}, kg, 1,
                           taps, count};
    const S* w = static_cast<const S*>(a.w) + group * kg * s.r * s.s * cg;
    O* dx = static_cast<O*>(a.dx) + group * cg;
    gathered_product(
        context, extent, gather, nullptr, Activation::none, a.accumulate, workspace,
        [&](int64_t first, int64_t n, int64_t p, int64_t depth, T* dst) {
          each_panel<Tile<V>>(first, n, depth, dst, [&](int64_t j, int width, T* panel) {
            for (int64_t e = p; e < p + depth; ++e, panel += Tile<V>::kNr)
              pack_copy(w + (e % kg * s.r * s.s + kernel_at[e / kg]) * cg + j, 0, 1, width, Tile<V>::kNr, panel);
          });
        },
        [&](int64_t i) {
          const int64_t n = i / (rows * columns), in_image = i % (rows * columns);
          const int64_t y = phase_y + in_image / columns * s.stride[0], x = phase_x + in_image % columns * s.stride[1];
          return dx + ((n * s.h + y) * s.w + x) * s.c;
        });
  }
}

bool input_takes(const Conv2dBackwardInputArgs& a) { return takes_sums(a.dtype, a.dx_dtype); }

Status conv2d_backward_input(const Conv2dBackwardInputArgs& a, Context& context) noexcept {
  with_sums(a.dtype, a.dx_dtype, [&]<class S, class O>(S, O) {
    for (int64_t y = 0; y < min_of(a.shape.stride[0], a.shape.h); ++y)
      for (int64_t x = 0; x < min_of(a.shape.stride[1], a.shape.w); ++x) backward_input_phase<S, O>(a, context, y, x);
  });
  return Status::ok;
}

// -------------------------------------------------------------------------------------------------- weight gradient

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
bool weight_takes(const Conv2dBackwardWeightArgs& a) { return takes_sums(a.dtype, a.dw_dtype); }
size_t weight_workspace(const Conv2dBackwardWeightArgs& a, int threads) {
  return with_sums(a.dtype, a.dw_dtype, [&]<class S, class O>(S, O) -> size_t {
    using T = Compute<S>;
    const Extent e = weight_extent(a.shape);
    const int64_t parts = weight_parts(a.shape);
    if (parts == 1) return tap_bytes(a.shape) + product_workspace<Tile<Vec<S>>, O>(e, threads);
    return tap_bytes(a.shape) + round_up(parts * e.m * e.n * static_cast<int64_t>(sizeof(T)), 64) +
           threads * round_up(product_workspace<Tile<Vec<S>>, T>(e, 1), 64);
  });
}

// Pixels [first, first + extent.k) of one group into out (m, n).
template <class S, class O>
void weight_product(const Conv2dBackwardWeightArgs& a, Context& context, const Gather<S>& gather, int64_t group,
                    int64_t first, const Extent& extent, O* out, bool accumulate, void* workspace, bool alone) {
  using V = Vec<S>;
  using T = typename V::T;
  const int64_t k = a.shape.k;
  const S* dy = static_cast<const S*>(a.dy) + group * extent.m + first * k;
  blocked_product<Tile<V>, LayoutA::interleaved>(
      context, extent, Epilogue<T>{T{1}, nullptr, Activation::none, accumulate}, workspace, alone,
      [&](int64_t i, int64_t rows, int64_t p, int64_t depth, T* dst, int) {
        each_row_panel_slice<Tile<V>>(i, rows, depth, dst, [&](int64_t row, int count, int64_t q, int64_t n, T* panel) {
          pack_interleaved<V>(dy + (p + q) * k + row, k, n, count, extent.m - row, panel);
        });
      },
      [&](int64_t j0, int64_t columns, int64_t p, int64_t depth, T* dst) {
        for (int64_t e = 0; e < depth; ++e) {
          const auto origin = gather.origin(first + p + e);
          each_panel<Tile<V>>(j0, columns, depth, dst, [&](int64_t j, int width, T* panel) {
            T* row = panel + e * Tile<V>::kNr;
            gather.copy(origin, j, j + width, row);
            for (int c = width; c < Tile<V>::kNr; ++c) row[c] = 0;
          });
        }
      },
      [&](int64_t i) { return out + i * extent.n; });
}

template <class S, class O>
void backward_weight(const Conv2dBackwardWeightArgs& a, Context& context) {
  using V = Vec<S>;
  using T = typename V::T;
  const ConvShape& s = a.shape;
  const Extent extent = weight_extent(s);
  const int64_t parts = weight_parts(s), size = extent.m * extent.n;
  Tap* taps = static_cast<Tap*>(context.workspace);
  char* rest = static_cast<char*>(context.workspace) + tap_bytes(s);
  for (int64_t group = 0; group < s.groups; ++group) {
    const Gather<S> gather = forward_gather(s, static_cast<const S*>(a.x), group, taps);
    O* dw = static_cast<O*>(a.dw) + group * size;
    if (parts == 1) {
      weight_product(a, context, gather, group, 0, extent, dw, a.accumulate, rest, false);
      continue;
    }
    T* partial = reinterpret_cast<T*>(rest);
    char* scratch = rest + round_up(parts * size * static_cast<int64_t>(sizeof(T)), 64);
    const int64_t each = round_up(product_workspace<Tile<V>, T>(extent, 1), 64);
    parallel_chunks(context, parts, [&](int64_t i, int thread) {
      const int64_t first = extent.k * i / parts, last = extent.k * (i + 1) / parts;
      weight_product(a, context, gather, group, first, {extent.m, extent.n, last - first}, partial + i * size, false,
                     scratch + thread * each, true);
    });
    parallel_for(context, size, 8192, [&](int64_t begin, int64_t end) {
      each_vector<V>(end - begin, [&](int64_t offset, int lanes) {
        const int64_t i = begin + offset;
        V sum = load<V>(partial + i, lanes);
        for (int64_t p = 1; p < parts; ++p) sum = sum + load<V>(partial + p * size + i, lanes);
        if (a.accumulate) sum = load<V>(dw + i, lanes) + sum;
        store(dw + i, sum, lanes);
      });
    });
  }
}

Status conv2d_backward_weight(const Conv2dBackwardWeightArgs& a, Context& context) noexcept {
  with_sums(a.dtype, a.dw_dtype, [&]<class S, class O>(S, O) { backward_weight<S, O>(a, context); });
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_conv(KernelTable& table) {
  add_kernel<Conv2dArgs, conv2d, floating_only, forward_workspace>(table, SMELT_KERNEL_NAME("conv2d_direct"));
  add_kernel<Conv2dBackwardInputArgs, conv2d_backward_input, input_takes, input_workspace>(
      table, SMELT_KERNEL_NAME("conv2d_backward_input_direct"));
  add_kernel<Conv2dBackwardWeightArgs, conv2d_backward_weight, weight_takes, weight_workspace>(
      table, SMELT_KERNEL_NAME("conv2d_backward_weight_direct"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
