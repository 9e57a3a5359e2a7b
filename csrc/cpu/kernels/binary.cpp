// Functions of two elements with broadcasting, and where.
#include "cpu/kernels/common.inl.h"
#include "cpu/kernels/families.h"
#include "formulas/binary.inl.h"

namespace smelt {
namespace {

constexpr int64_t kGrain = 16384;

// ------------------------------------------------------------------------------------------------------ the walk

// Calls row(y offset, a offset, b offset) for each row of the last axis.
template <class Row>
void each_row(const BinaryArgs& args, Context& context, const Row& row) {
  const int last = args.rank - 1;
  const int64_t inner = args.rank ? args.shape[last] : 1;
  int64_t outer = 1;
  for (int i = 0; i < last; ++i) outer *= args.shape[i];
  if (inner == 0) return;
  parallel_for(context, outer, max_of(int64_t{1}, kGrain / inner), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      int64_t a_offset = 0, b_offset = 0, rest = r;
      for (int i = last - 1; i >= 0; --i) {
        a_offset += rest % args.shape[i] * args.a_stride[i];
        b_offset += rest % args.shape[i] * args.b_stride[i];
        rest /= args.shape[i];
      }
      row(r * inner, a_offset, b_offset, int64_t{0}, inner);
    }
  });
}

// Likewise, but a single row is cut into pieces: row(y, a, b offsets, begin, end).
template <class Row>
void each_piece(const BinaryArgs& args, Context& context, const Row& row) {
  if (args.rank > 1) return each_row(args, context, row);
  const int64_t n = args.rank ? args.shape[0] : 1;
  parallel_for(context, n, kGrain, [&](int64_t begin, int64_t end) { row(int64_t{0}, int64_t{0}, int64_t{0}, begin, end); });
}

// One operand of a row: a vector of memory, one element repeated, or elements a stride apart.
template <class V, class S>
inline V load_operand(const S* p, int64_t step, int64_t i, int lanes) {
  if (step == 1) return load<V>(p + i, lanes);
  if (step == 0) return V::set(from_storage(*p));
  S gathered[V::W] = {};
  for (int j = 0; j < lanes; ++j) gathered[j] = p[(i + j) * step];
  return V::load(gathered);
}

template <class S, BinaryOp op>
void arithmetic(const BinaryArgs& args, Context& context) {
  using V = Vec<S>;
  const S scalar = to_storage<S>(static_cast<Compute<S>>(args.scalar.f));
  const S* a = args.a ? static_cast<const S*>(args.a) : &scalar;
  const S* b = args.b ? static_cast<const S*>(args.b) : &scalar;
  S* y = static_cast<S*>(args.y);
  const int last = args.rank ? args.rank - 1 : 0;
  const int64_t a_step = args.a && args.rank ? args.a_stride[last] : 0, b_step = args.b && args.rank ? args.b_stride[last] : 0;
  each_piece(args, context, [&](int64_t at, int64_t a_offset, int64_t b_offset, int64_t begin, int64_t end) {
    const S* ap = args.a ? a + a_offset : a;
    const S* bp = args.b ? b + b_offset : b;
    each_vector<V>(end - begin, [&](int64_t offset, int lanes) {
      const int64_t i = begin + offset;
      V r = apply<op>(load_operand<V>(ap, a_step, i, lanes), load_operand<V>(bp, b_step, i, lanes));
      if (args.accumulate) r = load<V>(y + at + i, lanes) + r;
      store(y + at + i, r, lanes);
    });
  });
}

template <class S>
void arithmetic_floating(const BinaryArgs& args, Context& context) {
  switch (args.op) {
    case BinaryOp::add: return arithmetic<S, BinaryOp::add>(args, context);
    case BinaryOp::sub: return arithmetic<S, BinaryOp::sub>(args, context);
    case BinaryOp::mul: return arithmetic<S, BinaryOp::mul>(args, context);
    case BinaryOp::div: return arithmetic<S, BinaryOp::div>(args, context);
    case BinaryOp::floor_div: return arithmetic<S, BinaryOp::floor_div>(args, context);
    case BinaryOp::remainder: return arithmetic<S, BinaryOp::remainder>(args, context);
    case BinaryOp::pow: return arithmetic<S, BinaryOp::pow>(args, context);
    case BinaryOp::maximum: return arithmetic<S, BinaryOp::maximum>(args, context);
    default: return arithmetic<S, BinaryOp::minimum>(args, context);
  }
}

