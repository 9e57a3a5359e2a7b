// Matrix products for every GPU since sm_80: halves on the tensor cores through mma.sync, fed by copies that run ahead;
// float32 and float64 exactly, by fused multiply-add.
#include "cuda/common/kernel.cuh"
#include "formulas/unary.inl.h"

namespace smelt {
namespace {

// ---------------------------------------------------------------------------------------------------------- epilogue

// What happens to a sum on its way to memory, as on the CPU: alpha, bias, residual and what c had, activation, one rounding.
template <class S, class C>
struct Epilogue {
  C* c;
  const S* bias;
  const C* residual;
  int64_t ldc;
  float alpha;
  Activation activation;
  bool accumulate;

  template <class T>
  SMELT_WORD void write(int64_t row, int64_t column, T sum) const {
    using V = One<T>;
    const int64_t at = row * ldc + column;
    V v = V::set(sum);
    if (alpha != 1) v = v * V::set(static_cast<T>(alpha));
    if (bias) v = v + V::set(static_cast<T>(from_storage(bias[column])));
    if (residual) v = v + V::set(static_cast<T>(from_storage(residual[at])));
    if (accumulate) v = V::set(static_cast<T>(from_storage(c[at]))) + v;
    if (activation != Activation::none) v = activate(activation, v);
    c[at] = to_storage<C>(static_cast<Compute<C>>(v.v));
  }
};

// A block's tile, and its number among the products of a batch.
struct Tiles {
  int64_t rows, columns;
  // Blocks that run together should share operands: tiles are numbered in bands of a few rows.
  SMELT_WORD void place(int64_t number, int64_t* row, int64_t* column) const {
    constexpr int64_t kBand = 8;
    const int64_t band = number / (kBand * columns), first = band * kBand, height = min_of(kBand, rows - first);
    const int64_t within = number - first * columns;
    *row = first + within % height;
    *column = within / height;
  }
};

template <class S, class C>
struct Job {
  const S *a, *b;
  int64_t m, n, k, batch, lda, ldb, stride_a, stride_b, stride_c;
  Tiles tiles;
  Epilogue<S, C> epilogue;
};

template <class S, class C>
Job<S, C> make_job(const GemmArgs& g, int tile_rows, int tile_columns) {
  return {static_cast<const S*>(g.a),
          static_cast<const S*>(g.b),
          g.m,
          g.n,
          g.k,
          g.batch,
          g.lda,
          g.ldb,
          g.batch_stride_a,
          g.batch_stride_b,
          g.batch_stride_c,
          {ceil_div(g.m, tile_rows), ceil_div(g.n, tile_columns)},
          {static_cast<C*>(g.c), static_cast<const S*>(g.bias), static_cast<const C*>(g.residual), g.ldc, g.alpha, g.activation,
           g.accumulate}};
}

// -------------------------------------------------------------------------------------- float32 and float64, exactly

// A block makes kTile rows and columns of c, a thread kEach of each, a distance apart so that neighbours read neighbours.
template <class T, int kTile, int kEach, int kDepth>
struct Plain {
  static constexpr int kSide = kTile / kEach, kBlock = kSide * kSide, kPitch = kTile + 4;

