// Reading and writing by index.
#include "cpu/kernels/common.inl.h"
#include "cpu/kernels/families.h"

namespace smelt {
namespace {

constexpr int64_t kGrain = 32768;  // elements

Status check_index(const CheckIndexArgs& a, Context& context) noexcept {
  const auto at = [&](int64_t i) {
    return a.dtype == DType::int64 ? static_cast<const int64_t*>(a.index)[i] : static_cast<const int32_t*>(a.index)[i];
  };
  for (int64_t i = 0; i < a.n; ++i) {
    const int64_t v = at(i);
    if ((v < a.low || v >= a.high) && v != a.ignore) {
      context.detail[0] = i;
      context.detail[1] = v;
      return Status::index_out_of_range;
    }
  }
  return Status::ok;
}

Status take(const TakeArgs& a, Context& context) noexcept {
  with_bits(a.dtype, [&]<class T>(T) {
    const T* x = static_cast<const T*>(a.x);
    T* y = static_cast<T*>(a.y);
    parallel_for(context, a.outer * a.m, max_of(int64_t{1}, kGrain / max_of(a.inner, int64_t{1})),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t row = begin; row < end; ++row) {
                     const T* from = x + (row / a.m * a.n + a.index[row % a.m]) * a.inner;
                     if (a.inner == 1)
                       y[row] = *from;
                     else
                       __builtin_memcpy(y + row * a.inner, from, static_cast<size_t>(a.inner) * sizeof(T));
                   }
                 });
  });
  return Status::ok;
}

// Each piece of work owns some columns of some outer slices, so additions to one element keep the order of j.
template <class S, class Add>
void put_run(const PutArgs& a, Context& context, const Add& add) {
  constexpr int64_t kColumns = 64;
  const S* dy = static_cast<const S*>(a.dy);
  S* dx = static_cast<S*>(a.dx);
  const int64_t blocks = ceil_div(a.inner, kColumns);
  parallel_for(context, a.outer * blocks, max_of(int64_t{1}, kGrain / max_of(a.m * min_of(a.inner, kColumns), int64_t{1})),
               [&](int64_t begin, int64_t end) {
                 for (int64_t job = begin; job < end; ++job) {
                   const int64_t o = job / blocks, column = job % blocks * kColumns;
                   const int64_t columns = min_of(a.inner - column, kColumns);
                   for (int64_t j = 0; j < a.m; ++j) {
                     if (a.index[j] == a.skip) continue;
                     add(dy + (o * a.m + j) * a.inner + column, dx + (o * a.n + a.index[j]) * a.inner + column, columns);
                   }
                 }
               });
}

Status put(const PutArgs& a, Context& context) noexcept {
  if (a.assign) {
    with_bits(a.dtype, [&]<class T>(T) {
      put_run<T>(a, context, [](const T* from, T* to, int64_t n) {
        for (int64_t i = 0; i < n; ++i) to[i] = from[i];
      });
    });
  } else {
    with_floating(a.dtype, [&]<class S>(S) {
      put_run<S>(a, context, [](const S* from, S* to, int64_t n) {
        each_vector<Vec<S>>(n, [&](int64_t i, int lanes) {
          store(to + i, load<Vec<S>>(to + i, lanes) + load<Vec<S>>(from + i, lanes), lanes);
        });
      });
    });
  }
  return Status::ok;
}

Status gather(const GatherArgs& a, Context& context) noexcept {
  with_bits(a.dtype, [&]<class T>(T) {
    const T* x = static_cast<const T*>(a.x);
    T* y = static_cast<T*>(a.y);
    parallel_for(context, a.outer * a.m, max_of(int64_t{1}, kGrain / max_of(a.inner, int64_t{1})),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t row = begin; row < end; ++row)
                     for (int64_t i = 0; i < a.inner; ++i) {
                       const int64_t at = row * a.inner + i;
                       y[at] = x[(row / a.m * a.n + a.index[at]) * a.inner + i];
                     }
                 });
  });
  return Status::ok;
}

Status scatter_add(const ScatterAddArgs& a, Context& context) noexcept {
  const auto run = [&]<class S>(S) {
    const S* x = static_cast<const S*>(a.x);
    S* y = static_cast<S*>(a.y);
    const int64_t per_outer = a.m * a.inner;
    parallel_for(context, a.outer, max_of(int64_t{1}, kGrain / max_of(per_outer, int64_t{1})),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t o = begin; o < end; ++o)
                     for (int64_t at = o * per_outer; at < (o + 1) * per_outer; ++at) {
                       S& to = y[(o * a.n + a.index[at]) * a.inner + at % a.inner];
                       if constexpr (!is_real<decltype(from_storage(S{}))>)
                         to = static_cast<S>(to + x[at]);
                       else
                         to = to_storage<S>(from_storage(to) + from_storage(x[at]));
                     }
                 });
  };
  is_floating(a.dtype) ? with_floating(a.dtype, run) : with_integer(a.dtype, run);
  return Status::ok;
}

Status nonzero(const NonzeroArgs& a, Context&) noexcept {
  const bool* x = static_cast<const bool*>(a.x);
  int64_t found = 0;
  for (int64_t i = 0; i < a.n; ++i) {
    if (x[i]) a.index[found++] = i;
  }
  *a.count = found;
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_index(KernelTable& table) {
  add_kernel<CheckIndexArgs, check_index>(table, SMELT_KERNEL_NAME("check_index"));
  add_kernel<TakeArgs, take>(table, SMELT_KERNEL_NAME("take"));
  add_kernel<PutArgs, put>(table, SMELT_KERNEL_NAME("put"));
  add_kernel<GatherArgs, gather>(table, SMELT_KERNEL_NAME("gather"));
  add_kernel<ScatterAddArgs, scatter_add>(table, SMELT_KERNEL_NAME("scatter_add"));
  add_kernel<NonzeroArgs, nonzero>(table, SMELT_KERNEL_NAME("nonzero"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