// Element by element: integers, and everything that gives bool.
template <class S, class Y, class F>
void scalar_walk(const BinaryArgs& args, Context& context, S scalar, const F& f) {
  const int last = args.rank ? args.rank - 1 : 0;
  const int64_t a_step = args.a && args.rank ? args.a_stride[last] : 0, b_step = args.b && args.rank ? args.b_stride[last] : 0;
  each_piece(args, context, [&](int64_t at, int64_t a_offset, int64_t b_offset, int64_t begin, int64_t end) {
    const S* a = args.a ? static_cast<const S*>(args.a) + a_offset : &scalar;
    const S* b = args.b ? static_cast<const S*>(args.b) + b_offset : &scalar;
    Y* y = static_cast<Y*>(args.y) + at;
    for (int64_t i = begin; i < end; ++i) y[i] = f(a[i * a_step], b[i * b_step]);
  });
}

Status binary(const BinaryArgs& args, Context& context) noexcept {
  if (is_floating(args.dtype)) {
    with_floating(args.dtype, [&]<class S>(S) {
      if (gives_bool(args.op))
        scalar_walk<S, bool>(args, context, to_storage<S>(static_cast<Compute<S>>(args.scalar.f)),
                             [&](S a, S b) { return compare(args.op, from_storage(a), from_storage(b)); });
      else
        arithmetic_floating<S>(args, context);
    });
  } else {
    with_integer(args.dtype, [&]<class T>(T) {
      const T scalar = static_cast<T>(args.scalar.i);
      if (gives_bool(args.op))
        scalar_walk<T, bool>(args, context, scalar, [&](T a, T b) { return compare(args.op, a, b); });
      else
        scalar_walk<T, T>(args, context, scalar, [&](T a, T b) { return integer_op(args.op, a, b); });
    });
  }
  return Status::ok;
}

Status where(const WhereArgs& args, Context& context) noexcept {
  with_bits(args.dtype, [&]<class T>(T) {
    const int last = args.rank - 1;
    const int64_t inner = args.rank ? args.shape[last] : 1;
    int64_t outer = 1;
    for (int i = 0; i < last; ++i) outer *= args.shape[i];
    const T zero = 0;
    const int64_t c_step = args.rank ? args.condition_stride[last] : 0;
    const int64_t a_step = args.rank && args.a ? args.a_stride[last] : 0;
    const int64_t b_step = args.rank && args.b ? args.b_stride[last] : 0;
    parallel_for(context, inner ? outer : 0, max_of(int64_t{1}, kGrain / max_of(inner, int64_t{1})),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t r = begin; r < end; ++r) {
                     int64_t offset[3] = {}, rest = r;
                     for (int i = last - 1; i >= 0; --i) {
                       const int64_t at = rest % args.shape[i];
                       rest /= args.shape[i];
                       offset[0] += at * args.condition_stride[i];
                       offset[1] += at * args.a_stride[i];
                       offset[2] += at * args.b_stride[i];
                     }
                     const bool* condition = static_cast<const bool*>(args.condition) + offset[0];
                     const T* a = args.a ? static_cast<const T*>(args.a) + offset[1] : &zero;
                     const T* b = args.b ? static_cast<const T*>(args.b) + offset[2] : &zero;
                     T* y = static_cast<T*>(args.y) + r * inner;
                     for (int64_t i = 0; i < inner; ++i) y[i] = condition[i * c_step] ? a[i * a_step] : b[i * b_step];
                   }
                 });
  });
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_binary(KernelTable& table) {
  add_kernel<BinaryArgs, binary>(table, SMELT_KERNEL_NAME("binary"));
  add_kernel<WhereArgs, where>(table, SMELT_KERNEL_NAME("where"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
