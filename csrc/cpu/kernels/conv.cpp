// Convolutions of any kind and format as matrix products of float32 and float64.
#include "cpu/kernels/conv_gather.inl.h"
#include "cpu/kernels/families.h"

namespace smelt {
namespace {

// Calls f(Shape{}) with the tile that a product of n columns takes: of float32 the one that leaves fewer vectors empty.
template <class S, class F>
auto with_tile(int64_t n, const F& f) {
  using V = Vec<S>;
  if constexpr (__is_same(S, float) && kTallVectors != kTileVectors)
    if (ceil_div(n, V::W) % kTileVectors != 0) return f(TileOf<V, kTallM, kTallVectors>{});
  return f(Tile<V>{});
}

// A product whose A is gathered from a picture.
template <class Shape, class S, class PackB, class Row>
void gathered_product(Context& context, const Extent& extent, const Gather<S>& gather, const Compute<S>* bias,
                      Activation activation, bool accumulate, void* workspace, const PackB& pack_b, const Row& row) {
  using T = typename Shape::Vector::T;
  const int64_t length = gather.tap_length(), each = edge_elements<Shape>(length);
  S* const edges = static_cast<S*>(workspace);
  void* const rest = edges + each * context.threads;
  const Epilogue<T> epilogue{T{1}, bias, activation, accumulate};
  if (!gather.template fits_runs<Shape>(depth_block<Shape>(extent.k))) {
    blocked_product<Shape, LayoutA::rows>(
        context, extent, epilogue, rest, false,
        [&](int64_t i, int64_t rows, int64_t p, int64_t depth, T* dst, int) {
          each_row_panel<Shape>(i, rows, dst, [&](int64_t first, int count, T* panel, int) {
            auto at = gather.place(first);
            for (int j = 0; j < count; ++j, gather.advance(at))
              gather.copy(gather.origin(at), p, p + depth, panel + j * Shape::kPitch);
          });
        },
        pack_b, row);
    return;
  }
  if constexpr (is_real<S>) {
    for (int t = 0; t < context.threads; ++t)
      for (int64_t i = 0; i < length; ++i) edges[t * each + i] = 0;
    blocked_product<Shape, LayoutA::runs>(
        context, extent, epilogue, rest, false,
        [&](int64_t i, int64_t rows, int64_t p, int64_t depth, T* dst, int thread) {
          S* const zeros = edges + thread * each;
          each_row_panel<Shape>(i, rows, dst, [&](int64_t first, int count, T* panel, int g) {
            gather.template runs<Shape>(first, count, p, p + depth, zeros, zeros + length + g * edge_room<Shape>(length), panel);
          });
        },
        pack_b, row);
  }
}

// A picture with zeros around it, where many rows of the matrix would reach over its edges: pixel (y, x) is at
// (y + top, x + left).
struct Padding {
  int64_t n, channels, h, w;         // of the picture
  int64_t top, left, rows, columns;  // and of the copy
  bool used;

