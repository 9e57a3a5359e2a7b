// Reading and writing by index.
#include "cpu/kernels/common.inl.h"
#include "cpu/kernels/families.h"

namespace smelt {
namespace {

constexpr int64_t kGrain = 32768;  // elements

Status check_index(const CheckIndexArgs& a, Context& context) noexcept {
  const auto at = [&](int64_t i) -> int64_t {
    if (a.dtype == DType::uint8) return static_cast<const uint8_t*>(a.index)[i];
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

// x[index] = value: each piece of work owns some columns of some outer slices, so the last of several j stands.
void assign_rows(const PutArgs& a, Context& context) {
  constexpr int64_t kColumns = 64;
  const int64_t blocks = ceil_div(a.inner, kColumns);
  with_bits(a.dtype, [&]<class T>(T) {
    parallel_for(context, a.outer * blocks, max_of(int64_t{1}, kGrain / max_of(a.m * min_of(a.inner, kColumns), int64_t{1})),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t job = begin; job < end; ++job) {
                     const int64_t o = job / blocks, column = job % blocks * kColumns;
                     const int64_t columns = min_of(a.inner - column, kColumns);
                     for (int64_t j = 0; j < a.m; ++j) {
                       if (a.index[j] == a.skip) continue;
                       const T* from = static_cast<const T*>(a.dy) + (o * a.m + j) * a.inner + column;
                       T* to = static_cast<T*>(a.dx) + (o * a.n + a.index[j]) * a.inner + column;
                       for (int64_t i = 0; i < columns; ++i) to[i] = from[i];
                     }
                   }
                 });
  });
}

// The positions j sorted by row, those of one row in their order: first[r] to first[r + 1] - 1 of `order` are those of row r.
struct Sorted {
  int64_t* first;  // (n + 1)
  int64_t* order;  // (m)
};
size_t put_workspace(const PutArgs& a, int) {
  return a.assign ? 0 : static_cast<size_t>(a.n + 1 + a.m) * sizeof(int64_t);
}
Sorted sort_by_row(const PutArgs& a, void* workspace) {
  const Sorted s{static_cast<int64_t*>(workspace), static_cast<int64_t*>(workspace) + a.n + 1};
  for (int64_t r = 0; r <= a.n; ++r) s.first[r] = 0;
  for (int64_t j = 0; j < a.m; ++j)
    if (a.index[j] != a.skip) ++s.first[a.index[j]];  // what is skipped may be no row
  for (int64_t r = 0, before = 0; r <= a.n; ++r) {  // first[r] becomes the end of row r, and its begin as places are given away
    before += s.first[r];
    s.first[r] = before;
  }
  for (int64_t j = a.m; j-- > 0;)
    if (a.index[j] != a.skip) s.order[--s.first[a.index[j]]] = j;
  return s;
}

// The sum of the rows order[0 .. count) of dy, each of `inner` elements, in that order.
template <class S>
void sum_rows(const S* dy, const int64_t* order, int64_t count, int64_t inner, bool accumulate, S* dx) {
  using V = Vec<S>;
  constexpr int kVectors = 8;
  const auto finish = [&](int64_t i, V sum, int lanes) {
    store(dx + i, accumulate ? load<V>(dx + i, lanes) + sum : sum, lanes);
  };
  int64_t c = 0;
  for (; c + kVectors * V::W <= inner; c += kVectors * V::W) {
    V acc[kVectors];
    for (V& v : acc) v = V::zero();
    for (int64_t e = 0; e < count; ++e)
      for (int k = 0; k < kVectors; ++k) acc[k] = acc[k] + V::load(dy + order[e] * inner + c + k * V::W);
    for (int k = 0; k < kVectors; ++k) finish(c + k * V::W, acc[k], V::W);
  }
  each_vector<V>(inner - c, [&](int64_t i, int lanes) {
    V acc = V::zero();
    for (int64_t e = 0; e < count; ++e) acc = acc + load<V>(dy + order[e] * inner + c + i, lanes);
    finish(c + i, acc, lanes);
  });
}

// Each row of dx is written once, by one thread.
template <class S>
void add_rows(const PutArgs& a, Context& context) {
  const Sorted sorted = sort_by_row(a, context.workspace);
  parallel_for(context, a.outer * a.n, max_of(int64_t{1}, kGrain / max_of(a.inner, int64_t{1})), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t r = row % a.n, first = sorted.first[r], count = sorted.first[r + 1] - first;
      S* const dx = static_cast<S*>(a.dx) + row * a.inner;
      if (count > 0)
        sum_rows(static_cast<const S*>(a.dy) + row / a.n * a.m * a.inner, sorted.order + first, count, a.inner, a.accumulate, dx);
      else if (!a.accumulate)
        __builtin_memset(dx, 0, static_cast<size_t>(a.inner) * sizeof(S));
    }
  });
}

Status put(const PutArgs& a, Context& context) noexcept {
  if (a.assign)
    assign_rows(a, context);
  else
    with_floating(a.dtype, [&]<class S>(S) { add_rows<S>(a, context); });
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
  add_kernel<PutArgs, put, nullptr, put_workspace>(table, SMELT_KERNEL_NAME("put"));
  add_kernel<GatherArgs, gather>(table, SMELT_KERNEL_NAME("gather"));
  add_kernel<ScatterAddArgs, scatter_add>(table, SMELT_KERNEL_NAME("scatter_add"));
  add_kernel<NonzeroArgs, nonzero>(table, SMELT_KERNEL_NAME("nonzero"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
