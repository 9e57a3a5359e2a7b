// Reductions, scans and sorting. The reduced axis is cut by shape alone and the parts are combined in order, so the
// result does not depend on the number of threads.
#include "cpu/kernels/common.inl.h"
#include "cpu/kernels/families.h"

namespace smelt {
namespace {

constexpr int64_t kChunkElements = 8192;  // of a contiguous row
constexpr int64_t kChunkRows = 256;       // of columns
constexpr int64_t kColumns = 256;         // columns that one piece of work covers
constexpr int64_t kGrain = 32768;

// Integers, one at a time, behind the interface of a vector.
struct VecI {
  static constexpr int W = 1;
  using T = int64_t;
  int64_t v;
  static VecI set(int64_t x) { return {x}; }
  template <class S>
  static VecI load(const S* p, int = 1) {
    return {static_cast<int64_t>(*p)};
  }
  template <class S>
  void store(S* p, int = 1) const {
    *p = static_cast<S>(v);
  }
  friend VecI operator+(VecI a, VecI b) { return {static_cast<int64_t>(static_cast<uint64_t>(a.v) + static_cast<uint64_t>(b.v))}; }
  friend VecI operator*(VecI a, VecI b) { return {static_cast<int64_t>(static_cast<uint64_t>(a.v) * static_cast<uint64_t>(b.v))}; }
};
inline VecI max_nan(VecI a, VecI b) { return {max_of(a.v, b.v)}; }
inline VecI min_nan(VecI a, VecI b) { return {min_of(a.v, b.v)}; }

template <ReduceOp op>
struct Combine {
  template <class V>
  static V run(V a, V b) {
    if constexpr (op == ReduceOp::sum) return a + b;
    if constexpr (op == ReduceOp::prod) return a * b;
    if constexpr (op == ReduceOp::max || op == ReduceOp::any) return max_nan(a, b);
    if constexpr (op == ReduceOp::min || op == ReduceOp::all) return min_nan(a, b);
  }
  template <class T>
  static constexpr T identity() {
    if constexpr (op == ReduceOp::sum || op == ReduceOp::any) return 0;
    if constexpr (op == ReduceOp::prod || op == ReduceOp::all) return 1;
    if constexpr (op == ReduceOp::max) return is_real<T> ? static_cast<T>(-__builtin_inf()) : INT64_MIN;
    if constexpr (op == ReduceOp::min) return is_real<T> ? static_cast<T>(__builtin_inf()) : INT64_MAX;
  }
};

// `lanes` elements, the other lanes holding the identity.
template <class V, class Op, class S>
V load_or_identity(const S* p, int lanes) {
  if (lanes == V::W) return V::load(p);
  typename V::T buffer[V::W];
  V::load(p, lanes).store(buffer);
  for (int i = lanes; i < V::W; ++i) buffer[i] = Op::template identity<typename V::T>();
  return V::load(buffer);
}

// Halves of the lanes are combined until one is left: sums and extrema have instructions for that, which know no NaN.
template <class V, class Op>
typename V::T across_lanes(V v) {
  if constexpr (is_real<typename V::T> && V::W > 1) {
    if constexpr (__is_same(Op, Combine<ReduceOp::sum>)) return sum(v);
    if constexpr (__is_same(Op, Combine<ReduceOp::max>))
      if (is_nan(v).bits() == 0) return max_lane(v);
    if constexpr (__is_same(Op, Combine<ReduceOp::min>))
      if (is_nan(v).bits() == 0) return -max_lane(-v);
  }
  typename V::T lanes[V::W];
  v.store(lanes);
  for (int width = V::W / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) {
      if constexpr (V::W > 1) {
        using One = typename V::T;
        One pair[V::W] = {lanes[i]}, other[V::W] = {lanes[i + width]};
        One result[V::W];
        Op::run(V::load(pair), V::load(other)).store(result);
        lanes[i] = result[0];
      }
    }
  return lanes[0];
}

template <class V, class Op, class S>
typename V::T reduce_row(const S* x, int64_t n) {
  const V identity = V::set(Op::template identity<typename V::T>());
  if constexpr (!is_real<typename V::T>) {
    // One accumulator: integers give the same in any order, and gcc 12 at -O3 loses elements of four that widen.
    V acc = identity;
    for (int64_t i = 0; i < n; ++i) acc = Op::run(acc, V::load(x + i));
    return acc.v;
  }
  V acc[4] = {identity, identity, identity, identity};
  int64_t i = 0;
  for (; i + 4 * V::W <= n; i += 4 * V::W)
    for (int k = 0; k < 4; ++k) acc[k] = Op::run(acc[k], V::load(x + i + k * V::W));
  for (int k = 0; i < n; i += V::W, ++k)
    acc[k] = Op::run(acc[k], load_or_identity<V, Op>(x + i, static_cast<int>(min_of(n - i, int64_t{V::W}))));
  return across_lanes<V, Op>(Op::run(Op::run(acc[0], acc[1]), Op::run(acc[2], acc[3])));
}

// Rows [0, n) of `columns` columns into acc.
template <class V, class Op, class S>
void reduce_columns(const S* x, int64_t row_step, int64_t n, int64_t columns, typename V::T* acc) {
  for (int64_t j = 0; j < columns; ++j) acc[j] = Op::template identity<typename V::T>();
  for (int64_t r = 0; r < n; ++r) {
    const S* row = x + r * row_step;
    each_vector<V>(columns, [&](int64_t j, int lanes) {
      store(acc + j, Op::run(load<V>(acc + j, lanes), load<V>(row + j, lanes)), lanes);
    });
  }
}

int64_t chunk_count(const ReduceArgs& a) {
  return max_of(int64_t{1}, ceil_div(a.n, a.inner == 1 ? kChunkElements : kChunkRows));
}
size_t reduce_workspace(const ReduceArgs& a, int) {
  const int64_t chunks = chunk_count(a);
  return a.index || chunks == 1 ? 0 : static_cast<size_t>(a.outer * chunks * a.inner) * 8;
}

template <class V, class Op, class S, class Y>
void reduce_run(const ReduceArgs& a, Context& context) {
  using T = typename V::T;
  const S* x = static_cast<const S*>(a.x);
  Y* y = static_cast<Y*>(a.y);
  const int64_t chunks = chunk_count(a), chunk_size = a.inner == 1 ? kChunkElements : kChunkRows;
  const auto finish = [&](int64_t i, T value) {
    if constexpr (is_real<T>) {
      value = static_cast<T>(value * static_cast<T>(a.scale));
      if (a.accumulate) value = from_storage(y[i]) + value;
      y[i] = to_storage<Y>(value);
    } else {
      y[i] = static_cast<Y>(value);
    }
  };
  T* partial = static_cast<T*>(context.workspace);  // (outer, chunks, inner)
  if (a.inner == 1) {
    parallel_for(context, a.outer * chunks, max_of(int64_t{1}, kGrain / max_of(min_of(a.n, chunk_size), int64_t{1})),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t job = begin; job < end; ++job) {
                     const int64_t first = job % chunks * chunk_size, count = min_of(a.n - first, chunk_size);
                     const T value = reduce_row<V, Op>(x + job / chunks * a.n + first, count);
                     chunks == 1 ? finish(job, value) : void(partial[job] = value);
                   }
                 });
  } else {
    const int64_t blocks = ceil_div(a.inner, kColumns);
    const int64_t work = min_of(a.n, chunk_size) * min_of(a.inner, kColumns);
    parallel_for(context, a.outer * chunks * blocks, max_of(int64_t{1}, kGrain / max_of(work, int64_t{1})),
                 [&](int64_t begin, int64_t end) {
                   T acc[kColumns];
                   for (int64_t job = begin; job < end; ++job) {
                     const int64_t block = job % blocks, chunk = job / blocks % chunks, o = job / blocks / chunks;
                     const int64_t column = block * kColumns, columns = min_of(a.inner - column, kColumns);
                     const int64_t first = chunk * chunk_size, count = min_of(a.n - first, chunk_size);
                     T* out = chunks == 1 ? acc : partial + (o * chunks + chunk) * a.inner + column;
                     reduce_columns<V, Op>(x + (o * a.n + first) * a.inner + column, a.inner, count, columns, out);
                     for (int64_t j = 0; chunks == 1 && j < columns; ++j) finish(o * a.inner + column + j, out[j]);
                   }
                 });
  }
  if (chunks == 1) return;
  parallel_for(context, a.outer * a.inner, kGrain / chunks, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T* first = partial + i / a.inner * chunks * a.inner + i % a.inner;
      T value = first[0];
      for (int64_t chunk = 1; chunk < chunks; ++chunk) {
        // One lane of the same operation.
        T left[V::W] = {value}, right[V::W] = {first[chunk * a.inner]}, both[V::W];
        Op::run(V::load(left), V::load(right)).store(both);
        value = both[0];
      }
      finish(i, value);
    }
  });
}

