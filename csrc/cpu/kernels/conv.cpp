// Convolutions of any kind and format as matrix products of float32 and float64.
#include "cpu/kernels/conv_gather.inl.h"
#include "cpu/kernels/families.h"

namespace smelt {
namespace {

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

// Any phase's depth may be cut differently, so the workspace is for the longest block.
size_t input_workspace(const Conv2dBackwardInputArgs& a, int threads) {
  return with_sums(a.dtype, a.dx_dtype, [&]<class S, class O>(S, O) -> size_t {
    const Extent e = input_extent(a.shape);
    const int64_t edges = edge_elements<S>(a.shape.k / a.shape.groups) * threads * static_cast<int64_t>(sizeof(S));
    return 2 * tap_bytes(a.shape) + edges + product_workspace<Tile<Vec<S>>, O>(e, threads);
  });
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
  const int64_t count = phase_taps(s, phase_y, phase_x, taps, kernel_at);
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
