// Random numbers and dropout from Philox4x32-10: element i takes lane i % 4 of counter base + i / 4.
#include "cpu/kernels/common.inl.h"
#include "cpu/kernels/families.h"
#include "formulas/random.inl.h"

namespace smelt {
namespace {

constexpr int64_t kGrain = 2048;  // counters, four elements each
constexpr int kBlock = 16;        // counters at once, so that the compiler can use vectors

struct Bits {
  uint32_t lane[4][kBlock];
};

// Sixteen neighbouring counters of the stream.
inline Bits philox_block(uint64_t seed, uint64_t first) {
  uint32_t c0[kBlock], c1[kBlock], c2[kBlock] = {}, c3[kBlock] = {};
  for (int j = 0; j < kBlock; ++j) {
    c0[j] = static_cast<uint32_t>(first + static_cast<uint64_t>(j));
    c1[j] = static_cast<uint32_t>((first + static_cast<uint64_t>(j)) >> 32);
  }
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    for (int j = 0; j < kBlock; ++j) {
      const uint64_t p0 = uint64_t{0xD2511F53u} * c0[j], p1 = uint64_t{0xCD9E8D57u} * c2[j];
      const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1[j] ^ k0;
      const uint32_t n2 = static_cast<uint32_t>(p0 >> 32) ^ c3[j] ^ k1;
      c1[j] = static_cast<uint32_t>(p1);
      c3[j] = static_cast<uint32_t>(p0);
      c0[j] = n0;
      c2[j] = n2;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  Bits bits;
  __builtin_memcpy(bits.lane[0], c0, sizeof c0);
  __builtin_memcpy(bits.lane[1], c1, sizeof c1);
  __builtin_memcpy(bits.lane[2], c2, sizeof c2);
  __builtin_memcpy(bits.lane[3], c3, sizeof c3);
  return bits;
}

// Calls f(first element, count, bits) for blocks of 4 * kBlock elements; element 4 j + l has bits.lane[l][j].
template <class F>
void each_block(Context& context, const GeneratorState& generator, uint64_t counter, int64_t n, bool past, const F& f) {
  const uint64_t seed = generator.seed, base = generator.offset + counter;
  const int64_t blocks = ceil_div(n, 4 * kBlock);
  parallel_for(context, blocks, kGrain / kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * 4 * kBlock;
      f(first, min_of(n - first, int64_t{4 * kBlock}),
        philox_block(seed, base + static_cast<uint64_t>(block) * kBlock));
    }
    if (past) end_stream();
  });
}

template <class S>
void random_floating(const RandomArgs& a, Context& context) {
  S* y = static_cast<S*>(a.y);
  each_block(context, *a.generator, a.counter, a.n, false, [&](int64_t first, int64_t count, const Bits& bits) {
    for (int64_t e = 0; e < count; ++e) {
      const int64_t j = e / 4, l = e % 4;
      y[first + e] = a.kind == RandomKind::uniform
                         ? uniform_in<S>(bits.lane[l][j], a.a.f, a.b.f)
                         : to_storage<S>(static_cast<Compute<S>>(
                               a.a.f + a.b.f * normal_deviate(bits.lane[l / 2 * 2][j], bits.lane[l / 2 * 2 + 1][j], l % 2)));
    }
  });
}

Status random(const RandomArgs& a, Context& context) noexcept {
  if (a.kind == RandomKind::uniform || a.kind == RandomKind::normal) {
    with_floating(a.dtype, [&]<class S>(S) { random_floating<S>(a, context); });
    return Status::ok;
  }
  int64_t* y = static_cast<int64_t*>(a.y);
  each_block(context, *a.generator, a.counter, a.n, false, [&](int64_t first, int64_t count, const Bits& bits) {
    for (int64_t e = 0; e < count; ++e) {
      const uint32_t own = bits.lane[e % 4][e / 4], next = bits.lane[(e + 1) % 4][e / 4];
      y[first + e] = a.kind == RandomKind::bits ? own : integer_in(own, next, a.a.i, a.b.i);
    }
  });
  return Status::ok;
}

template <class S>
void dropout_run(const DropoutArgs& a, Context& context) {
  using V = Vec<S>;
  using T = typename V::T;
  const S* x = static_cast<const S*>(a.x);
  S* y = static_cast<S*>(a.y);
  const bool past = !a.accumulate && past_caches<S>(a.n);
  const uint64_t threshold = dropout_threshold(a.p);
  const T scale = static_cast<T>(1.0 / (1.0 - a.p));
  // In 32 bits, as the numbers are; 2^32 keeps nothing.
  const uint32_t least = static_cast<uint32_t>(min_of(threshold, uint64_t{0xffffffffu}));
  const T kept = threshold > 0xffffffffu ? T(0) : scale;
  each_block(context, *a.generator, a.counter, a.n, past, [&](int64_t first, int64_t count, const Bits& bits) {
    T factor[4 * kBlock];
    for (int j = 0; j < kBlock; ++j)  // four stores side by side: the compiler interleaves vectors
      for (int l = 0; l < 4; ++l) factor[4 * j + l] = bits.lane[l][j] >= least ? kept : T(0);
    each_written<V>(y + first, count, past, [&](int64_t e, int lanes) {
      const V v = load<V>(x + first + e, lanes) * load<V>(factor + e, lanes);
      return a.accumulate ? load<V>(y + first + e, lanes) + v : v;
    });
  });
}

Status dropout(const DropoutArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) { dropout_run<S>(a, context); });
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_random(KernelTable& table) {
  add_kernel<RandomArgs, random>(table, SMELT_KERNEL_NAME("random"));
  add_kernel<DropoutArgs, dropout, floating_only>(table, SMELT_KERNEL_NAME("dropout"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
