// The matrix product in steps, c = a b in float32 with everything stored row by row: what docs/gemm.md tells of. Each step is
// a kernel that smelt.kernels.register takes; extents must be multiples of 96.
#include <cstdint>

#include "core/kernels.h"

using namespace smelt;

namespace {

constexpr int64_t kRows = 6, kColumns = 16;  // of a tile: 12 vectors of sums, 2 of b, 1 of a are 15 of 16 registers
constexpr int64_t kDepth = 256;              // of a block
typedef float Vector __attribute__((vector_size(32), aligned(4)));

const Vector& vector(const float* p) { return *reinterpret_cast<const Vector*>(p); }
Vector& vector(float* p) { return *reinterpret_cast<Vector*>(p); }

struct Operands {
  const float *a, *b;
  float* c;
  int64_t m, n, k;
  explicit Operands(const GemmArgs& g)
      : a(static_cast<const float*>(g.a)), b(static_cast<const float*>(g.b)), c(static_cast<float*>(g.c)), m(g.m), n(g.n),
        k(g.k) {}
};

// A tile of c over some depth: rows of a are a_step apart, and b's next row is b_step away.
template <bool add>
void tile(int64_t k, const float* a, int64_t a_step, const float* b, int64_t b_step, float* c, int64_t c_step) {
  Vector sum[kRows][2] = {};
  for (int64_t p = 0; p < k; ++p, b += b_step) {
    const Vector b0 = vector(b), b1 = vector(b + 8);
#pragma GCC unroll 6
    for (int i = 0; i < kRows; ++i) {
      sum[i][0] += a[i * a_step + p] * b0;
      sum[i][1] += a[i * a_step + p] * b1;
    }
  }
  for (int i = 0; i < kRows; ++i, c += c_step)
    for (int j : {0, 1}) vector(c + 8 * j) = add ? vector(c + 8 * j) + sum[i][j] : sum[i][j];
}

// A panel of kColumns columns, (depth, kColumns), read straight through by every tile below it.
void pack(const float* b, int64_t n, int64_t depth, float* panel) {
  for (int64_t p = 0; p < depth; ++p)
    for (int64_t j = 0; j < kColumns; j += 8) vector(panel + p * kColumns + j) = vector(b + p * n + j);
}

void pack_all(const Operands& x, int64_t p, int64_t depth, float* packed) {
  for (int64_t j = 0; j < x.n; j += kColumns) pack(x.b + p * x.n + j, x.n, depth, packed + j * depth);
}

// Rows [begin, end) times packed columns over one block of the depth: a panel of b meets a group of rows, which stays in the
// second cache, before the next panel comes.
void block(const Operands& x, const float* packed, int64_t p, int64_t depth, int64_t begin, int64_t end) {
  constexpr int64_t kGroup = 96;
  for (int64_t i0 = begin; i0 < end; i0 += kGroup)
    for (int64_t j = 0; j < x.n; j += kColumns)
      for (int64_t i = i0; i < i0 + kGroup && i < end; i += kRows) {
        const float* a = x.a + i * x.k + p;
        float* c = x.c + i * x.n + j;
        p ? tile<true>(depth, a, x.k, packed + j * depth, kColumns, c, x.n)
          : tile<false>(depth, a, x.k, packed + j * depth, kColumns, c, x.n);
      }
}

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

}  // namespace

extern "C" {

Status dots(const GemmArgs& g, Context&) {  // 1: one sum after the other, down a column of b
  const Operands x(g);
  for (int64_t i = 0; i < x.m; ++i)
    for (int64_t j = 0; j < x.n; ++j) {
      float sum = 0;
      for (int64_t p = 0; p < x.k; ++p) sum += x.a[i * x.k + p] * x.b[p * x.n + j];
      x.c[i * x.n + j] = sum;
    }
  return Status::ok;
}

Status rows(const GemmArgs& g, Context&) {  // 2: whole rows of b, which the compiler takes in vectors
  const Operands x(g);
  for (int64_t i = 0; i < x.m; ++i) {
    float* c = x.c + i * x.n;
    for (int64_t j = 0; j < x.n; ++j) c[j] = 0;
    for (int64_t p = 0; p < x.k; ++p)
      for (int64_t j = 0; j < x.n; ++j) c[j] += x.a[i * x.k + p] * x.b[p * x.n + j];
  }
  return Status::ok;
}

Status tiles(const GemmArgs& g, Context&) {  // 3: sums stay in registers
  const Operands x(g);
  for (int64_t j = 0; j < x.n; j += kColumns)
    for (int64_t i = 0; i < x.m; i += kRows)
      tile<false>(x.k, x.a + i * x.k, x.k, x.b + j, x.n, x.c + i * x.n + j, x.n);
  return Status::ok;
}

Status packed(const GemmArgs& g, Context& context) {  // 4: b in panels
  const Operands x(g);
  float* panels = static_cast<float*>(context.workspace);
  pack_all(x, 0, x.k, panels);
  for (int64_t j = 0; j < x.n; j += kColumns)
    for (int64_t i = 0; i < x.m; i += kRows)
      tile<false>(x.k, x.a + i * x.k, x.k, panels + j * x.k, kColumns, x.c + i * x.n + j, x.n);
  return Status::ok;
}

Status blocked(const GemmArgs& g, Context& context) {  // 5: the depth in blocks, so that a panel of b stays in the first cache
  const Operands x(g);
  float* panels = static_cast<float*>(context.workspace);
  for (int64_t p = 0; p < x.k; p += kDepth) {
    pack_all(x, p, least(kDepth, x.k - p), panels);
    block(x, panels, p, least(kDepth, x.k - p), 0, x.m);
  }
  return Status::ok;
}

Status threads(const GemmArgs& g, Context& context) {  // 6: groups of rows to all threads
  struct Job {
    Operands x;
    float* panels;
    int64_t p, depth;
  } job{Operands(g), static_cast<float*>(context.workspace), 0, 0};
  for (; job.p < job.x.k; job.p += kDepth) {
    job.depth = least(kDepth, job.x.k - job.p);
    pack_all(job.x, job.p, job.depth, job.panels);
    context.parallel(
        context.threads, job.x.m / 96,
        [](void* arg, int64_t chunk, int) {
          const Job& j = *static_cast<const Job*>(arg);
          block(j.x, j.panels, j.p, j.depth, chunk * 96, chunk * 96 + 96);
        },
        &job);
  }
  return Status::ok;
}

size_t room(const GemmArgs& g, int) { return static_cast<size_t>(g.n) * static_cast<size_t>(g.k) * sizeof(float); }

bool fits(const GemmArgs& g, Device) {
  return g.dtype == DType::float32 && !g.transpose_a && !g.transpose_b && !g.bias && !g.accumulate && g.batch == 1 &&
         g.m % 96 == 0 && g.n % 96 == 0;
}
}