  // kDepth steps of kTile rows (or columns) of an operand, into tile[step][row]; zeros outside.
  SMELT_WORD static void load(T* tile, const T* from, int64_t first, int64_t end, int64_t p, int64_t depth, int64_t ld, bool deep) {
    for (int i = static_cast<int>(threadIdx.x); i < kTile * kDepth; i += kBlock) {
      const int row = deep ? i / kDepth : i % kTile, step = deep ? i % kDepth : i / kTile;
      const bool there = first + row < end && p + step < depth;
      tile[step * kPitch + row] = there ? from[deep ? (first + row) * ld + p + step : (p + step) * ld + first + row] : T{0};
    }
  }
};

template <class T, int kTile, int kEach, int kDepth>
__global__ void __launch_bounds__((kTile / kEach) * (kTile / kEach))
    gemm_plain(Job<T, T> job, bool transpose_a, bool transpose_b) {
  using Shape = Plain<T, kTile, kEach, kDepth>;
  SMELT_SHARED(T, left, kDepth * Shape::kPitch);
  SMELT_SHARED(T, right, kDepth * Shape::kPitch);
  int64_t tile_row, tile_column;
  job.tiles.place(blockIdx.x, &tile_row, &tile_column);
  const int64_t row0 = tile_row * kTile, column0 = tile_column * kTile;
  const int tx = static_cast<int>(threadIdx.x) % Shape::kSide, ty = static_cast<int>(threadIdx.x) / Shape::kSide;
  for (int64_t batch = blockIdx.z; batch < job.batch; batch += gridDim.z) {
    T sum[kEach][kEach] = {};
    for (int64_t p = 0; p < job.k; p += kDepth) {
      Shape::load(left, job.a + batch * job.stride_a, row0, job.m, p, job.k, job.lda, !transpose_a);
      Shape::load(right, job.b + batch * job.stride_b, column0, job.n, p, job.k, job.ldb, transpose_b);
      cuda::sync_threads();
      for (int step = 0; step < kDepth; ++step) {
        T x[kEach], y[kEach];
        for (int i = 0; i < kEach; ++i) {
          x[i] = left[step * Shape::kPitch + i * Shape::kSide + ty];
          y[i] = right[step * Shape::kPitch + i * Shape::kSide + tx];
        }
        for (int i = 0; i < kEach; ++i)
          for (int j = 0; j < kEach; ++j) sum[i][j] = std::fma(x[i], y[j], sum[i][j]);
      }
      cuda::sync_threads();
    }
    Epilogue<T, T> e = job.epilogue;
    e.c += batch * job.stride_c;
    if (e.residual) e.residual += batch * job.stride_c;
    for (int i = 0; i < kEach; ++i)
      for (int j = 0; j < kEach; ++j) {
        const int64_t row = row0 + i * Shape::kSide + ty, column = column0 + j * Shape::kSide + tx;
        if (row < job.m && column < job.n) e.write(row, column, sum[i][j]);
      }
  }
}

template <class T, int kTile, int kEach, int kDepth>
Status run_plain(const GemmArgs& g, Context& context) {
  const Job<T, T> job = make_job<T, T>(g, kTile, kTile);
  const dim3 grid = cuda::size3(job.tiles.rows * job.tiles.columns, 1, min_of(g.batch, int64_t{65535}));
  return cuda::launch(context, gemm_plain<T, kTile, kEach, kDepth>, grid, cuda::size3(Plain<T, kTile, kEach, kDepth>::kBlock), 0, job,
                      g.transpose_a, g.transpose_b);
}

Status gemm_wide(const GemmArgs& g, Context& context) noexcept {
  if (g.m * g.n * g.batch == 0) return Status::ok;
  if (g.dtype == DType::float64) return run_plain<double, 64, 4, 8>(g, context);
  if (g.m <= 32 || g.n <= 32) return run_plain<float, 32, 2, 16>(g, context);
  return run_plain<float, 128, 8, 8>(g, context);
}
bool gemm_wide_supports(const GemmArgs& g) {
  return (g.dtype == DType::float32 || g.dtype == DType::float64) && g.c_dtype == g.dtype && !g.column_sums;
}

// --------------------------------------------------------------------------------------------- halves, tensor cores

constexpr int kTile = 128, kDepth = 32, kStages = 4;  // rows and columns of a block, depth of a stage
constexpr int kWarpRows = 64, kWarpColumns = 32;      // of a warp: two by four of them make a block
constexpr int kBlock = (kTile / kWarpRows) * (kTile / kWarpColumns) * 32;
constexpr int kTileElements = kTile * kDepth;
constexpr int kChunk = 8;  // halves in 16 bytes

// One stage of an operand in shared memory: 128 rows of 32 where the depth is what lies together ("deep"), else 32 rows of
// 128. Chunks of 16 bytes are exchanged within a row such that eight rows of a column of chunks meet all banks.
template <bool deep>
struct Stage {
  static constexpr int kRow = deep ? kDepth : kTile;  // halves
  SMELT_WORD static int at(int row, int chunk) {
    const int swapped = deep ? chunk ^ ((row >> 1) & 3) : chunk ^ (row & 7);
    return row * kRow + swapped * kChunk;
  }
};

// Copies a stage; `count` rows of the operand from `first` are there, and `depth` steps from p.
template <bool deep, bool wide, class S>
SMELT_WORD void load_stage(S* stage, const S* from, int64_t first, int64_t count, int64_t p, int64_t depth, int64_t ld) {
  constexpr int kChunks = Stage<deep>::kRow / kChunk;
  for (int i = static_cast<int>(threadIdx.x); i < kTileElements / kChunk; i += kBlock) {
    const int row = i / kChunks, chunk = i % kChunks;
    const int64_t outer = deep ? first + row : p + row, inner = deep ? p + chunk * kChunk : first + chunk * kChunk;
    const int64_t outer_end = deep ? count : depth, inner_end = deep ? depth : count;
    const int there = outer < outer_end ? static_cast<int>(max_of(int64_t{0}, min_of(inner_end - inner, int64_t{kChunk}))) : 0;
    S* to = stage + Stage<deep>::at(row, chunk);
    const S* source = from + (there ? outer * ld + inner : 0);
    if constexpr (wide) {
      cuda::cp_async16(to, source, there * static_cast<int>(sizeof(S)));
    } else {
      for (int j = 0; j < kChunk; ++j) to[j] = j < there ? source[j] : S{0};
    }
  }
}

// The fragments of 16 rows of a and 16 steps, or of 16 columns of b and 16 steps (two fragments).
template <bool deep, bool is_b, class S>
SMELT_WORD void load_fragment(uint32_t (&r)[4], const S* stage, int row, int step) {
  const int lane = cuda::lane(), matrix = lane / 8, within = lane % 8;
  // Of the four matrices, the second has the next 8 rows in a, the next 8 steps in b.
  const int next_rows = is_b ? matrix / 2 : matrix % 2, next_steps = is_b ? matrix % 2 : matrix / 2;
  if constexpr (deep)
    cuda::ldmatrix_x4(r, stage + Stage<deep>::at(row + next_rows * 8 + within, step / kChunk + next_steps));
  else
    cuda::ldmatrix_x4_transposed(r, stage + Stage<deep>::at(step + next_steps * 8 + within, row / kChunk + next_rows));
}

template <class S, class C, bool deep_a, bool deep_b, bool wide>
__global__ void __launch_bounds__(kBlock) gemm_halves(Job<S, C> job) {
  S* const shared = cuda::dynamic_shared<S>();  // kStages of a, then of b
  constexpr int kM = kWarpRows / 16, kN = kWarpColumns / 8;
  int64_t tile_row, tile_column;
  job.tiles.place(blockIdx.x, &tile_row, &tile_column);
  const int64_t row0 = tile_row * kTile, column0 = tile_column * kTile, stages = ceil_div(job.k, kDepth);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int warp_row = warp % (kTile / kWarpRows) * kWarpRows, warp_column = warp / (kTile / kWarpRows) * kWarpColumns;
  for (int64_t batch = blockIdx.z; batch < job.batch; batch += gridDim.z) {
    const S* const a = job.a + batch * job.stride_a;
    const S* const b = job.b + batch * job.stride_b;
    const auto load = [&](int64_t stage) {
      if (stage < stages) {
        S* const to = shared + stage % kStages * kTileElements;
        load_stage<deep_a, wide>(to, a, row0, job.m, stage * kDepth, job.k, job.lda);
        load_stage<deep_b, wide>(to + kStages * kTileElements, b, column0, job.n, stage * kDepth, job.k, job.ldb);
      }
      cuda::cp_async_commit();  // an empty group too: the count of groups is what is waited for
    };
    float sum[kM][kN][4] = {};
    for (int64_t stage = 0; stage < kStages - 1; ++stage) load(stage);
    for (int64_t stage = 0; stage < stages; ++stage) {
      cuda::cp_async_wait<kStages - 2>();
      cuda::sync_threads();  // this stage is there for all, and the one before is free
      load(stage + kStages - 1);
      const S* const left = shared + stage % kStages * kTileElements;
      const S* const right = left + kStages * kTileElements;
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
      for (int step = 0; step < kDepth; step += 16) {
        uint32_t x[kM][4], y[kN / 2][4];
        for (int i = 0; i < kM; ++i) load_fragment<deep_a, false>(x[i], left, warp_row + i * 16, step);
        for (int j = 0; j < kN / 2; ++j) load_fragment<deep_b, true>(y[j], right, warp_column + j * 16, step);
        for (int i = 0; i < kM; ++i)
          for (int j = 0; j < kN; ++j) {
            const uint32_t pair[2] = {y[j / 2][j % 2 * 2], y[j / 2][j % 2 * 2 + 1]};
            cuda::mma(sum[i][j], x[i], pair, S{});
          }
      }
    }
    cuda::cp_async_wait<0>();
    cuda::sync_threads();  // before the next product's first stages
    Epilogue<S, C> e = job.epilogue;
    e.c += batch * job.stride_c;
    if (e.residual) e.residual += batch * job.stride_c;
    const int lane = cuda::lane();
    for (int i = 0; i < kM; ++i)
      for (int j = 0; j < kN; ++j)
        for (int q = 0; q < 4; ++q) {
          const int64_t row = row0 + warp_row + i * 16 + lane / 4 + q / 2 * 8;
          const int64_t column = column0 + warp_column + j * 8 + lane % 4 * 2 + q % 2;
          if (row < job.m && column < job.n) e.write(row, column, sum[i][j][q]);
        }
  }
}

template <class S, class C, bool deep_a, bool deep_b>
Status run_halves(const GemmArgs& g, Context& context) {
  const Job<S, C> job = make_job<S, C>(g, kTile, kTile);
  const dim3 grid = cuda::size3(job.tiles.rows * job.tiles.columns, 1, min_of(g.batch, int64_t{65535}));
  constexpr size_t kShared = 2 * kStages * kTileElements * sizeof(S);
  const bool wide = aligned16(g.a) && aligned16(g.b) && g.lda % kChunk == 0 && g.ldb % kChunk == 0 && g.batch_stride_a % kChunk == 0 &&
                    g.batch_stride_b % kChunk == 0;
  if (wide) return cuda::launch(context, gemm_halves<S, C, deep_a, deep_b, true>, grid, cuda::size3(kBlock), kShared, job);
  return cuda::launch(context, gemm_halves<S, C, deep_a, deep_b, false>, grid, cuda::size3(kBlock), kShared, job);
}

template <class S, class C>
Status run_halves(const GemmArgs& g, Context& context) {
  if (g.transpose_a) return g.transpose_b ? run_halves<S, C, false, true>(g, context) : run_halves<S, C, false, false>(g, context);
  return g.transpose_b ? run_halves<S, C, true, true>(g, context) : run_halves<S, C, true, false>(g, context);
}

Status gemm_tensor(const GemmArgs& g, Context& context) noexcept {
  if (g.m * g.n * g.batch == 0) return Status::ok;
  const bool wide_c = g.c_dtype == DType::float32;
  if (g.dtype == DType::bfloat16) return wide_c ? run_halves<bfloat16, float>(g, context) : run_halves<bfloat16, bfloat16>(g, context);
  return wide_c ? run_halves<float16, float>(g, context) : run_halves<float16, float16>(g, context);
}
bool gemm_tensor_supports(const GemmArgs& g) { return dtype_size(g.dtype) == 2 && is_floating(g.dtype) && !g.column_sums; }

}  // namespace

void cuda::register_gemm(const Taker& taker) {
  add_kernel<GemmArgs, gemm_wide, gemm_wide_supports>(taker, "sm80_gemm_wide");
  add_kernel<GemmArgs, gemm_tensor, gemm_tensor_supports>(taker, "sm80_gemm_tensor");
}

}  // namespace smelt