// The first extremum along the axis and its position; a NaN beats everything.
template <class S>
void extremum_run(const ReduceArgs& a, Context& context) {
  constexpr int64_t kWide = 64;
  const S* x = static_cast<const S*>(a.x);
  const bool want_max = a.op == ReduceOp::max;
  const int64_t blocks = ceil_div(a.inner, kWide);
  parallel_for(context, a.outer * blocks, max_of(int64_t{1}, kGrain / max_of(a.n * min_of(a.inner, kWide), int64_t{1})),
               [&](int64_t begin, int64_t end) {
                 for (int64_t job = begin; job < end; ++job) {
                   const int64_t o = job / blocks, column = job % blocks * kWide;
                   const int64_t columns = min_of(a.inner - column, kWide);
                   S best[kWide];
                   int64_t where[kWide];
                   const S* rows = x + o * a.n * a.inner + column;
                   for (int64_t j = 0; j < columns; ++j) {
                     best[j] = rows[j];
                     where[j] = 0;
                   }
                   for (int64_t r = 1; r < a.n; ++r) {
                     for (int64_t j = 0; j < columns; ++j) {
                       const auto v = from_storage(rows[r * a.inner + j]), b = from_storage(best[j]);
                       const bool better = want_max ? v > b : v < b;
                       if (better || (v != v && b == b)) {
                         best[j] = rows[r * a.inner + j];
                         where[j] = r;
                       }
                     }
                   }
                   for (int64_t j = 0; j < columns; ++j) {
                     static_cast<S*>(a.y)[o * a.inner + column + j] = best[j];
                     a.index[o * a.inner + column + j] = where[j];
                   }
                 }
               });
}

