// Functions of one element.
#include "cpu/kernels/common.inl.h"
#include "cpu/kernels/families.h"
#include "formulas/unary.inl.h"

namespace smelt {
namespace {

constexpr int64_t kGrain = 16384;

template <class S>
void unary_floating(const UnaryArgs& args, Context& context) {
  using V = Wide<S>;
  const S* x = static_cast<const S*>(args.x);
  S* y = static_cast<S*>(args.y);
  const bool past = past_caches<S>(args.n);
  with_op(args.op, [&]<UnaryOp op>(OpTag<op>) {
    parallel_for(context, args.n, kGrain, [&](int64_t begin, int64_t end) {
      const V a = c<V>(args.a.f), b = c<V>(args.b.f);
      each_written<V>(y + begin, end - begin, past, [&](int64_t i, int lanes) {
        return apply<op>(load<V>(x + begin + i, lanes), a, b);
      });
      if (past) end_stream();
    });
  });
}

Status unary(const UnaryArgs& args, Context& context) noexcept {
  if (gives_bool(args.op)) {
    const auto run = [&]<class S>(S) {
      parallel_for(context, args.n, kGrain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          static_cast<bool*>(args.y)[i] = predicate(args.op, static_cast<const S*>(args.x)[i]);
      });
    };
    is_floating(args.dtype) ? with_floating(args.dtype, run) : with_integer(args.dtype, run);
  } else if (is_floating(args.dtype)) {
    with_floating(args.dtype, [&]<class S>(S) { unary_floating<S>(args, context); });
  } else {
    with_integer(args.dtype, [&]<class T>(T) {
      parallel_for(context, args.n, kGrain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          static_cast<T*>(args.y)[i] = integer_op(args.op, static_cast<const T*>(args.x)[i], args.a, args.b);
      });
    });
  }
  return Status::ok;
}

template <class S>
void unary_backward_run(const UnaryBackwardArgs& args, Context& context) {
  using V = Wide<S>;
  const S* saved = static_cast<const S*>(args.saved);
  const S* dy = static_cast<const S*>(args.dy);
  S* dx = static_cast<S*>(args.dx);
  const bool past = !args.accumulate && past_caches<S>(args.n);
  with_op(args.op, [&]<UnaryOp op>(OpTag<op>) {
    parallel_for(context, args.n, kGrain, [&](int64_t begin, int64_t end) {
      const V a = c<V>(args.a.f), b = c<V>(args.b.f);
      each_written<V>(dx + begin, end - begin, past, [&](int64_t offset, int lanes) {
        const int64_t i = begin + offset;
        const V d = load<V>(dy + i, lanes) * derivative<op>(load<V>(saved + i, lanes), a, b);
        return args.accumulate ? load<V>(dx + i, lanes) + d : d;
      });
      if (past) end_stream();
    });
  });
}

Status unary_backward(const UnaryBackwardArgs& args, Context& context) noexcept {
  with_floating(args.dtype, [&]<class S>(S) { unary_backward_run<S>(args, context); });
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_unary(KernelTable& table) {
  add_kernel<UnaryArgs, unary>(table, SMELT_KERNEL_NAME("unary"));
  add_kernel<UnaryBackwardArgs, unary_backward, floating_only>(table, SMELT_KERNEL_NAME("unary_backward"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