  size_t bytes(size_t element) const {
    return used ? static_cast<size_t>(round_up(n * rows * columns * channels * static_cast<int64_t>(element), 64)) : 0;
  }
  template <class S>
  const S* fill(Context& context, const S* picture, void* to) const {
    if (!used) return picture;
    parallel_for(context, n * rows, ceil_div(32768, max_of(columns * channels, int64_t{1})), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t y = row % rows - top, there = y >= 0 && y < h ? min_of(w, columns - left) : 0;
        char* dst = static_cast<char*>(to) + row * columns * channels * sizeof(S);
        const auto bytes = [&](int64_t pixels) { return static_cast<size_t>(pixels * channels) * sizeof(S); };
        __builtin_memset(dst, 0, bytes(there ? left : columns));
        if (!there) continue;
        __builtin_memcpy(dst + bytes(left), picture + ((row / rows * h + y) * w) * channels, bytes(there));
        __builtin_memset(dst + bytes(left + there), 0, bytes(columns - left - there));
      }
    });
    return static_cast<const S*>(to);
  }
};
// The copy passes over memory: it pays where each element meets many filters and one row of eight is at an edge.
// Extents may be of any size, so that only doubles hold their product.
inline bool pays_padding(int64_t columns, int64_t reach, double size, int64_t products) {
  return reach > 1 && reach - 1 >= columns / 8 && products >= 64 && size <= 1 << 24;
}
Padding forward_padding(const ConvShape& s) {
  const int64_t rows = (s.p - 1) * s.stride[0] + (s.r - 1) * s.dilation[0] + 1;
  const int64_t columns = (s.q - 1) * s.stride[1] + (s.s - 1) * s.dilation[1] + 1;
  const bool used = s.pad[1] > 0 && s.n * s.p * s.q > 0 && s.pad[1] < columns &&
                    pays_padding(s.w, s.s, 1.0 * s.n * rows * columns * s.c, s.k / s.groups * s.r * s.s);
  return {s.n, s.c, s.h, s.w, s.pad[0], s.pad[1], rows, columns, used};
}
// The layer on the padded picture.
ConvShape padded_shape(const ConvShape& s, const Padding& padding) {
  ConvShape padded = s;
  if (padding.used) {
    padded.h = padding.rows;
    padded.w = padding.columns;
    padded.pad[0] = padded.pad[1] = 0;
  }
  return padded;
}
Padding input_padding(const ConvShape& s) {  // of dy
  const auto before = [&](int axis, int64_t taps) {
    return max_of(int64_t{0}, ceil_div((taps - 1) * s.dilation[axis] - s.pad[axis], s.stride[axis]));
  };
  const int64_t top = before(0, s.r), left = before(1, s.s);
  const int64_t rows = top + max_of(s.p, (s.h - 1 + s.pad[0]) / s.stride[0] + 1);
  const int64_t columns = left + max_of(s.q, (s.w - 1 + s.pad[1]) / s.stride[1] + 1);
  const bool used = s.n * s.p * s.q > 0 && s.h > 0 && s.w > 0 &&
                    pays_padding(s.q, columns - s.q + 1, 1.0 * s.n * rows * columns * s.k, s.c / s.groups * s.r * s.s);
  return {s.n, s.k, s.p, s.q, top, left, rows, columns, used};
}

// ---------------------------------------------------------------------------------------------------------- forward

// Of halves: the bias that is added to the sums.
template <class S>
int64_t bias_bytes(const ConvShape& s) {
  return sizeof(S) == 2 ? round_up(s.k * 4, 64) : 0;
}

size_t forward_workspace(const Conv2dArgs& a, int threads) {
  return with_floating(a.dtype, [&]<class S>(S) {
    const ConvShape& s = a.shape;
    const int64_t length = (merges_columns(s) ? s.s : 1) * (s.c / s.groups);
    return with_tile<S>(s.k / s.groups, [&]<class Shape>(Shape) {
      return forward_padding(s).bytes(sizeof(S)) + tap_bytes(s) + bias_bytes<S>(s) +
             edge_elements<Shape>(length) * threads * sizeof(S) + product_workspace<Shape, S>(forward_extent(s), threads);
    });
  });
}

