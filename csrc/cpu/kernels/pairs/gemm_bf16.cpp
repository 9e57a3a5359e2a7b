// Matrix products of bfloat16 in instructions that multiply pairs: AVX512_BF16 and AMX. What differs from those of float32 is how
// operands become pairs. These instructions take subnormal numbers as 0.
#include "cpu/kernels/families.h"
#include "cpu/kernels/gemm_skinny.inl.h"
#include "cpu/kernels/pairs/pack.inl.h"

namespace smelt {
namespace {

// One panel of A: `pairs` of the depth from src on.
template <class Shape>
void pack_panel(const GemmArgs& a, const bfloat16* src, int64_t elements, int64_t pairs, int count, float* panel) {
  if constexpr (Shape::kLayout == LayoutA::tiles)
    (a.transpose_a ? pack_zipped_tiles : pack_tiles)(src, a.lda, elements, pairs, count, panel);
  else if (a.transpose_a)
    pack_zipped<kMr>(src, a.lda, elements, pairs, count, panel);
  else
    for (int i = 0; i < count; ++i) copy_pairs(src + i * a.lda, elements, pairs, panel + i * Shape::kPitch);
}

Extent extent_of(const GemmArgs& a) { return {a.m, a.n, round_up(ceil_div(a.k, 2), PairTile::kDepthStep)}; }

// Very few rows or columns are left to the kernel below: packing would cost more than the product.
bool takes(const GemmArgs& a) {
  return a.dtype == DType::bfloat16 && takes_sums(a.dtype, a.c_dtype) && !by_rows(a) && !by_dots(a);
}

size_t one_workspace(const GemmArgs& a, int threads) {
  const size_t product = a.c_dtype == DType::float32 ? product_workspace<PairTile, float>(extent_of(a), threads)
                                                     : product_workspace<PairTile, bfloat16>(extent_of(a), threads);
  return round_up(product, 64) + epilogue_room<PairTile, bfloat16>(a);
}
size_t workspace(const GemmArgs& a, int threads) { return by_batch(a) ? threads * one_workspace(a, 1) : one_workspace(a, threads); }

template <LayoutA layout, class C>
void product(const GemmArgs& a, Context& context, int64_t index, void* memory, bool alone) {
  const auto* pa = static_cast<const bfloat16*>(a.a) + index * a.batch_stride_a;
  const auto* pb = static_cast<const bfloat16*>(a.b) + index * a.batch_stride_b;
  C* const pc = static_cast<C*>(a.c) + index * a.batch_stride_c;
  const Epilogue<float> epilogue = epilogue_of<PairTile, bfloat16>(a, &memory);
  const auto pack_a = [&](int64_t i, int64_t rows, int64_t p, int64_t depth, float* dst, int) {
    each_row_panel<PairTile>(i, rows, dst, [&](int64_t first, int count, float* panel, int) {
      const bfloat16* src = a.transpose_a ? pa + 2 * p * a.lda + first : pa + first * a.lda + 2 * p;
      pack_panel<PairTile>(a, src, a.k - 2 * p, depth, count, panel);
    });
  };
  const auto pack_b = [&](int64_t first, int64_t columns, int64_t p, int64_t depth, float* dst) {
    if (a.transpose_b) {
      each_panel<PairTile>(first, columns, depth, dst, [&](int64_t j, int count, float* panel) {
        pack_transposed<kNr>(pb + j * a.ldb + 2 * p, a.ldb, a.k - 2 * p, depth, count, panel);
      });
      return;
    }
    constexpr int64_t kRows = 8;  // some of all panels before the next ones: what lies together is read together
    for (int64_t r = 0; r < depth; r += kRows)
      each_panel<PairTile>(first, columns, depth, dst, [&](int64_t j, int count, float* panel) {
        pack_zipped<kNr>(pb + 2 * (p + r) * a.ldb + j, a.ldb, a.k - 2 * (p + r), min_of(kRows, depth - r), count, panel + r * kNr);
      });
  };
  blocked_product<PairTile, layout>(context, extent_of(a), epilogue, memory, alone, pack_a, pack_b,
                                    [&](int64_t i) { return pc + i * a.ldc; });
}

template <LayoutA layout>
void run(const GemmArgs& a, Context& context) {
  each_product(a, context, one_workspace(a, 1), [&](Context& own, int64_t index, void* memory, bool alone) {
    if (a.c_dtype == DType::float32)
      product<layout, float>(a, own, index, memory, alone);
    else
      product<layout, bfloat16>(a, own, index, memory, alone);
  });
}

Status gemm(const GemmArgs& a, Context& context) noexcept {
  a.transpose_a ? run<PairTile::kLayoutTransposed>(a, context) : run<PairTile::kLayout>(a, context);
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_gemm(KernelTable& table) {
  add_kernel<GemmArgs, gemm, takes, workspace>(table, SMELT_KERNEL_NAME("gemm"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
