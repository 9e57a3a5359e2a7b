// What every kernel file starts from. These files are compiled once per instruction set: all that they define stands in
// an anonymous namespace, and none uses a container of the standard library, so that no linker can run code of one set
// in place of another's.
#pragma once
#include "core/table.h"
#include "formulas/math.inl.h"
#include "formulas/types.inl.h"
#include "vec.h"  // of the instruction set

namespace smelt {
namespace {

constexpr Isa kIsa = Isa::SMELT_ISA;

// The vector that computes on elements stored as S.
template <class S>
struct VecFor {
  using type = VecF;
};
template <>
struct VecFor<double> {
  using type = VecD;
};
template <class S>
using Vec = typename VecFor<S>::type;

// Functions of many steps run on two vectors at once. The portable form is left to the compiler.
template <class V>
struct WideOf {
  using type = Twice<V>;
};
template <class V>
  requires(V::W == 1 || kIsa == Isa::portable)
struct WideOf<V> {
  using type = V;
};
template <class S>
using Wide = typename WideOf<Vec<S>>::type;

// Calls body(begin, end) over pieces of [0, n), at least `grain` long. For independent axes only: where a piece begins
// must not change any result. A body may take the number of its thread, too.
template <class Body>
void parallel_for(Context& context, int64_t n, int64_t grain, const Body& body) {
  const int64_t pieces = min_of(ceil_div(n, max_of(grain, int64_t{1})), int64_t{4} * context.threads);
  const auto call = [](const Body& f, int64_t begin, int64_t end, int thread) {
    if constexpr (requires { f(begin, end, thread); })
      f(begin, end, thread);
    else
      f(begin, end);
  };
  if (pieces <= 1 || context.threads == 1) {
    if (n > 0) call(body, 0, n, 0);
    return;
  }
  struct Job {
    const Body* body;
    int64_t n, pieces;
  } job{&body, n, pieces};
  context.parallel(
      context.threads, pieces,
      [](void* arg, int64_t piece, int thread) {
        const Job& j = *static_cast<Job*>(arg);
        const int64_t size = j.n / j.pieces, extra = j.n % j.pieces;
        const int64_t begin = piece * size + min_of(piece, extra);
        decltype(call){}(*j.body, begin, begin + size + (piece < extra), thread);
      },
      &job);
}

// Calls body(chunk, thread) for each of `chunks`, which the kernel has cut by shape alone.
template <class Body>
void parallel_chunks(Context& context, int64_t chunks, const Body& body) {
  if (chunks <= 1 || context.threads == 1) {
    for (int64_t chunk = 0; chunk < chunks; ++chunk) body(chunk, 0);
    return;
  }
  context.parallel(
      context.threads, chunks, [](void* arg, int64_t chunk, int thread) { (*static_cast<const Body*>(arg))(chunk, thread); },
      const_cast<Body*>(&body));
}

// Calls f(i, lanes) along n elements in steps of a vector; only the last step has fewer lanes. Every element is thus
// computed in the same way wherever the range begins.
template <class V, class F>
inline void each_vector(int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + V::W <= n; i += V::W) f(i, V::W);
  if (i < n) f(i, static_cast<int>(n - i));
}

// Loads and stores whole vectors without a mask.
template <class V, class S>
inline V load(const S* p, int lanes) {
  return lanes == V::W ? V::load(p) : V::load(p, lanes);
}
template <class V, class S>
inline void store(S* p, V v, int lanes) {
  lanes == V::W ? v.store(p) : v.store(p, lanes);
}

// As it comes back from memory as an S.
template <class S, class V>
inline V rounded(V v) {
  if constexpr (sizeof(S) == sizeof(typename V::T)) return v;
  constexpr S* kFormat = nullptr;
  if constexpr (requires { V::widen(v.narrow(kFormat), kFormat); }) return V::widen(v.narrow(kFormat), kFormat);
  S buffer[V::W];
  v.store(buffer);
  return V::load(buffer);
}

// Results of so many bytes leave the caches before anyone reads them: they are written past them.
constexpr int64_t kPastCaches = int64_t{16} << 20;
template <class S>
constexpr bool past_caches(int64_t n) {
  return n * static_cast<int64_t>(sizeof(S)) >= kPastCaches;
}

// y[i] = value(i, lanes) for n elements, past the caches where asked: then whole vectors lie at multiples of their size, so
// no value may depend on its lane. end_stream() belongs behind the last of them.
template <class V, class S, class F>
inline void each_written(S* y, int64_t n, bool past, const F& value) {
  const int64_t before = past ? static_cast<int64_t>(-reinterpret_cast<uintptr_t>(y) / sizeof(S) % V::W) : 0;
  int64_t i = min_of(n, before);
  const int64_t head = i;
  for (; i + V::W <= n; i += V::W) {
    const V v = value(i, V::W);
    past ? v.stream(y + i) : v.store(y + i);
  }
  const int64_t edges[2][2] = {{0, head}, {i, n - i}};
  for (const auto& [from, lanes] : edges)
    if (lanes) value(from, static_cast<int>(lanes)).store(y + from, static_cast<int>(lanes));
}

// Asks for the elements of a vector that will be looked at soon, into the second cache. They need not be there.
template <class V, class S>
inline void fetch(const S* p) {
  for (size_t byte = 0; byte < V::W * sizeof(S); byte += 64) __builtin_prefetch(reinterpret_cast<const char*>(p) + byte, 0, 2);
}

// The first `lanes` lanes, zeros in the others.
template <class V>
inline V keep_lanes(V v, int lanes) {
  if (lanes == V::W) return v;
  typename V::T buffer[V::W];
  v.store(buffer);
  return V::load(buffer, lanes);
}

// ------------------------------------------------------------------------------------------------------- registering

template <class Args, Status (*Run)(const Args&, Context&) noexcept, bool (*Supports)(const Args&) = nullptr,
          size_t (*Workspace)(const Args&, int threads) = nullptr>
void add_kernel(KernelTable& table, const char* name) {
  Candidate c{name, kIsa, nullptr, nullptr, nullptr};
  c.run = [](const void* args, Context& context) noexcept { return Run(*static_cast<const Args*>(args), context); };
  if constexpr (Supports != nullptr)
    c.supports = [](const void* args, Device) { return Supports(*static_cast<const Args*>(args)); };
  if constexpr (Workspace != nullptr)
    c.workspace = [](const void* args, int threads) { return Workspace(*static_cast<const Args*>(args), threads); };
  table.prepend(slot_of<Args>, c);
}

#define SMELT_STRING_(x) #x
#define SMELT_STRING(x) SMELT_STRING_(x)
// "avx2_gemm" and so on.
#define SMELT_KERNEL_NAME(what) SMELT_STRING(SMELT_ISA) "_" what

// Kernels that compute in float32 or float64 and store those alone.
template <class Args>
bool wide_only(const Args& args) {
  return args.dtype == DType::float32 || args.dtype == DType::float64;
}
template <class Args>
bool floating_only(const Args& args) {
  return is_floating(args.dtype);
}

}  // namespace
}  // namespace smelt