template <class S, class Shape>
void forward(const Conv2dArgs& a, Context& context) {
  using T = typename Shape::Vector::T;
  const Padding padding = forward_padding(a.shape);
  const ConvShape s = padded_shape(a.shape, padding);
  const S* x = padding.fill(context, static_cast<const S*>(a.x), context.workspace);
  char* room = static_cast<char*>(context.workspace) + padding.bytes(sizeof(S));
  const Extent extent = forward_extent(s);
  Tap* taps = reinterpret_cast<Tap*>(room);
  T* wide_bias = reinterpret_cast<T*>(room + tap_bytes(s));
  void* workspace = room + tap_bytes(s) + bias_bytes<S>(s);
  const T* bias = static_cast<const T*>(a.bias);
  if constexpr (sizeof(S) == 2) {
    for (int64_t i = 0; a.bias && i < s.k; ++i) wide_bias[i] = from_storage(static_cast<const S*>(a.bias)[i]);
    bias = a.bias ? wide_bias : nullptr;
  }
  for (int64_t group = 0; group < s.groups; ++group) {
    const Gather<S> gather = forward_gather(s, x, group, taps);
    const S* w = static_cast<const S*>(a.w) + group * extent.n * extent.k;
    S* y = static_cast<S*>(a.y) + group * extent.n;
    gathered_product<Shape>(
        context, extent, gather, bias ? bias + group * extent.n : nullptr, a.activation, false, workspace,
        [&](int64_t first, int64_t columns, int64_t p, int64_t depth, T* dst) {
          each_panel<Shape>(first, columns, depth, dst, [&](int64_t j, int n, T* panel) {
            pack_transpose(w + j * extent.k + p, extent.k, depth, n, Shape::kNr, panel);
          });
        },
        [&](int64_t i) { return y + i * s.k; });
  }
}

Status conv2d(const Conv2dArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) {
    with_tile<S>(a.shape.k / a.shape.groups, [&]<class Shape>(Shape) { forward<S, Shape>(a, context); });
  });
  return Status::ok;
}

// --------------------------------------------------------------------------------------------------- input gradient

// Any phase's depth may be cut differently, so the workspace is for the longest block.
size_t input_workspace(const Conv2dBackwardInputArgs& a, int threads) {
  return with_sums(a.dtype, a.dx_dtype, [&]<class S, class O>(S, O) -> size_t {
    const Extent e = input_extent(a.shape);
    const int64_t length = (a.shape.groups == 1 ? a.shape.s : 1) * (a.shape.k / a.shape.groups);
    return with_tile<S>(e.n, [&]<class Shape>(Shape) -> size_t {
      const int64_t edges = edge_elements<Shape>(length) * threads * static_cast<int64_t>(sizeof(S));
      return input_padding(a.shape).bytes(sizeof(S)) + 2 * tap_bytes(a.shape) + edges + product_workspace<Shape, O>(e, threads);
    });
  });
}

