// Matrix products of every floating dtype: float32 and float64 compute in themselves, the halves in float32, whose sums
// may also be the result.
#include "cpu/kernels/gemm_skinny.inl.h"
#include "cpu/kernels/families.h"

namespace smelt {
namespace {

// A is read too few times for a copy to pay.
bool takes_columns(const GemmArgs& a) { return a.transpose_a && dtype_size(a.dtype) >= 4 && a.n <= 64; }

bool takes(const GemmArgs& a) { return takes_sums(a.dtype, a.c_dtype); }

template <class S, class C>
size_t one_workspace(const GemmArgs& a, int threads) {
  return round_up(product_workspace<Tile<Vec<S>>, C>({a.m, a.n, a.k}, threads), 64) + epilogue_room<Tile<Vec<S>>, S>(a);
}

size_t gemm_workspace(const GemmArgs& a, int threads) {
  return with_sums(a.dtype, a.c_dtype, [&]<class S, class C>(S, C) {
    return by_batch(a) ? threads * one_workspace<S, C>(a, 1) : one_workspace<S, C>(a, threads);
  });
}

template <class S, class C>
void product(const GemmArgs& a, Context& context, int64_t index, void* workspace, bool alone) {
  using V = Vec<S>;
  using T = typename V::T;
  const S* pa = static_cast<const S*>(a.a) + index * a.batch_stride_a;
  const S* pb = static_cast<const S*>(a.b) + index * a.batch_stride_b;
  C* pc = static_cast<C*>(a.c) + index * a.batch_stride_c;

  const Epilogue<T> epilogue = epilogue_of<Tile<V>, S>(a, &workspace);
  if (by_rows(a)) {
    const auto element = [&](int64_t i, int64_t p) -> T {
      return from_storage(a.transpose_a ? pa[p * a.lda + i] : pa[i * a.lda + p]);
    };
    return row_product<V>(context, {a.m, a.n, a.k}, element, pb, a.ldb, pc, a.ldc, epilogue, alone);
  }
  if (by_direct_tiles(a))
    return direct_product<V>({a.m, a.n, a.k}, a.transpose_a, pa, a.lda, pb, a.ldb, pc, a.ldc, epilogue);
  if (by_dots(a)) {
    return dot_product<V>(context, {a.m, a.n, a.k}, pa, a.lda, pb, a.ldb, pc, a.ldc, epilogue, alone);
  }
  const auto row = [&](int64_t i) { return pc + i * a.ldc; };
  const auto pack_b = [&](int64_t first, int64_t columns, int64_t p, int64_t depth, T* dst) {
    constexpr int kNr = Tile<V>::kNr;
    if (a.transpose_b) {
      each_panel<Tile<V>>(first, columns, depth, dst, [&](int64_t j, int count, T* panel) {
        pack_transpose(pb + j * a.ldb + p, a.ldb, depth, count, kNr, panel);
      });
      return;
    }
    // Some rows of all panels before the next rows: what lies together is read together.
    constexpr int64_t kRows = 8;
    for (int64_t r = 0; r < depth; r += kRows)
      each_panel<Tile<V>>(first, columns, depth, dst, [&](int64_t j, int count, T* panel) {
        pack_copy(pb + (p + r) * a.ldb + j, a.ldb, min_of(kRows, depth - r), count, kNr, panel + r * kNr);
      });
  };
  const Extent extent{a.m, a.n, a.k};
  if (takes_columns(a)) {
    if constexpr (is_real<S>) {
      const auto point = [&](int64_t i, int64_t rows, int64_t p, int64_t depth, T* dst, int) {
        each_row_panel<Tile<V>>(i, rows, dst, [&](int64_t first, int count, T* panel, int) {
          auto* columns = reinterpret_cast<Columns<T>*>(panel);
          const T* source = pa + p * a.lda + first;
          *columns = {source, a.lda};
          if (count == Tile<V>::kMr) return;
          T* const copy = panel + sizeof(Columns<T>) / sizeof(T);  // the last panel: nothing is read beyond the rows
          pack_copy(source, a.lda, depth, count, Tile<V>::kMr, copy);
          *columns = {copy, Tile<V>::kMr};
        });
      };
      blocked_product<Tile<V>, LayoutA::columns>(context, extent, epilogue, workspace, alone, point,
                                           pack_b, row);
    }
  } else if (a.transpose_a) {
    const auto pack_a = [&](int64_t i, int64_t rows, int64_t p, int64_t depth, T* dst, int) {
      each_row_panel_slice<Tile<V>>(i, rows, depth, dst, [&](int64_t first, int count, int64_t q, int64_t length, T* panel) {
        pack_interleaved<V>(pa + (p + q) * a.lda + first, a.lda, length, count, a.m - first, panel);
      });
    };
    blocked_product<Tile<V>, LayoutA::interleaved>(context, extent, epilogue, workspace, alone, pack_a, pack_b, row);
  } else {
    const auto pack_a = [&](int64_t i, int64_t rows, int64_t p, int64_t depth, T* dst, int) {
      each_row_panel<Tile<V>>(i, rows, dst, [&](int64_t first, int count, T* panel, int) {
        pack_rows(pa + first * a.lda + p, a.lda, depth, count, Tile<V>::kPitch, panel);
      });
    };
    blocked_product<Tile<V>, LayoutA::rows>(context, extent, epilogue, workspace, alone,
                                      pack_a, pack_b, row);
  }
}

Status gemm(const GemmArgs& a, Context& context) noexcept {
  with_sums(a.dtype, a.c_dtype, [&]<class S, class C>(S, C) {
    each_product(a, context, one_workspace<S, C>(a, 1), [&](Context& own, int64_t index, void* workspace, bool alone) {
      product<S, C>(a, own, index, workspace, alone);
    });
  });
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_gemm(KernelTable& table) {
  add_kernel<GemmArgs, gemm, takes, gemm_workspace>(table, SMELT_KERNEL_NAME("gemm"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
