// Limits of the machine: multiply-adds from registers; reading, writing, copying and updating memory, written past the
// caches but where it is updated or the copy is to stay in them. Here bfloat16 is multiplied in float32.
#include "cpu/kernels/common.inl.h"
#include "cpu/kernels/families.h"

namespace smelt {
namespace {

// Enough independent sums to fill the pipelines of two units with a latency of five.
constexpr int kSums = 12;

double multiply_add(int64_t rounds) {
  VecF sum[kSums];
  for (int i = 0; i < kSums; ++i) sum[i] = VecF::set(static_cast<float>(i));
  const VecF a = VecF::set(0.999f), b = VecF::set(1e-3f);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) sum[i] = fma(sum[i], a, b);
  }
  VecF total = sum[0];
  for (int i = 1; i < kSums; ++i) total = total + sum[i];
  volatile float sink = smelt::sum(total);
  (void)sink;
  return 2.0 * kSums * VecF::W * static_cast<double>(rounds);
}

double read(const float* p, int64_t n) {
  VecF sum[4] = {VecF::zero(), VecF::zero(), VecF::zero(), VecF::zero()};
  for (int64_t i = 0; i + 4 * VecF::W <= n; i += 4 * VecF::W)
    for (int k = 0; k < 4; ++k) sum[k] = sum[k] + VecF::load(p + i + k * VecF::W);
  volatile float sink = smelt::sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
  (void)sink;
  return 4.0 * static_cast<double>(n);
}

constexpr int64_t kLine = 16;  // floats that are written together

double write(float* p, int64_t n) {
  float ones[kLine];
  for (float& x : ones) x = 1;
  for (int64_t i = 0; i + kLine <= n; i += kLine) stream_line(p + i, ones);
  end_stream();
  return 4.0 * static_cast<double>(n / kLine * kLine);
}

double copy(float* p, int64_t n) {  // the first half to the second
  const int64_t half = n / 2 / kLine * kLine;
  for (int64_t i = 0; i < half; i += kLine) stream_line(p + half + i, p + i);
  end_stream();
  return 8.0 * static_cast<double>(half);
}

double copy_cached(float* p, int64_t n) {
  const int64_t half = n / 2 / kLine * kLine;
  for (int64_t i = 0; i + VecF::W <= half; i += VecF::W) VecF::load(p + i).store(p + half + i);
  return 8.0 * static_cast<double>(half);
}

double update(float* p, int64_t n) {
  const VecF one = VecF::set(1);
  for (int64_t i = 0; i + VecF::W <= n; i += VecF::W) (VecF::load(p + i) + one).store(p + i);
  return 8.0 * static_cast<double>(n);
}

double move(ProbeKind kind, float* p, int64_t n) {
  switch (kind) {
    case ProbeKind::read: return read(p, n);
    case ProbeKind::write: return write(p, n);
    case ProbeKind::update: return update(p, n);
    case ProbeKind::copy_cached: return copy_cached(p, n);
    default: return copy(p, n);
  }
}

Status probe(const ProbeArgs& a, Context& context) noexcept {
  // Every thread has its lines of memory.
  const int64_t threads = context.threads, skip = static_cast<int64_t>(-reinterpret_cast<uintptr_t>(a.memory) % 64 / 4);
  const int64_t share = max_of(a.n - skip, int64_t{0}) / threads / kLine * kLine;
  double done[256] = {};
  parallel_chunks(context, threads, [&](int64_t i, int) {
    float* p = a.memory + skip + i * share;
    if (a.kind == ProbeKind::fma || a.kind == ProbeKind::fma_bf16) {
      done[i] = multiply_add(a.rounds);
      return;
    }
    for (int64_t r = 0; r < a.rounds; ++r) done[i] += move(a.kind, p, share);
  });
  *a.done = 0;
  for (int64_t i = 0; i < threads; ++i) *a.done += done[i];
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_probe(KernelTable& table) { add_kernel<ProbeArgs, probe>(table, SMELT_KERNEL_NAME("probe")); }
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
