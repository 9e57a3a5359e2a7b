// Matrix products for every GPU since sm_80, over operands that need not be matrices in memory: a "view" finds the elements of
// one, and convolutions have views of their own. Halves go through the tensor cores, fed by copies that run ahead, and so does
// float32 where its operands may be rounded to TF32; otherwise float32 and float64 are exact.
//
// A view has `static constexpr bool deep` (whether the depth is what lies together in memory, or the rows) and
//     const S* find(batch, row, p, want, &count)
// which gives element (row, p) and how many of `want` elements that follow it along that axis are there, 0 outside.
#pragma once
#include "cuda/common/kernel.cuh"
#include "formulas/unary.inl.h"

namespace smelt {
namespace {

// A matrix of rows by depth, or by depth and rows.
template <class S, bool kDeep>
struct MatrixView {
  static constexpr bool deep = kDeep;
  using Element = S;
  const S* data;
  int64_t rows, depth, ld, batch_stride;
  SMELT_WORD const S* find(int64_t batch, int64_t row, int64_t p, int want, int* count) const {
    const int64_t left = deep ? depth - p : rows - row;
    *count = row < rows && p < depth ? static_cast<int>(min_of(left, static_cast<int64_t>(want))) : 0;
    return data + batch * batch_stride + (deep ? row * ld + p : p * ld + row);
  }
};

// ---------------------------------------------------------------------------------------------------------- epilogue

// What happens to a sum on its way to memory, as on the CPU: alpha, what c had and bias, residual, activation; rounded before
// each of the last two as by ops of their own.
template <class S, class C>
struct Epilogue {
  C* c;
  const S* bias;      // or null
  const C* residual;  // or null
  int64_t ldc, batch_stride, bias_stride;
  float alpha;
  Activation activation;
  bool accumulate;

  template <class V>
  SMELT_WORD static V rounded(V v) {
    if constexpr (sizeof(C) == sizeof(v.v)) return v;
    return V::set(from_storage(to_storage<C>(static_cast<Compute<C>>(v.v))));
  }
  template <class T>
  SMELT_WORD void write(int64_t batch, int64_t row, int64_t column, T sum) const {
    using V = One<T>;
    const int64_t at = batch * batch_stride + row * ldc + column;
    V v = V::set(sum);
    if (alpha != 1) v = v * V::set(static_cast<T>(alpha));
    if (bias) v = v + V::set(static_cast<T>(from_storage(bias[batch * bias_stride + column])));
    if (accumulate) v = V::set(static_cast<T>(from_storage(c[at]))) + v;
    if (residual) v = rounded(v) + V::set(static_cast<T>(from_storage(residual[at])));
    if (activation != Activation::none) v = activate(activation, rounded(v));
    c[at] = to_storage<C>(static_cast<Compute<C>>(v.v));
  }
};

// -------------------------------------------------------------------------------------------------------- the pieces

// The depth is cut where few tiles meet a deep product, by shape alone; the parts are added in order.
constexpr int64_t kEnoughTiles = 128, kPartDepth = 512, kMostParts = 64;
inline int64_t depth_parts(int64_t tiles, int64_t k) {
  if (tiles >= kEnoughTiles || k < 2 * kPartDepth) return 1;
  return min_of(min_of(k / kPartDepth, ceil_div(kEnoughTiles, max_of(tiles, int64_t{1}))), kMostParts);
}

template <class A, class B, class C>
struct Job {
  using S = typename A::Element;
  A a;
  B b;
  Epilogue<S, C> epilogue;
  int64_t m, n, k, batch;
  int64_t tile_rows, tile_columns;  // how many
  int64_t parts, part_depth;
  Compute<S>* partial;  // (parts, batch, m, n), or null for one part

