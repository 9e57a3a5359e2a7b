// Random numbers and dropout from Philox4x32-10: a thread draws one counter, four elements.
#include "cuda/common/kernel.cuh"
#include "formulas/random.inl.h"

namespace smelt {
namespace {

// The four draws of this thread.
SMELT_WORD Philox4 draw(const GeneratorState* generator, uint64_t counter, int64_t i) {
  return philox4x32_10(generator->seed, generator->offset + counter + static_cast<uint64_t>(i), 0);
}

template <class S>
__global__ void random_floating(RandomArgs a) {
  const int64_t first = grid_thread() * 4;
  if (first >= a.n) return;
  const Philox4 bits = draw(a.generator, a.counter, first / 4);
  SMELT_UNROLL
  for (int l = 0; l < 4; ++l) {
    if (first + l >= a.n) break;
    static_cast<S*>(a.y)[first + l] =
        a.kind == RandomKind::uniform ? uniform_in<S>(bits.lane[l], a.a.f, a.b.f)
                                      : to_storage<S>(static_cast<Compute<S>>(
                                            a.a.f + a.b.f * normal_deviate(bits.lane[l / 2 * 2], bits.lane[l / 2 * 2 + 1], l % 2)));
  }
}
__global__ void random_integers(RandomArgs a) {
  const int64_t first = grid_thread() * 4;
  if (first >= a.n) return;
  const Philox4 bits = draw(a.generator, a.counter, first / 4);
  SMELT_UNROLL
  for (int l = 0; l < 4; ++l) {
    if (first + l >= a.n) break;
    static_cast<int64_t*>(a.y)[first + l] =
        a.kind == RandomKind::bits ? bits.lane[l] : integer_in(bits.lane[l], bits.lane[(l + 1) % 4], a.a.i, a.b.i);
  }
}

Status random(const RandomArgs& a, Context& context) noexcept {
  if (a.n == 0) return Status::ok;
  const dim3 blocks = cuda::blocks_for(ceil_div(a.n, 4), kThreads), threads = cuda::size3(kThreads);
  if (a.kind == RandomKind::uniform || a.kind == RandomKind::normal)
    return with_floating(a.dtype, [&]<class S>(S) { return cuda::launch(context, random_floating<S>, blocks, threads, 0, a); });
  return cuda::launch(context, random_integers, blocks, threads, 0, a);
}

template <class S>
__global__ void dropout_kernel(DropoutArgs a, uint64_t threshold, Compute<S> scale) {
  using V = Vec<S>;
  const int64_t first = grid_thread() * 4;
  if (first >= a.n) return;
  const Philox4 bits = draw(a.generator, a.counter, first / 4);
  const S* x = static_cast<const S*>(a.x);
  S* y = static_cast<S*>(a.y);
  SMELT_UNROLL
  for (int l = 0; l < 4; ++l) {
    if (first + l >= a.n) break;
    V v = V::set(from_storage(x[first + l])) * V::set(bits.lane[l] >= threshold ? scale : Compute<S>{0});
    if (a.accumulate) v = V::set(from_storage(y[first + l])) + v;
    y[first + l] = to_storage<S>(v.v);
  }
}

Status dropout(const DropoutArgs& a, Context& context) noexcept {
  if (a.n == 0) return Status::ok;
  return with_floating(a.dtype, [&]<class S>(S) {
    return cuda::launch(context, dropout_kernel<S>, cuda::blocks_for(ceil_div(a.n, 4), kThreads), cuda::size3(kThreads), 0, a,
                        dropout_threshold(a.p), static_cast<Compute<S>>(1.0 / (1.0 - a.p)));
  });
}

}  // namespace

void cuda::register_random(const Taker& taker) {
  add_kernel<RandomArgs, random>(taker, "sm80_random");
  add_kernel<DropoutArgs, dropout, floating_only>(taker, "sm80_dropout");
}

}  // namespace smelt
