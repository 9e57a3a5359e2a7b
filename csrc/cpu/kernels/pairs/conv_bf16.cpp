// Convolutions of bfloat16 in instructions that multiply pairs: AVX512_BF16 and AMX. Rows are gathered from the picture as they
// are, two channels to a pair; in the weight gradient, whose depth are the pixels, two pixels are zipped.
// These instructions take subnormal numbers as 0.
#include "cpu/kernels/conv_gather.inl.h"
#include "cpu/kernels/families.h"
#include "cpu/kernels/pairs/pack.inl.h"

namespace smelt {
namespace {

Extent in_pairs(Extent e) {
  e.k = round_up(ceil_div(e.k, 2), PairTile::kDepthStep);
  return e;
}
// Where every channel has a filter of its own there is no product, and pictures of few channels have kernels of their own.
bool takes_shape(const ConvShape& s) { return s.groups == 1 ? s.c > 4 : s.c / s.groups > 1 || s.k / s.groups > 1; }

// Rows [first, first + count) of the picture's matrix from element `begin` on, zeros behind element `total`.
template <class Shape>
void gather_panel(const Gather<bfloat16>& gather, int64_t first, int count, int64_t begin, int64_t total, int64_t pairs, float* panel) {
  const int64_t end = max_of(begin, min_of(begin + 2 * pairs, total));
  const auto row = [&](int i, bfloat16* dst) {
    gather.copy(gather.origin(first + i), begin, end, dst);
    for (int64_t e = end - begin; e < 2 * pairs; ++e) dst[e] = bfloat16{};
  };
  if constexpr (Shape::kLayout == LayoutA::tiles) {
    alignas(64) bfloat16 one[2 * kBlockK];
    for (int i = 0; i < kMr; ++i) {
      i < count ? row(i, one) : static_cast<void>(__builtin_memset(one, 0, sizeof(one)));
      for (int64_t p = 0; p < pairs; p += 16) __builtin_memcpy(panel + (p / 16 * kMr + i) * 16, one + 2 * p, 64);
    }
  } else {
    for (int i = 0; i < count; ++i) row(i, reinterpret_cast<bfloat16*>(panel + i * Shape::kPitch));
  }
}

// A product whose A is gathered from a picture; extent.k are the elements of a row.
template <class PackB, class Row>
void gathered_product(Context& context, const Extent& extent, const Gather<bfloat16>& gather, const Epilogue<float>& epilogue,
                      void* workspace, const PackB& pack_b, const Row& row) {
  blocked_product<PairTile, PairTile::kLayout>(
      context, in_pairs(extent), epilogue, workspace, false,
      [&](int64_t i, int64_t rows, int64_t p, int64_t depth, float* dst, int) {
        each_row_panel<PairTile>(i, rows, dst, [&](int64_t first, int count, float* panel, int) {
          gather_panel<PairTile>(gather, first, count, 2 * p, extent.k, depth, panel);
        });
      },
      pack_b, row);
}

// ---------------------------------------------------------------------------------------------------------- forward

int64_t bias_bytes(const ConvShape& s) { return round_up(s.k * static_cast<int64_t>(sizeof(float)), 64); }

bool forward_takes(const Conv2dArgs& a) { return a.dtype == DType::bfloat16 && takes_shape(a.shape); }
size_t forward_workspace(const Conv2dArgs& a, int threads) {
  return tap_bytes(a.shape) + bias_bytes(a.shape) +
         product_workspace<PairTile, bfloat16>(in_pairs(forward_extent(a.shape)), threads);
}

Status conv2d(const Conv2dArgs& a, Context& context) noexcept {
  const ConvShape& s = a.shape;
  const Extent extent = forward_extent(s);
  Tap* taps = static_cast<Tap*>(context.workspace);
  float* bias = reinterpret_cast<float*>(static_cast<char*>(context.workspace) + tap_bytes(s));
  void* workspace = reinterpret_cast<char*>(bias) + bias_bytes(s);
  for (int64_t i = 0; a.bias && i < s.k; ++i) bias[i] = from_storage(static_cast<const bfloat16*>(a.bias)[i]);
  for (int64_t group = 0; group < s.groups; ++group) {
    const auto* w = static_cast<const bfloat16*>(a.w) + group * extent.n * extent.k;
    bfloat16* y = static_cast<bfloat16*>(a.y) + group * extent.n;
    gathered_product(
        context, extent, forward_gather(s, static_cast<const bfloat16*>(a.x), group, taps),
        Epilogue<float>{1, a.bias ? bias + group * extent.n : nullptr, a.activation}, workspace,
        [&](int64_t first, int64_t columns, int64_t p, int64_t depth, float* dst) {
          each_panel<PairTile>(first, columns, depth, dst, [&](int64_t j, int count, float* panel) {
            pack_transposed<kNr>(w + j * extent.k + 2 * p, extent.k, extent.k - 2 * p, depth, count, panel);
          });
        },
        [&](int64_t i) { return y + i * s.k; });
  }
  return Status::ok;
}

// --------------------------------------------------------------------------------------------------- input gradient

bool input_takes(const Conv2dBackwardInputArgs& a) {
  return a.dtype == DType::bfloat16 && takes_sums(a.dtype, a.dx_dtype) && takes_shape(a.shape);
}
size_t input_workspace(const Conv2dBackwardInputArgs& a, int threads) {
  const Extent e = in_pairs(input_extent(a.shape));
  return 2 * tap_bytes(a.shape) + (a.dx_dtype == DType::float32 ? product_workspace<PairTile, float>(e, threads)
                                                                : product_workspace<PairTile, bfloat16>(e, threads));
}

template <class O>
void backward_input_phase(const Conv2dBackwardInputArgs& a, Context& context, int64_t phase_y, int64_t phase_x) {
  const ConvShape& s = a.shape;
  const int64_t kg = s.k / s.groups, cg = s.c / s.groups;
  Tap* taps = static_cast<Tap*>(context.workspace);
  int64_t* kernel_at = reinterpret_cast<int64_t*>(static_cast<char*>(context.workspace) + tap_bytes(s));
  void* workspace = static_cast<char*>(context.workspace) + 2 * tap_bytes(s);
  const int64_t count = phase_taps(s, phase_y, phase_x, taps, kernel_at);
  if (count == 0) {  // a stride beyond the kernel leaves these pixels out
    if (!a.accumulate) zero_phase<O>(a, context, phase_y, phase_x);
    return;
  }
  const int64_t rows = phase_rows(s.h, s.stride[0], phase_y), columns = phase_rows(s.w, s.stride[1], phase_x);
  const Extent extent{s.n * rows * columns, cg, count * kg};
  for (int64_t group = 0; group < s.groups; ++group) {
    const Gather<bfloat16> gather{static_cast<const bfloat16*>(a.dy) + group * kg, s.p, s.q, s.k, rows, columns, {1, 1}, kg, 1,
                                  taps, count};
    const auto* w = static_cast<const bfloat16*>(a.w) + group * kg * s.r * s.s * cg;
    O* dx = static_cast<O*>(a.dx) + group * cg;
    const auto row_of_w = [&](int64_t e) { return e < extent.k ? w + (e % kg * s.r * s.s + kernel_at[e / kg]) * cg : nullptr; };
    gathered_product(
        context, extent, gather, Epilogue<float>{1, nullptr, Activation::none, a.accumulate}, workspace,
        [&](int64_t first, int64_t n, int64_t p, int64_t depth, float* dst) {
          for (int64_t e = 0; e < depth; ++e) {
            const bfloat16 *even = row_of_w(2 * (p + e)), *odd = row_of_w(2 * (p + e) + 1);
            each_panel<PairTile>(first, n, depth, dst, [&](int64_t j, int width, float* panel) {
              zip_row<kNr>(even ? even + j : nullptr, odd ? odd + j : nullptr, width, panel + e * kNr);
            });
          }
        },
        [&](int64_t i) {
          const int64_t n = i / (rows * columns), in_image = i % (rows * columns);
          const int64_t y = phase_y + in_image / columns * s.stride[0], x = phase_x + in_image % columns * s.stride[1];
          return dx + ((n * s.h + y) * s.w + x) * s.c;
        });
  }
}

Status conv2d_backward_input(const Conv2dBackwardInputArgs& a, Context& context) noexcept {
  for (int64_t y = 0; y < min_of(a.shape.stride[0], a.shape.h); ++y)
    for (int64_t x = 0; x < min_of(a.shape.stride[1], a.shape.w); ++x)
      a.dx_dtype == DType::float32 ? backward_input_phase<float>(a, context, y, x) : backward_input_phase<bfloat16>(a, context, y, x);
  return Status::ok;
}

// -------------------------------------------------------------------------------------------------- weight gradient

bool weight_takes(const Conv2dBackwardWeightArgs& a) {
  return a.dtype == DType::bfloat16 && takes_sums(a.dtype, a.dw_dtype) && takes_shape(a.shape);
}
size_t weight_workspace(const Conv2dBackwardWeightArgs& a, int threads) {
  const Extent e = in_pairs(weight_extent(a.shape));
  const int64_t parts = weight_parts(a.shape);
  const size_t taps = tap_bytes(a.shape);
  if (parts == 1)
    return taps + (a.dw_dtype == DType::float32 ? product_workspace<PairTile, float>(e, threads)
                                                : product_workspace<PairTile, bfloat16>(e, threads));
  return taps + round_up(parts * e.m * e.n * static_cast<int64_t>(sizeof(float)), 64) +
         threads * round_up(product_workspace<PairTile, float>(e, 1), 64);
}

// Pixels [first, last) of one group into out (m, n).
template <class O>
void weight_product(const Conv2dBackwardWeightArgs& a, Context& context, const Gather<bfloat16>& gather, int64_t group, int64_t first,
                    int64_t last, O* out, bool accumulate, void* workspace, bool alone) {
  const int64_t k = a.shape.k;
  Extent extent = weight_extent(a.shape);
  extent.k = last - first;
  const bfloat16* dy = static_cast<const bfloat16*>(a.dy) + group * extent.m + first * k;
  blocked_product<PairTile, PairTile::kLayoutTransposed>(
      context, in_pairs(extent), Epilogue<float>{1, nullptr, Activation::none, accumulate}, workspace, alone,
      [&](int64_t i, int64_t rows, int64_t p, int64_t depth, float* dst, int) {
        each_row_panel<PairTile>(i, rows, dst, [&](int64_t row, int count, float* panel, int) {
          const bfloat16* src = dy + 2 * p * k + row;
          if constexpr (PairTile::kLayout == LayoutA::tiles)
            pack_zipped_tiles(src, k, extent.k - 2 * p, depth, count, panel);
          else
            pack_zipped<kMr>(src, k, extent.k - 2 * p, depth, count, panel);
        });
      },
      [&](int64_t j0, int64_t columns, int64_t p, int64_t depth, float* dst) {
        bfloat16 pixels[2][kBlockN];
        for (int64_t e = 0; e < depth; ++e) {
          const int64_t pixel = 2 * (p + e), there = max_of(int64_t{0}, min_of(int64_t{2}, extent.k - pixel));
          for (int64_t i = 0; i < there; ++i) gather.copy(gather.origin(first + pixel + i), j0, j0 + columns, pixels[i]);
          each_panel<PairTile>(j0, columns, depth, dst, [&](int64_t j, int width, float* panel) {
            zip_row<kNr>(there > 0 ? pixels[0] + j - j0 : nullptr, there > 1 ? pixels[1] + j - j0 : nullptr, width, panel + e * kNr);
          });
        }
      },
      [&](int64_t i) { return out + i * extent.n; });
}

template <class O>
void backward_weight(const Conv2dBackwardWeightArgs& a, Context& context) {
  const ConvShape& s = a.shape;
  const Extent extent = weight_extent(s);
  const int64_t parts = weight_parts(s), size = extent.m * extent.n;
  Tap* taps = static_cast<Tap*>(context.workspace);
  char* rest = static_cast<char*>(context.workspace) + tap_bytes(s);
  for (int64_t group = 0; group < s.groups; ++group) {
    const Gather<bfloat16> gather = forward_gather(s, static_cast<const bfloat16*>(a.x), group, taps);
    O* dw = static_cast<O*>(a.dw) + group * size;
    if (parts == 1) {
      weight_product(a, context, gather, group, 0, extent.k, dw, a.accumulate, rest, false);
      continue;
    }
    float* partial = reinterpret_cast<float*>(rest);
    char* scratch = rest + round_up(parts * size * static_cast<int64_t>(sizeof(float)), 64);
    const int64_t each = round_up(product_workspace<PairTile, float>(in_pairs(extent), 1), 64);
    parallel_chunks(context, parts, [&](int64_t i, int thread) {
      weight_product(a, context, gather, group, extent.k * i / parts, extent.k * (i + 1) / parts, partial + i * size, false,
                     scratch + thread * each, true);
    });
    add_parts(context, partial, parts, size, dw, a.accumulate);
  }
}

Status conv2d_backward_weight(const Conv2dBackwardWeightArgs& a, Context& context) noexcept {
  a.dw_dtype == DType::float32 ? backward_weight<float>(a, context) : backward_weight<bfloat16>(a, context);
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_conv(KernelTable& table) {
  add_kernel<Conv2dArgs, conv2d, forward_takes, forward_workspace>(table, SMELT_KERNEL_NAME("conv2d_direct"));
  add_kernel<Conv2dBackwardInputArgs, conv2d_backward_input, input_takes, input_workspace>(
      table, SMELT_KERNEL_NAME("conv2d_backward_input_direct"));
  add_kernel<Conv2dBackwardWeightArgs, conv2d_backward_weight, weight_takes, weight_workspace>(
      table, SMELT_KERNEL_NAME("conv2d_backward_weight_direct"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