template <class S, class O, class Shape>
void backward_input_phase(const Conv2dBackwardInputArgs& a, Context& context, const S* dy, const Padding& padding, int64_t phase_y,
                          int64_t phase_x) {
  using T = typename Shape::Vector::T;
  ConvShape s = a.shape;
  const int64_t kg = s.k / s.groups, cg = s.c / s.groups;
  char* room = static_cast<char*>(context.workspace) + padding.bytes(sizeof(S));
  Tap* taps = reinterpret_cast<Tap*>(room);
  int64_t* kernel_at = reinterpret_cast<int64_t*>(room + tap_bytes(s));
  void* workspace = room + 2 * tap_bytes(s);
  if (padding.used) {
    s.p = padding.rows;
    s.q = padding.columns;
  }
  int64_t count = phase_taps(s, phase_y, phase_x, taps, kernel_at);
  for (int64_t t = 0; padding.used && t < count; ++t) {
    taps[t].y += padding.top;
    taps[t].x += padding.left;
    taps[t].offset += (padding.top * s.q + padding.left) * s.k;
  }
  if (count == 0) {  // a stride beyond the kernel leaves these pixels out
    if (!a.accumulate) zero_phase<O>(a, context, phase_y, phase_x);
    return;
  }
  const int64_t rows = phase_rows(s.h, s.stride[0], phase_y), columns = phase_rows(s.w, s.stride[1], phase_x);
  const Extent extent{s.n * rows * columns, cg, count * kg};
  const int64_t width = merge_taps(s, taps, &count);
  for (int64_t group = 0; group < s.groups; ++group) {
    const Gather<S> gather{dy + group * kg, s.p, s.q, s.k, rows, columns, {1, 1}, kg, width,
                           taps, count};
    const S* w = static_cast<const S*>(a.w) + group * kg * s.r * s.s * cg;
    O* dx = static_cast<O*>(a.dx) + group * cg;
    gathered_product<Shape>(
        context, extent, gather, nullptr, Activation::none, a.accumulate, workspace,
        [&](int64_t first, int64_t n, int64_t p, int64_t depth, T* dst) {
          each_panel<Shape>(first, n, depth, dst, [&](int64_t j, int there, T* panel) {
            for (int64_t e = p; e < p + depth; ++e, panel += Shape::kNr)
              pack_copy(w + (e % kg * s.r * s.s + kernel_at[e / kg]) * cg + j, 0, 1, there, Shape::kNr, panel);
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
    const Padding padding = input_padding(a.shape);
    const S* dy = padding.fill(context, static_cast<const S*>(a.dy), context.workspace);
    with_tile<S>(a.shape.c / a.shape.groups, [&]<class Shape>(Shape) {
      for (int64_t y = 0; y < min_of(a.shape.stride[0], a.shape.h); ++y)
        for (int64_t x = 0; x < min_of(a.shape.stride[1], a.shape.w); ++x)
          backward_input_phase<S, O, Shape>(a, context, dy, padding, y, x);
    });
  });
  return Status::ok;
}

// -------------------------------------------------------------------------------------------------- weight gradient

bool weight_takes(const Conv2dBackwardWeightArgs& a) { return takes_sums(a.dtype, a.dw_dtype); }
size_t weight_workspace(const Conv2dBackwardWeightArgs& a, int threads) {
  return with_sums(a.dtype, a.dw_dtype, [&]<class S, class O>(S, O) -> size_t {
    using T = Compute<S>;
    const Extent e = weight_extent(a.shape);
    const int64_t parts = weight_parts(a.shape);
    const size_t before = forward_padding(a.shape).bytes(sizeof(S)) + tap_bytes(a.shape);
    if (parts == 1) return before + product_workspace<Tile<Vec<S>>, O>(e, threads);
    return before + round_up(parts * e.m * e.n * static_cast<int64_t>(sizeof(T)), 64) +
           threads * round_up(product_workspace<Tile<Vec<S>>, T>(e, 1), 64);
  });
}

// Pixels [first, first + depth) of one group, and columns [j0, j0 + columns) of its filters, into out (m, columns), rows n apart.
template <class S>
struct WeightPiece {
  const Gather<S>& gather;
  const S* dy;  // (pixels, k), first channel of the group
  int64_t k, first, j0;

  // Rows of the gathered picture as panels of B. The parts of a panel's rows that lie together are the same for all pixels inside.
  template <class Shape, class T>
  void pack(int64_t j, int64_t columns, int64_t p, int64_t depth, T* dst) const {
    const int64_t length = gather.tap_length();
    constexpr int64_t kPixels = 64;
    typename Gather<S>::Origin origins[kPixels];
    auto at = gather.place(first + p);
    for (int64_t e0 = 0; e0 < depth; e0 += kPixels) {
      const int64_t pixels = min_of(depth - e0, kPixels);
      for (int64_t e = 0; e < pixels; ++e, gather.advance(at)) origins[e] = gather.origin(at);
      each_panel<Shape>(j0 + j, columns, depth, dst, [&](int64_t begin, int width, T* panel) {
        T* row = panel + e0 * Shape::kNr;
        int64_t offsets[Shape::kNr];
        int counts[Shape::kNr], parts = 0;
        for (int64_t at_once, from = begin; from < begin + width; from += at_once) {
          const int64_t tap = from / length, within = from - tap * length;
          at_once = min_of(length - within, begin + width - from);
          offsets[parts] = gather.taps[tap].offset + within;
          counts[parts++] = static_cast<int>(at_once);
        }
        for (int64_t e = 0; e < pixels; ++e, row += Shape::kNr) {
          const auto& origin = origins[e];
          if (!origin.inside) {
            gather.copy(origin, begin, begin + width, row);
          } else if (counts[0] == Shape::kNr) {
            for (int v = 0; v < Shape::kNr; v += Shape::Vector::W)
              Shape::Vector::load(origin.pixel + offsets[0] + v).store(row + v);
          } else {
            T* to = row;
            for (int part = 0; part < parts; to += counts[part++]) copy_run(origin.pixel + offsets[part], counts[part], to);
          }
          for (int c = width; c < Shape::kNr; ++c) row[c] = 0;
        }
      });
    }
  }

  template <class O>
  void multiply(Context& context, const Extent& extent, int64_t n, O* out, bool accumulate, void* workspace, bool alone) const {
    using V = Vec<S>;
    using T = typename V::T;
    blocked_product<Tile<V>, LayoutA::interleaved>(
        context, extent, Epilogue<T>{T{1}, nullptr, Activation::none, accumulate}, workspace, alone,
        [&](int64_t i, int64_t rows, int64_t p, int64_t depth, T* dst, int) {
          each_row_panel_slice<Tile<V>>(i, rows, depth, dst, [&](int64_t row, int count, int64_t q, int64_t pixels, T* panel) {
            pack_interleaved<V>(dy + (first + p + q) * k + row, k, pixels, count, extent.m - row, panel);
          });
        },
        [&](int64_t j, int64_t columns, int64_t p, int64_t depth, T* dst) { pack<Tile<V>>(j, columns, p, depth, dst); },
        [&](int64_t i) { return out + i * n; });
  }
};

// Parts of the pixels are too few to keep all threads busy to the end: their columns are cut, too.
template <class S>
int64_t weight_columns(const Extent& e, int64_t parts, int threads) {
  constexpr int64_t kLeast = 4 * Tile<Vec<S>>::kNr;
  const int64_t cuts = threads == 1 ? 1 : ceil_div(8 * int64_t{threads}, parts);
  return round_up(max_of(ceil_div(e.n, cuts), kLeast), Tile<Vec<S>>::kNr);
}

template <class S, class O>
void backward_weight(const Conv2dBackwardWeightArgs& a, Context& context) {
  using V = Vec<S>;
  using T = typename V::T;
  const Padding padding = forward_padding(a.shape);
  const ConvShape s = padded_shape(a.shape, padding);
  const S* x = padding.fill(context, static_cast<const S*>(a.x), context.workspace);
  const Extent extent = weight_extent(s);
  const int64_t parts = weight_parts(s), size = extent.m * extent.n;
  char* room = static_cast<char*>(context.workspace) + padding.bytes(sizeof(S));
  Tap* taps = reinterpret_cast<Tap*>(room);
  char* rest = room + tap_bytes(s);
  for (int64_t group = 0; group < s.groups; ++group) {
    const Gather<S> gather = forward_gather(s, x, group, taps);
    const S* dy = static_cast<const S*>(a.dy) + group * extent.m;
    O* dw = static_cast<O*>(a.dw) + group * size;
    if (parts == 1) {
      WeightPiece<S>{gather, dy, s.k, 0, 0}.multiply(context, extent, extent.n, dw, a.accumulate, rest, false);
      continue;
    }
    T* partial = reinterpret_cast<T*>(rest);
    char* scratch = rest + round_up(parts * size * static_cast<int64_t>(sizeof(T)), 64);
    const int64_t each = round_up(product_workspace<Tile<V>, T>(extent, 1), 64);
    const int64_t columns = weight_columns<S>(extent, parts, context.threads), cuts = ceil_div(extent.n, columns);
    parallel_chunks(context, parts * cuts, [&](int64_t chunk, int thread) {
      const int64_t i = chunk / cuts, j0 = chunk % cuts * columns, first = extent.k * i / parts, last = extent.k * (i + 1) / parts;
      const Extent piece{extent.m, min_of(columns, extent.n - j0), last - first};
      WeightPiece<S>{gather, dy, s.k, first, j0}.multiply(context, piece, extent.n, partial + i * size + j0, false,
                                                          scratch + thread * each, true);
    });
    add_parts(context, partial, parts, size, dw, a.accumulate);
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
