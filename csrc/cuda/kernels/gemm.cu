// Matrix products of arrays in memory.
#include "cuda/common/gemm.cuh"

namespace smelt {
namespace {

template <class S, class C, bool deep_a, bool deep_b>
Status gemm_run(const GemmArgs& g, Context& context) {
  const MatrixView<S, deep_a> a{static_cast<const S*>(g.a), g.m, g.k, g.lda, g.batch_stride_a};
  const MatrixView<S, deep_b> b{static_cast<const S*>(g.b), g.n, g.k, g.ldb, g.batch_stride_b};
  const Epilogue<S, C> epilogue{static_cast<C*>(g.c), static_cast<const S*>(g.bias), static_cast<const C*>(g.residual),
                                g.ldc,                g.batch_stride_c,              0,
                                g.alpha,              g.activation,                  g.accumulate};
  const auto whole = [](const void* p, int64_t ld, int64_t stride) {
    return aligned16(p) && ld % Stage<S>::kChunk == 0 && stride % Stage<S>::kChunk == 0;
  };
  const bool wide = whole(g.a, g.lda, g.batch_stride_a) && whole(g.b, g.ldb, g.batch_stride_b);
  return multiply(context, g.dtype, a, b, epilogue, g.m, g.n, g.k, g.batch, wide);
}
template <class S, class C>
Status gemm_run(const GemmArgs& g, Context& context) {
  if (g.transpose_a) return g.transpose_b ? gemm_run<S, C, false, true>(g, context) : gemm_run<S, C, false, false>(g, context);
  return g.transpose_b ? gemm_run<S, C, true, true>(g, context) : gemm_run<S, C, true, false>(g, context);
}

// Of what was written to c, in the dtype of the sums.
template <class C>
__global__ void sum_columns(GemmArgs g) {
  using T = Compute<C>;
  const int64_t column = grid_thread();
  if (column >= g.n) return;
  T sum = 0;
  for (int64_t row = 0; row < g.m; ++row) sum += from_storage(static_cast<const C*>(g.c)[row * g.ldc + column]);
  static_cast<T*>(g.column_sums)[column] = sum;
}

Status gemm(const GemmArgs& g, Context& context) noexcept {
  return with_sums(g.dtype, g.c_dtype, [&]<class S, class C>(S, C) {
    const Status status = gemm_run<S, C>(g, context);
    if (status != Status::ok || !g.column_sums || g.n == 0) return status;
    return cuda::launch(context, sum_columns<C>, cuda::blocks_for(g.n, kThreads), cuda::size3(kThreads), 0, g);
  });
}
bool gemm_supports(const GemmArgs& g) { return takes_sums(g.dtype, g.c_dtype); }
size_t gemm_workspace(const GemmArgs& g) { return multiply_workspace(g.dtype, g.m, g.n, g.k, g.batch); }

}  // namespace

void cuda::register_gemm(const Taker& taker) { add_kernel<GemmArgs, gemm, gemm_supports, gemm_workspace>(taker, "sm80_gemm"); }

}  // namespace smelt
