// Matrix products of every floating dtype: float32 and float64 compute in themselves, the halves in float32.
#include "cpu/kernels/gemm_core.inl.h"
#include "cpu/kernels/families.h"

namespace smelt {
namespace {

// Products that are small each but many: whole ones go to threads.
bool by_batch(const GemmArgs& a) { return a.batch > 1 && 2.0 * a.m * a.n * a.k < 4e7; }

template <class S>
size_t one_workspace(const GemmArgs& a, int threads) {
  const size_t product = product_workspace<Vec<S>>({a.m, a.n, a.k}, threads);
  const bool half = sizeof(S) == 2;  // c is kept in float32 until it is finished, and so is the bias
  return round_up(product, 64) + (half ? round_up(static_cast<int64_t>(a.m * a.n + a.n) * 4, 64) : 0);
}

size_t gemm_workspace(const GemmArgs& a, int threads) {
  return with_floating(a.dtype, [&]<class S>(S) {
    return by_batch(a) ? threads * one_workspace<S>(a, 1) : one_workspace<S>(a, threads);
  });
}

template <class S>
void product(const GemmArgs& a, Context& context, int64_t index, void* workspace, bool alone) {
  using V = Vec<S>;
  using T = typename V::T;
  constexpr bool kHalf = sizeof(S) == 2;
  const S* pa = static_cast<const S*>(a.a) + index * a.batch_stride_a;
  const S* pb = static_cast<const S*>(a.b) + index * a.batch_stride_b;
  S* pc = static_cast<S*>(a.c) + index * a.batch_stride_c;
  const S* bias = static_cast<const S*>(a.bias);

  T* wide_c = nullptr;
  const T* wide_bias = nullptr;
  if constexpr (kHalf) {
    wide_c = reinterpret_cast<T*>(static_cast<char*>(workspace) +
                                  round_up(product_workspace<V>({a.m, a.n, a.k}, alone ? 1 : context.threads), 64));
    T* converted = wide_c + a.m * a.n;
    for (int64_t j = 0; bias && j < a.n; ++j) converted[j] = from_storage(bias[j]);
    if (bias) wide_bias = converted;
  } else {
    wide_bias = bias;
  }
  const auto row = [&](int64_t i) -> T* {
    if constexpr (kHalf)
      return wide_c + i * a.n;
    else
      return pc + i * a.ldc;
  };
  const auto pack_b = [&](int64_t first, int64_t columns, int64_t p, int64_t depth, T* dst) {
    constexpr int kNr = Tile<V>::kNr;
    if (a.transpose_b) {
      each_panel<V>(first, columns, depth, dst, [&](int64_t j, int count, T* panel) {
        pack_transpose(pb + j * a.ldb + p, a.ldb, depth, count, kNr, panel);
      });
      return;
    }
    // Some rows of all panels before the next rows: what lies together is read together.
    constexpr int64_t kRows = 8;
    for (int64_t r = 0; r < depth; r += kRows)
      each_panel<V>(first, columns, depth, dst, [&](int64_t j, int count, T* panel) {
        pack_copy(pb + (p + r) * a.ldb + j, a.ldb, min_of(kRows, depth - r), count, kNr, panel + r * kNr);
      });
  };
  const Extent extent{a.m, a.n, a.k};
  const T alpha = static_cast<T>(a.alpha);
  const bool accumulate = a.accumulate && !kHalf;
  if (a.transpose_a) {
    const auto pack_a = [&](int64_t i, int64_t rows, int64_t p, int64_t depth, T* dst, int) {
      each_row_panel_slice<V>(i, rows, depth, dst, [&](int64_t row, int count, int64_t q, int64_t length, T* panel) {
        pack_interleaved<V>(pa + (p + q) * a.lda + row, a.lda, length, count, a.m - row, panel);
      });
    };
    blocked_product<V, LayoutA::interleaved>(context, extent, alpha, wide_bias, a.activation, accumulate, workspace,
                                             alone, pack_a, pack_b, row);
  } else {
    const auto pack_a = [&](int64_t i, int64_t rows, int64_t p, int64_t depth, T* dst, int) {
      each_row_panel<V>(i, rows, dst, [&](int64_t row, int count, T* panel, int) {
        pack_rows(pa + row * a.lda + p, a.lda, depth, count, Tile<V>::kPitch, panel);
      });
    };
    blocked_product<V, LayoutA::rows>(context, extent, alpha, wide_bias, a.activation, accumulate, workspace, alone,
                                      pack_a, pack_b, row);
  }
  if constexpr (kHalf) {
    for (int64_t i = 0; i < a.m; ++i)
      each_vector<V>(a.n, [&](int64_t j, int lanes) {
        V v = load<V>(wide_c + i * a.n + j, lanes);
        if (a.accumulate) v = load<V>(pc + i * a.ldc + j, lanes) + v;
        store(pc + i * a.ldc + j, v, lanes);
      });
  }
}

Status gemm(const GemmArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) {
    if (!by_batch(a)) {
      for (int64_t i = 0; i < a.batch; ++i) product<S>(a, context, i, context.workspace, false);
      return;
    }
    const size_t each = one_workspace<S>(a, 1);
    parallel_chunks(context, a.batch, [&](int64_t i, int thread) {
      product<S>(a, context, i, static_cast<char*>(context.workspace) + thread * each, true);
    });
  });
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_gemm(KernelTable& table) {
  add_kernel<GemmArgs, gemm, floating_only, gemm_workspace>(table, SMELT_KERNEL_NAME("gemm"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
