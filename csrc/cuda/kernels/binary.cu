// Functions of two elements with broadcasting, and where.
#include "cuda/common/walk.cuh"
#include "formulas/binary.inl.h"

namespace smelt {
namespace {

// W elements of an operand whose step along them is 1 or 0, `count` of which are there.
template <int W, class S>
SMELT_WORD Pack<S, W> load_operand(const S* p, bool dense, int count) {
  if (dense && count == W) return load_pack<W>(p);
  Pack<S, W> pack;
  for (int j = 0; j < W; ++j) pack.e[j] = dense ? p[j < count ? j : 0] : *p;
  return pack;
}

template <BinaryOp op>
struct BinaryTag {};
// Arithmetic ops alone.
template <class F>
SMELT_INLINE void with_arithmetic(BinaryOp wanted, const F& f) {
  switch (wanted) {
    case BinaryOp::add: return f(BinaryTag<BinaryOp::add>{});
    case BinaryOp::sub: return f(BinaryTag<BinaryOp::sub>{});
    case BinaryOp::mul: return f(BinaryTag<BinaryOp::mul>{});
    case BinaryOp::div: return f(BinaryTag<BinaryOp::div>{});
    case BinaryOp::floor_div: return f(BinaryTag<BinaryOp::floor_div>{});
    case BinaryOp::remainder: return f(BinaryTag<BinaryOp::remainder>{});
    case BinaryOp::pow: return f(BinaryTag<BinaryOp::pow>{});
    case BinaryOp::maximum: return f(BinaryTag<BinaryOp::maximum>{});
    default: return f(BinaryTag<BinaryOp::minimum>{});
  }
}

template <class S>
struct BinaryJob {
  const S *a, *b;  // null: the scalar
  void* y;
  S scalar;
  bool a_dense, b_dense;  // along the last axis, else constant
  BinaryOp op;
  bool accumulate;
};

template <class S, class Y, int W>
__global__ void binary_kernel(BinaryJob<S> job, Walk<2> walk) {
  const int64_t i = grid_thread() * W;
  if (i >= walk.n) return;
  int64_t offset[2];
  walk.offsets(i, offset);
  const int count = static_cast<int>(min_of(walk.n - i, int64_t{W}));
  Pack<S, W> a, b;
  for (int j = 0; j < W; ++j) a.e[j] = b.e[j] = job.scalar;
  if (job.a) a = load_operand<W>(job.a + offset[0], job.a_dense, count);
  if (job.b) b = load_operand<W>(job.b + offset[1], job.b_dense, count);
  Y* y = static_cast<Y*>(job.y) + i;
  Pack<Y, W> result = {};
  if constexpr (__is_same(Y, bool)) {
    for (int j = 0; j < W; ++j) result.e[j] = compare(job.op, from_storage(a.e[j]), from_storage(b.e[j]));
  } else if constexpr (is_real<S> || sizeof(S) == 2) {
    using V = Vec<S>;
    if (job.accumulate) result = load_operand<W>(static_cast<const Y*>(y), true, count);
    with_arithmetic(job.op, [&]<BinaryOp op>(BinaryTag<op>) {
      SMELT_UNROLL
      for (int j = 0; j < W; ++j) {
        V v = apply<op>(V::set(from_storage(a.e[j])), V::set(from_storage(b.e[j])));
        if (job.accumulate) v = V::set(from_storage(result.e[j])) + v;
        result.e[j] = to_storage<S>(v.v);
      }
    });
  } else {
    for (int j = 0; j < W; ++j) result.e[j] = integer_op(job.op, a.e[j], b.e[j]);
  }
  store_pack(y, result, count);
}

template <class S, class Y>
Status binary_run(const BinaryArgs& args, Context& context, S scalar) {
  constexpr int64_t kNone[kMaxRank] = {};
  const Walk<2> walk(args.rank, args.shape, {args.a ? args.a_stride : kNone, args.b ? args.b_stride : kNone});
  if (walk.n == 0) return Status::ok;
  const int last = walk.rank - 1;
  BinaryJob<S> job{static_cast<const S*>(args.a), static_cast<const S*>(args.b), args.y, scalar, false, false, args.op, args.accumulate};
  if (last >= 0) {
    job.a_dense = walk.stride[0][last] == 1;
    job.b_dense = walk.stride[1][last] == 1;
  }
  constexpr int W = 16 / sizeof(S);
  const dim3 threads = cuda::size3(kThreads);
  const bool wide = walk.packs(W) && (!job.a_dense || aligned16(args.a)) && (!job.b_dense || aligned16(args.b)) && aligned16(args.y);
  if (wide) return cuda::launch(context, binary_kernel<S, Y, W>, cuda::blocks_for(ceil_div(walk.n, W), kThreads), threads, 0, job, walk);
  return cuda::launch(context, binary_kernel<S, Y, 1>, cuda::blocks_for(walk.n, kThreads), threads, 0, job, walk);
}

Status binary(const BinaryArgs& args, Context& context) noexcept {
  if (is_floating(args.dtype))
    return with_floating(args.dtype, [&]<class S>(S) {
      const S scalar = to_storage<S>(static_cast<Compute<S>>(args.scalar.f));
      return gives_bool(args.op) ? binary_run<S, bool>(args, context, scalar) : binary_run<S, S>(args, context, scalar);
    });
  return with_integer(args.dtype, [&]<class T>(T) {
    const T scalar = static_cast<T>(args.scalar.i);
    return gives_bool(args.op) ? binary_run<T, bool>(args, context, scalar) : binary_run<T, T>(args, context, scalar);
  });
}

template <class T>
__global__ void where_kernel(const bool* condition, const T* a, const T* b, T* y, Walk<3> walk) {
  const int64_t i = grid_thread();
  if (i >= walk.n) return;
  int64_t offset[3];
  walk.offsets(i, offset);
  const T* from = condition[offset[0]] ? a : b;
  y[i] = from ? from[condition[offset[0]] ? offset[1] : offset[2]] : T{0};
}

Status where(const WhereArgs& args, Context& context) noexcept {
  return with_bits(args.dtype, [&]<class T>(T) {
    const Walk<3> walk(args.rank, args.shape, {args.condition_stride, args.a_stride, args.b_stride});
    if (walk.n == 0) return Status::ok;
    return cuda::launch(context, where_kernel<T>, cuda::blocks_for(walk.n, kThreads), cuda::size3(kThreads), 0,
                        static_cast<const bool*>(args.condition), static_cast<const T*>(args.a), static_cast<const T*>(args.b),
                        static_cast<T*>(args.y), walk);
  });
}

}  // namespace

void cuda::register_binary(const Taker& taker) {
  add_kernel<BinaryArgs, binary>(taker, "sm80_binary");
  add_kernel<WhereArgs, where>(taker, "sm80_where");
}

}  // namespace smelt