template <ReduceOp op>
void reduce_typed(const ReduceArgs& a, Context& context) {
  if (is_floating(a.dtype)) {
    if constexpr (op != ReduceOp::any && op != ReduceOp::all)
      with_sums(a.dtype, a.y_dtype, [&]<class S, class Y>(S, Y) { reduce_run<Vec<S>, Combine<op>, S, Y>(a, context); });
  } else {
    with_integer(a.dtype, [&]<class S>(S) {
      if constexpr (op == ReduceOp::sum || op == ReduceOp::prod)
        reduce_run<VecI, Combine<op>, S, int64_t>(a, context);
      else
        reduce_run<VecI, Combine<op>, S, S>(a, context);
    });
  }
}

Status reduce(const ReduceArgs& a, Context& context) noexcept {
  if (a.index) {
    is_floating(a.dtype) ? with_floating(a.dtype, [&]<class S>(S) { extremum_run<S>(a, context); })
                         : with_integer(a.dtype, [&]<class S>(S) { extremum_run<S>(a, context); });
    return Status::ok;
  }
  switch (a.op) {
    case ReduceOp::sum: reduce_typed<ReduceOp::sum>(a, context); break;
    case ReduceOp::prod: reduce_typed<ReduceOp::prod>(a, context); break;
    case ReduceOp::max: reduce_typed<ReduceOp::max>(a, context); break;
    case ReduceOp::min: reduce_typed<ReduceOp::min>(a, context); break;
    case ReduceOp::any: reduce_typed<ReduceOp::any>(a, context); break;
    case ReduceOp::all: reduce_typed<ReduceOp::all>(a, context); break;
  }
  return Status::ok;
}

// --------------------------------------------------------------------------------------------------------- cumsum