  // Blocks that run together should share operands: tiles are numbered in bands of a few rows.
  SMELT_WORD void place(int64_t number, int64_t* row, int64_t* column) const {
    constexpr int64_t kBand = 8;
    const int64_t band = number / (kBand * tile_columns), first = band * kBand, height = min_of(kBand, tile_rows - first);
    const int64_t within = number - first * tile_columns;
    *row = first + within % height;
    *column = within / height;
  }
  SMELT_WORD void write(int64_t part, int64_t in_batch, int64_t row, int64_t column, Compute<S> sum) const {
    if (row >= m || column >= n) return;
    if (partial)
      partial[((part * batch + in_batch) * m + row) * n + column] = sum;
    else
      epilogue.write(in_batch, row, column, sum);
  }
  // Rows [row0, row0 + rows) of `columns` columns, whose sums lie in shared memory, `pitch` from row to row. By all threads of a
  // block, neighbours next to each other, and in a loop: the code of an epilogue is long.
  SMELT_WORD void write_tile(int64_t part, int64_t in_batch, int64_t row0, int64_t column0, const Compute<S>* sums, int rows,
                             int columns, int pitch, int block) const {
    for (int i = static_cast<int>(threadIdx.x); i < rows * columns; i += block)
      write(part, in_batch, row0 + i / columns, column0 + i % columns, sums[i / columns * pitch + i % columns]);
  }
};

template <class J>
__global__ void add_parts(J job) {
  const int64_t i = grid_thread(), all = job.batch * job.m * job.n;
  if (i >= all) return;
  auto sum = job.partial[i];
  for (int64_t part = 1; part < job.parts; ++part) sum += job.partial[part * all + i];
  job.epilogue.write(i / (job.m * job.n), i / job.n % job.m, i % job.n, sum);
}

// -------------------------------------------------------------------------------------- float32 and float64, exactly

// A block makes kTile rows and columns of c, a thread kEach of each, a distance apart so that neighbours read neighbours.
template <int kTileSize, int kEachSize, int kStepSize>
struct PlainShape {
  static constexpr int kTile = kTileSize, kEach = kEachSize, kStep = kStepSize;
  static constexpr int kSide = kTile / kEach, kBlock = kSide * kSide, kPitch = kTile + 4;
};

// kStep steps of kTile rows (or columns) of an operand, into tile[step][row]; zeros outside.
template <class Shape, class V>
SMELT_WORD void load_plain(typename V::Element* tile, const V& view, int64_t batch, int64_t first, int64_t p, int64_t end) {
  for (int i = static_cast<int>(threadIdx.x); i < Shape::kTile * Shape::kStep; i += Shape::kBlock) {
    const int row = V::deep ? i / Shape::kStep : i % Shape::kTile, step = V::deep ? i % Shape::kStep : i / Shape::kTile;
    int count = 0;
    const auto* from = p + step < end ? view.find(batch, first + row, p + step, 1, &count) : nullptr;
    tile[step * Shape::kPitch + row] = count ? *from : typename V::Element{0};
  }
}

template <class Shape, class J>
__global__ void __launch_bounds__(Shape::kBlock) multiply_plain(J job) {
  using T = typename J::S;
  constexpr int kEach = Shape::kEach, kSide = Shape::kSide;
  SMELT_SHARED(T, both, 2 * Shape::kStep * Shape::kPitch);
  T *const left = both, *const right = both + Shape::kStep * Shape::kPitch;
  static_assert(kSide <= 2 * Shape::kStep, "sums of a row of each thread fit where the operands were");
  int64_t tile_row, tile_column;
  job.place(blockIdx.x, &tile_row, &tile_column);
  const int64_t row0 = tile_row * Shape::kTile, column0 = tile_column * Shape::kTile, part = blockIdx.y;
  const int64_t begin = part * job.part_depth, end = min_of(begin + job.part_depth, job.k);
  const int tx = static_cast<int>(threadIdx.x) % kSide, ty = static_cast<int>(threadIdx.x) / kSide;
  for (int64_t batch = blockIdx.z; batch < job.batch; batch += gridDim.z) {
    T sum[kEach][kEach] = {};
    for (int64_t p = begin; p < end; p += Shape::kStep) {
      load_plain<Shape>(left, job.a, batch, row0, p, end);
      load_plain<Shape>(right, job.b, batch, column0, p, end);
      cuda::sync_threads();
      SMELT_UNROLL
      for (int step = 0; step < Shape::kStep; ++step) {
        T x[kEach], y[kEach];
        SMELT_UNROLL
        for (int i = 0; i < kEach; ++i) {
          x[i] = left[step * Shape::kPitch + i * kSide + ty];
          y[i] = right[step * Shape::kPitch + i * kSide + tx];
        }
        SMELT_UNROLL
        for (int i = 0; i < kEach; ++i) {
          SMELT_UNROLL
          for (int j = 0; j < kEach; ++j) sum[i][j] = std::fma(x[i], y[j], sum[i][j]);
        }
      }
      cuda::sync_threads();
    }
    // One row of each thread after the other, through the operands' memory.
    for (int i = 0; i < kEach; ++i) {
      SMELT_UNROLL
      for (int r = 0; r < kEach; ++r) {
        if (r != i) continue;
        SMELT_UNROLL
        for (int j = 0; j < kEach; ++j) both[ty * Shape::kPitch + j * kSide + tx] = sum[r][j];
      }
      cuda::sync_threads();
      job.write_tile(part, batch, row0 + i * kSide, column0, both, kSide, Shape::kTile, Shape::kPitch, Shape::kBlock);
      cuda::sync_threads();
    }
  }
}

// ------------------------------------------------------------------------------------------------------- tensor cores

constexpr int kTile = 128, kStages = 4;           // rows and columns of a block
constexpr int kWarpRows = 64, kWarpColumns = 32;  // of a warp: two by four of them make a block
constexpr int kBlock = (kTile / kWarpRows) * (kTile / kWarpColumns) * 32;
constexpr int kTilePitch = kTile + 4;  // of sums in shared memory

// One stage of an operand in shared memory: 64 bytes of the depth, as 128 rows of them where the depth is what lies together,
// else as steps of 128 rows. Chunks of 16 bytes are exchanged within a row such that what is read together meets all banks.
template <class S, bool deep = true>
struct Stage {
  static constexpr int kChunk = 16 / static_cast<int>(sizeof(S)), kDepth = 64 / static_cast<int>(sizeof(S));
  static constexpr int kElements = kTile * kDepth, kRow = deep ? kDepth : kTile;
  static constexpr int kStep = 32 / static_cast<int>(sizeof(S));  // depth of one instruction
  SMELT_WORD static int at(int row, int chunk) {
    const int swapped = deep ? chunk ^ ((row >> 1) & 3) : sizeof(S) == 2 ? chunk ^ (row & 7) : chunk ^ ((row & 3) << 1);
    return row * kRow + swapped * kChunk;
  }
};

// Copies a stage, up to depth `end`. `wide`: the chunks that a view finds are whole and at multiples of 16 bytes.
template <bool wide, class V>
SMELT_WORD void load_stage(typename V::Element* stage, const V& view, int64_t batch, int64_t first, int64_t p, int64_t end) {
  using S = typename V::Element;
  using St = Stage<S, V::deep>;
  constexpr int kChunk = St::kChunk, kChunks = St::kRow / kChunk;
  for (int i = static_cast<int>(threadIdx.x); i < St::kElements / kChunk; i += kBlock) {
    const int row = i / kChunks, chunk = i % kChunks;
    S* const to = stage + St::at(row, chunk);
    const int64_t at = V::deep ? first + row : first + chunk * kChunk, depth = V::deep ? p + chunk * kChunk : p + row;
    if constexpr (wide) {
      int count = 0;
      const S* const from = depth < end ? view.find(batch, at, depth, kChunk, &count) : nullptr;
      if (V::deep && count) count = static_cast<int>(min_of(static_cast<int64_t>(count), end - depth));
      cuda::cp_async16(to, count ? from : view.data, count * static_cast<int>(sizeof(S)));
    } else {
      for (int j = 0; j < kChunk; ++j) {
        int count = 0;
        const int64_t step = V::deep ? depth + j : depth;
        const S* const from = step < end ? view.find(batch, V::deep ? at : at + j, step, 1, &count) : nullptr;
        to[j] = count ? *from : S{0};
      }
    }
  }
}

// The fragments of 16 rows of a and 16 steps, or of 16 columns of b and 16 steps (two fragments).
template <bool deep, bool is_b, class S>
SMELT_WORD void load_fragment(uint32_t (&r)[4], const S* stage, int row, int step) {
  using St = Stage<S, deep>;
  const int lane = cuda::lane(), matrix = lane / 8, within = lane % 8;
  // Of the four matrices, the second has the next 8 rows in a, the next 8 steps in b.
  const int next_rows = is_b ? matrix / 2 : matrix % 2, next_steps = is_b ? matrix % 2 : matrix / 2;
  if constexpr (deep)
    cuda::ldmatrix_x4(r, stage + St::at(row + next_rows * 8 + within, step / St::kChunk + next_steps));
  else
    cuda::ldmatrix_x4_transposed(r, stage + St::at(step + next_steps * 8 + within, row / St::kChunk + next_rows));
}
// Likewise of 8 steps in float32, rounded to TF32. No instruction transposes words: each thread reads its four.
template <bool deep, bool is_b>
SMELT_WORD void load_fragment(uint32_t (&r)[4], const float* stage, int row, int step) {
  using St = Stage<float, deep>;
  const int group = cuda::lane() / 4, within = cuda::lane() % 4;
  for (int matrix = 0; matrix < 4; ++matrix) {
    const int line = row + group + 8 * (is_b ? matrix / 2 : matrix % 2), p = step + within + 4 * (is_b ? matrix % 2 : matrix / 2);
    const int at = deep ? St::at(line, p / St::kChunk) + p % St::kChunk : St::at(p, line / St::kChunk) + line % St::kChunk;
    r[matrix] = cuda::to_tf32(stage[at]);
  }
}

template <bool wide, class J, class A, class B>
__global__ void __launch_bounds__(kBlock) multiply_tensor(J job) {
  using S = typename J::S;
  constexpr int kDepth = Stage<S>::kDepth, kTileElements = Stage<S>::kElements;
  S* const shared = cuda::dynamic_shared<S>();  // kStages of a, then of b
  constexpr int kM = kWarpRows / 16, kN = kWarpColumns / 8;
  int64_t tile_row, tile_column;
  job.place(blockIdx.x, &tile_row, &tile_column);
  const int64_t row0 = tile_row * kTile, column0 = tile_column * kTile, part = blockIdx.y;
  const int64_t begin = part * job.part_depth, end = min_of(begin + job.part_depth, job.k), stages = ceil_div(end - begin, kDepth);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int warp_row = warp % (kTile / kWarpRows) * kWarpRows, warp_column = warp / (kTile / kWarpRows) * kWarpColumns;
  for (int64_t batch = blockIdx.z; batch < job.batch; batch += gridDim.z) {
    const auto load = [&](int64_t stage) {
      if (stage < stages) {
        S* const to = shared + stage % kStages * kTileElements;
        load_stage<wide>(to, job.a, batch, row0, begin + stage * kDepth, end);
        load_stage<wide>(to + kStages * kTileElements, job.b, batch, column0, begin + stage * kDepth, end);
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
      SMELT_UNROLL
      for (int step = 0; step < kDepth; step += Stage<S>::kStep) {
        uint32_t x[kM][4], y[kN / 2][4];
        SMELT_UNROLL
        for (int i = 0; i < kM; ++i) load_fragment<A::deep, false>(x[i], left, warp_row + i * 16, step);
        SMELT_UNROLL
        for (int j = 0; j < kN / 2; ++j) load_fragment<B::deep, true>(y[j], right, warp_column + j * 16, step);
        SMELT_UNROLL
        for (int i = 0; i < kM; ++i)
          SMELT_UNROLL
          for (int j = 0; j < kN; ++j) {
            const uint32_t pair[2] = {y[j / 2][j % 2 * 2], y[j / 2][j % 2 * 2 + 1]};
            cuda::mma(sum[i][j], x[i], pair, S{});
          }
      }
    }
    cuda::cp_async_wait<0>();
    cuda::sync_threads();
    // The sums through the stages' memory.
    auto* const tile = reinterpret_cast<float*>(shared);
    float* const mine = tile + (warp_row + cuda::lane() / 4) * kTilePitch + warp_column + cuda::lane() % 4 * 2;
    SMELT_UNROLL
    for (int i = 0; i < kM; ++i)
      SMELT_UNROLL
      for (int j = 0; j < kN; ++j)
        SMELT_UNROLL
        for (int q = 0; q < 4; ++q) mine[(i * 16 + q / 2 * 8) * kTilePitch + j * 8 + q % 2] = sum[i][j][q];
    cuda::sync_threads();
    job.write_tile(part, batch, row0, column0, tile, kTile, kTile, kTilePitch, kBlock);
    cuda::sync_threads();  // before the next product's first stages
  }
}

// -------------------------------------------------------------------------------------------------------- launching

// Side of a tile for a product of this shape and dtype.
inline int tile_side(DType dtype, int64_t m, int64_t n, bool tensor) {
  if (tensor) return kTile;
  if (dtype == DType::float64) return 64;
  return m <= 32 || n <= 32 ? 32 : 128;
}
inline int64_t tile_count(DType dtype, int64_t m, int64_t n, int64_t batch, bool tensor) {
  const int side = tile_side(dtype, m, n, tensor);
  return ceil_div(m, int64_t{side}) * ceil_div(n, int64_t{side}) * batch;
}
// For any setting of float32: the larger tiles of the tensor cores need the more parts.
inline size_t multiply_workspace(DType dtype, int64_t m, int64_t n, int64_t k, int64_t batch) {
  const int64_t parts = depth_parts(tile_count(dtype, m, n, batch, dtype != DType::float64), k);
  return parts == 1 ? 0 : static_cast<size_t>(parts * batch * m * n) * (dtype == DType::float64 ? 8 : 4);
}

// c (m, n) = a (m, k) times b (k, n), `batch` of them. `wide` is about the views: see load_stage.
template <class A, class B, class C>
Status multiply(const Context& context, DType dtype, const A& a, const B& b, const Epilogue<typename A::Element, C>& epilogue, int64_t m,
                int64_t n, int64_t k, int64_t batch, bool wide) {
  using S = typename A::Element;
  using J = Job<A, B, C>;
  if (m * n * batch == 0) return Status::ok;
  const bool tensor = sizeof(S) == 2 || (sizeof(S) == 4 && context.tf32);
  const int side = tile_side(dtype, m, n, tensor);
  const int64_t parts = depth_parts(tile_count(dtype, m, n, batch, tensor), k);
  // Whole stages in each part.
  const int64_t part_depth = parts == 1 ? k : round_up(ceil_div(k, parts), int64_t{Stage<S>::kDepth});
  const J job{a,     b,
              epilogue, m,
              n,     k,
              batch, ceil_div(m, int64_t{side}),
              ceil_div(n, int64_t{side}), parts,
              part_depth, parts == 1 ? nullptr : static_cast<Compute<S>*>(context.workspace)};
  const dim3 grid = cuda::size3(job.tile_rows * job.tile_columns, parts, min_of(batch, int64_t{65535}));
  Status status = Status::ok;
  if constexpr (sizeof(S) <= 4) {
    constexpr size_t kStageBytes = 2 * kStages * Stage<S>::kElements * sizeof(S), kSumBytes = kTile * kTilePitch * sizeof(float);
    constexpr size_t kShared = max_of(kStageBytes, kSumBytes);
    if (tensor)
      status = wide ? cuda::launch(context, multiply_tensor<true, J, A, B>, grid, cuda::size3(kBlock), kShared, job)
                    : cuda::launch(context, multiply_tensor<false, J, A, B>, grid, cuda::size3(kBlock), kShared, job);
  }
  if constexpr (sizeof(S) >= 4) {
    const auto run = [&]<class Shape>(Shape) {
      return cuda::launch(context, multiply_plain<Shape, J>, grid, cuda::size3(Shape::kBlock), 0, job);
    };
    if constexpr (sizeof(S) == 8)
      status = run(PlainShape<64, 4, 8>{});
    else if (!tensor)
      status = side == 32 ? run(PlainShape<32, 2, 16>{}) : run(PlainShape<128, 8, 8>{});
  }
  if (status != Status::ok || parts == 1) return status;
  return cuda::launch(context, add_parts<J>, cuda::blocks_for(batch * m * n, kThreads), cuda::size3(kThreads), 0, job);
}

}  // namespace
}  // namespace smelt
