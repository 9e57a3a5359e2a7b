// Functions of one element. One kernel has them all: memory is what it waits for, and every thread takes the same branch.
#include "cuda/common/walk.cuh"
#include "formulas/unary.inl.h"

namespace smelt {
namespace {

template <class S, int W>
__global__ void unary_kernel(UnaryArgs args) {
  using V = Vec<S>;
  const int64_t i = grid_thread() * W;
  if (i >= args.n) return;
  const S* x = static_cast<const S*>(args.x) + i;
  S* y = static_cast<S*>(args.y) + i;
  const V a = c<V>(args.a.f), b = c<V>(args.b.f);
  const int count = static_cast<int>(min_of(args.n - i, int64_t{W}));
  Pack<S, W> pack = load_pack<W>(x, count);
  with_op(args.op, [&]<UnaryOp op>(OpTag<op>) {
    SMELT_UNROLL
    for (int j = 0; j < W; ++j) pack.e[j] = to_storage<S>(apply<op>(V::set(from_storage(pack.e[j])), a, b).v);
  });
  store_pack(y, pack, count);
}

template <class T>
__global__ void integer_unary_kernel(UnaryArgs args) {
  const int64_t i = grid_thread();
  if (i < args.n) static_cast<T*>(args.y)[i] = integer_op(args.op, static_cast<const T*>(args.x)[i], args.a, args.b);
}

template <class S>
__global__ void predicate_kernel(UnaryArgs args) {
  const int64_t i = grid_thread();
  if (i < args.n) static_cast<bool*>(args.y)[i] = predicate(args.op, static_cast<const S*>(args.x)[i]);
}

Status unary(const UnaryArgs& args, Context& context) noexcept {
  if (args.n == 0) return Status::ok;
  const dim3 blocks = cuda::blocks_for(args.n, kThreads), threads = cuda::size3(kThreads);
  if (gives_bool(args.op)) {
    const auto run = [&]<class S>(S) { return cuda::launch(context, predicate_kernel<S>, blocks, threads, 0, args); };
    return is_floating(args.dtype) ? with_floating(args.dtype, run) : with_integer(args.dtype, run);
  }
  if (!is_floating(args.dtype))
    return with_integer(args.dtype, [&]<class T>(T) { return cuda::launch(context, integer_unary_kernel<T>, blocks, threads, 0, args); });
  return with_floating(args.dtype, [&]<class S>(S) {
    constexpr int W = 16 / sizeof(S);
    if (!aligned16(args.x) || !aligned16(args.y)) return cuda::launch(context, unary_kernel<S, 1>, blocks, threads, 0, args);
    return cuda::launch(context, unary_kernel<S, W>, cuda::blocks_for(ceil_div(args.n, W), kThreads), threads, 0, args);
  });
}

template <class S, int W>
__global__ void unary_backward_kernel(UnaryBackwardArgs args) {
  using V = Vec<S>;
  const int64_t i = grid_thread() * W;
  if (i >= args.n) return;
  const S* saved = static_cast<const S*>(args.saved) + i;
  const S* dy = static_cast<const S*>(args.dy) + i;
  S* dx = static_cast<S*>(args.dx) + i;
  const V a = c<V>(args.a.f), b = c<V>(args.b.f);
  const int count = static_cast<int>(min_of(args.n - i, int64_t{W}));
  const Pack<S, W> s = load_pack<W>(saved, count);
  Pack<S, W> d = load_pack<W>(dy, count), before = {};
  if (args.accumulate) before = load_pack<W>(static_cast<const S*>(dx), count);
  with_op(args.op, [&]<UnaryOp op>(OpTag<op>) {
    SMELT_UNROLL
    for (int j = 0; j < W; ++j) {
      V v = V::set(from_storage(d.e[j])) * derivative<op>(V::set(from_storage(s.e[j])), a, b);
      if (args.accumulate) v = V::set(from_storage(before.e[j])) + v;
      d.e[j] = to_storage<S>(v.v);
    }
  });
  store_pack(dx, d, count);
}

Status unary_backward(const UnaryBackwardArgs& args, Context& context) noexcept {
  if (args.n == 0) return Status::ok;
  return with_floating(args.dtype, [&]<class S>(S) {
    constexpr int W = 16 / sizeof(S);
    const dim3 threads = cuda::size3(kThreads);
    if (!aligned16(args.saved) || !aligned16(args.dy) || !aligned16(args.dx))
      return cuda::launch(context, unary_backward_kernel<S, 1>, cuda::blocks_for(args.n, kThreads), threads, 0, args);
    return cuda::launch(context, unary_backward_kernel<S, W>, cuda::blocks_for(ceil_div(args.n, W), kThreads), threads, 0, args);
  });
}

}  // namespace

void cuda::register_unary(const Taker& taker) {
  add_kernel<UnaryArgs, unary>(taker, "sm80_unary");
  add_kernel<UnaryBackwardArgs, unary_backward, floating_only>(taker, "sm80_unary_backward");
}

}  // namespace smelt