// Sums run in double; those of integers in uint64_t, which wraps.
template <class S, class Acc>
void cumsum_run(const CumsumArgs& a, Context& context) {
  constexpr int64_t kWide = 64;
  const int64_t blocks = ceil_div(a.inner, kWide);
  parallel_for(context, a.outer * blocks, max_of(int64_t{1}, kGrain / 4 / max_of(a.n * min_of(a.inner, kWide), int64_t{1})),
               [&](int64_t begin, int64_t end) {
                 for (int64_t job = begin; job < end; ++job) {
                   const int64_t column = job % blocks * kWide, columns = min_of(a.inner - column, kWide);
                   const int64_t offset = job / blocks * a.n * a.inner + column;
                   Acc acc[kWide] = {};
                   for (int64_t step = 0; step < a.n; ++step) {
                     const int64_t row = offset + (a.reverse ? a.n - 1 - step : step) * a.inner;
                     const S* x = static_cast<const S*>(a.x) + row;
                     S* y = static_cast<S*>(a.y) + row;
                     for (int64_t j = 0; j < columns; ++j) {
                       acc[j] += static_cast<Acc>(from_storage(x[j]));
                       if constexpr (__is_same(Acc, double))
                         y[j] = to_storage<S>(static_cast<Compute<S>>(a.accumulate ? acc[j] + from_storage(y[j]) : acc[j]));
                       else
                         y[j] = static_cast<S>(acc[j]);
                     }
                   }
                 }
               });
}

Status cumsum(const CumsumArgs& a, Context& context) noexcept {
  if (a.dtype == DType::int64)
    cumsum_run<int64_t, uint64_t>(a, context);
  else
    with_floating(a.dtype, [&]<class S>(S) { cumsum_run<S, double>(a, context); });
  return Status::ok;
}

// ----------------------------------------------------------------------------------------------------------- sort

template <class S>
struct Keyed {
  S key;
  int64_t index;
};

// Whether a stands before b; a NaN counts as the largest value.
template <class S>
bool before(S a_stored, S b_stored, bool descending) {
  const auto a = from_storage(a_stored), b = from_storage(b_stored);
  if (a != a || b != b) return descending ? (a != a) && (b == b) : (a == a) && (b != b);
  return descending ? a > b : a < b;
}

// Insertion sort of short runs, then merges back and forth between the two buffers; gives the one with the result.
template <class S>
Keyed<S>* merge_sort(Keyed<S>* items, Keyed<S>* spare, int64_t n, bool descending) {
  constexpr int64_t kRun = 16;
  for (int64_t begin = 0; begin < n; begin += kRun) {
    const int64_t end = min_of(begin + kRun, n);
    for (int64_t i = begin + 1; i < end; ++i) {
      const Keyed<S> item = items[i];
      int64_t j = i;
      for (; j > begin && before(item.key, items[j - 1].key, descending); --j) items[j] = items[j - 1];
      items[j] = item;
    }
  }
  for (int64_t width = kRun; width < n; width *= 2) {
    for (int64_t begin = 0; begin < n; begin += 2 * width) {
      const int64_t middle = min_of(begin + width, n), end = min_of(begin + 2 * width, n);
      for (int64_t left = begin, right = middle, out = begin; out < end; ++out) {
        const bool take_right = left == middle || (right < end && before(items[right].key, items[left].key, descending));
        spare[out] = take_right ? items[right++] : items[left++];
      }
    }
    Keyed<S>* const sorted = spare;
    spare = items;
    items = sorted;
  }
  return items;
}

size_t sort_workspace(const SortArgs& a, int threads) {
  return static_cast<size_t>(threads) * 2 * static_cast<size_t>(a.n) * sizeof(Keyed<double>);
}

Status sort(const SortArgs& a, Context& context) noexcept {
  const auto run = [&]<class S>(S) {
    parallel_chunks(context, a.rows, [&](int64_t row, int thread) {
      auto* items = reinterpret_cast<Keyed<S>*>(static_cast<char*>(context.workspace) +
                                                static_cast<size_t>(thread) * 2 * a.n * sizeof(Keyed<double>));
      const S* x = static_cast<const S*>(a.x) + row * a.n;
      for (int64_t i = 0; i < a.n; ++i) items[i] = {x[i], i};
      const Keyed<S>* sorted = merge_sort(items, items + a.n, a.n, a.descending);
      for (int64_t i = 0; i < a.n; ++i) {
        static_cast<S*>(a.y)[row * a.n + i] = sorted[i].key;
        a.index[row * a.n + i] = sorted[i].index;
      }
    });
  };
  is_floating(a.dtype) ? with_floating(a.dtype, run) : with_integer(a.dtype, run);
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_reduce(KernelTable& table) {
  add_kernel<ReduceArgs, reduce, nullptr, reduce_workspace>(table, SMELT_KERNEL_NAME("reduce"));
  add_kernel<CumsumArgs, cumsum>(table, SMELT_KERNEL_NAME("cumsum"));
  add_kernel<SortArgs, sort, nullptr, sort_workspace>(table, SMELT_KERNEL_NAME("sort"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
