// The forward pass of attention, for any operands.
#pragma once
#include "cpu/kernels/attention_rows.inl.h"

namespace smelt {
namespace {

template <class Operands>
class AttentionForward {
 public:
  using S = typename Operands::S;
  using V = typename Operands::V;
  using T = typename Operands::T;
  using Tile = typename Operands::Tile;

  explicit AttentionForward(const AttentionArgs& args)
      : a(args), x(a.shape), depth(Operands::words(x.d)), value_pitch(round_up(x.dv, Tile::kNr)),
        group(x.kv_heads ? x.heads / x.kv_heads : 0) {}

  size_t workspace(int threads) const { return sizeof(T) * static_cast<size_t>(room() * threads); }

  void run(Context& context) const {
    Context serial = context;
    serial.threads = 1;
    Context& region = 2.0 * x.pairs() * (x.d + x.dv) < 5e5 ? serial : context;
    // A piece is some blocks of queries of the heads that share keys: these are packed once for all of them.
    const int64_t blocks = ceil_div(x.tq, kRows<Tile>), units = group * blocks, heads = x.batch * x.kv_heads;
    if (units == 0 || heads == 0) return;
    const int64_t wanted = max_of(int64_t{1}, min_of(units / 2, ceil_div(8 * region.threads, heads)));
    const int64_t parts = region.threads == 1 ? 1 : wanted;
    parallel_chunks(region, heads * parts, [&](int64_t chunk, int thread) {
      [[maybe_unused]] const typename Operands::Scope scope;
      // With a causal mask the last rows have most to do: they come first.
      const int64_t part = parts - 1 - chunk / heads, head = chunk % heads;
      piece(head / x.kv_heads, head % x.kv_heads, units * part / parts, units * (part + 1) / parts,
            static_cast<T*>(context.workspace) + room() * thread);
    });
  }

 private:
  // The memory of a thread, in words.
  int64_t key_words() const { return panels_words<Operands>(depth, x.tk); }
  int64_t value_words() const { return ceil_div(x.tk, kKeys) * Operands::words(kKeys) * value_pitch; }
  static constexpr int64_t kScores = kRows<Tile> * kPitch, kStatistics = 2 * round_up(kRows<Tile>, kHeadPitch);
  int64_t room() const {
    const int64_t block = queries_words<Operands>(x.d) + kScores + Operands::kProbabilities + kRows<Tile> * value_pitch;
    return round_up(key_words() + value_words() + block + kStatistics, 16);
  }
  struct Room {
    T *keys, *values, *queries, *scores, *p, *sums, *largest, *total;
  };
  Room lay_out(T* memory) const {
    Room m;
    m.scores = memory;
    m.p = m.scores + kScores;
    m.queries = m.p + Operands::kProbabilities;
    m.sums = m.queries + queries_words<Operands>(x.d);
    m.largest = m.sums + kRows<Tile> * value_pitch;
    m.total = m.largest + kStatistics / 2;
    m.keys = m.total + kStatistics / 2;
    m.values = m.keys + key_words();
    return m;
  }

  // Units [begin, end) of those of a head of keys: block after block of each of its heads of queries.
  void piece(int64_t batch, int64_t kv_head, int64_t begin, int64_t end, T* memory) const {
    const Room m = lay_out(memory);
    const Visible sight = visible(a, batch);
    const int64_t blocks = ceil_div(x.tq, kRows<Tile>);
    // The last row sees most: of a causal piece within one head that is its own last row.
    const bool one_head = begin / blocks == (end - 1) / blocks;
    const int64_t rows_end = one_head ? min_of(((end - 1) % blocks + 1) * kRows<Tile>, x.tq) : x.tq;
    const int64_t keys = sight.of(rows_end - 1);
    const S* k = static_cast<const S*>(a.k) + batch * a.k_stride[0] + kv_head * a.k_stride[1];
    const S* v = static_cast<const S*>(a.v) + batch * a.v_stride[0] + kv_head * a.v_stride[1];
    for (int64_t key = 0; key < keys; key += kKeys) {
      const int64_t n = min_of(kKeys, keys - key);
      Operands::pack_across(k + key * a.k_stride[2], a.k_stride[2], x.d, depth, n, m.keys + key * depth);
      Operands::pack_down(v + key * a.v_stride[2], a.v_stride[2], n, x.dv,
                          m.values + key / kKeys * Operands::words(kKeys) * value_pitch);
    }
    for (int64_t unit = begin; unit < end; ++unit)
      rows(m, {keys, sight.offset}, batch, kv_head * group + unit / blocks, unit % blocks * kRows<Tile>);
  }

  void rows(const Room& m, const Visible& sight, int64_t batch, int64_t head, int64_t row) const {
    const int64_t count = min_of(kRows<Tile>, x.tq - row);
    const S* q = static_cast<const S*>(a.q) + batch * a.q_stride[0] + head * a.q_stride[1] + row * a.q_stride[2];
    pack_queries<Operands>(q, a.q_stride[2], count, x.d, m.queries);
    __builtin_memset(m.sums, 0, sizeof(T) * kRows<Tile> * value_pitch);
    for (int64_t i = 0; i < count; ++i) {
      m.largest[i] = kNothing<T>;
      m.total[i] = 0;
    }
    MaskRows<V> mask(a, batch, head);
    const int64_t seen = sight.of(row + count - 1);
    for (int64_t key = 0; key < seen; key += kKeys) {
      const Block<Operands> block(sight, row, count, key);
      block_scores(block, m.queries, m.keys + key * depth, depth, m.scores);
      for (int64_t i = 0; i < count; ++i)
        if (block.limit_of(i)) softmax_row(m, sight, block, mask, i);
      const T* values = m.values + key / kKeys * Operands::words(kKeys) * value_pitch;
      block_rows(block, [&](int g) { return Operands::probabilities(m.scores, m.p, g); }, values,
                 Operands::words(min_of(kKeys, sight.keys - key)), x.dv, m.sums, value_pitch);
    }
    finish(m, batch, head, row, count);
  }

  // A row of scores to probabilities, up to the factor that its largest score so far leaves open.
  void softmax_row(const Room& m, const Visible& sight, const Block<Operands>& block, MaskRows<V>& mask, int64_t i) const {
    T* s = m.scores + i * kPitch;
    const int64_t limit = block.limit_of(i), query = block.row + i;
    const int64_t seen = max_of(int64_t{0}, min_of(limit, sight.of(query) - block.key));
    const T* added = mask ? mask.row(query, block.key, seen) : nullptr;
    const T factor = finish_scores<V>(s, seen, limit, static_cast<T>(a.scale), added);
    const V scale = V::set(factor);
    V top0 = V::set(kNothing<T>), top1 = top0;
    for (int64_t j = 0; j < limit; j += kStep<V>) {
      top0 = max(V::load(s + j) * scale, top0);
      top1 = max(V::load(s + j + V::W) * scale, top1);
    }
    const T before = m.largest[i], top = max_of(max_lane(max(top0, top1)), before);
    const T shift = top == kNothing<T> ? T(0) : top;
    const V largest = V::set(shift);  // taken from the rounded product, whose maximum it is: not fused
    V sum0 = V::zero(), sum1 = V::zero();
    for (int64_t j = 0; j < limit; j += kStep<V>) {
      const V p0 = exp_small(V::load(s + j) * scale - largest), p1 = exp_small(V::load(s + j + V::W) * scale - largest);
      sum0 = sum0 + p0;
      sum1 = sum1 + p1;
      Operands::put(m.scores, m.p, i, j, p0, p1);
    }
    T total = sum(sum0 + sum1);
    if (before != top && before != kNothing<T>) {
      T lanes[V::W];
      exp_small(V::set(before - shift)).store(lanes);
      total += m.total[i] * lanes[0];
      scale_rows<V>(m.sums + i * value_pitch, round_up(x.dv, V::W), lanes[0]);
    } else {
      total += m.total[i];
    }
    m.total[i] = total;
    m.largest[i] = top;
  }

  void finish(const Room& m, int64_t batch, int64_t head, int64_t row, int64_t count) const {
    T* lse = static_cast<T*>(a.lse) + (batch * x.heads + head) * x.tq + row;
    S* y = static_cast<S*>(a.y) + batch * a.y_stride[0] + head * a.y_stride[1] + row * a.y_stride[2];
    const bool hides = hides_keys(a);
    for (int64_t i = 0; i < count; ++i, y += a.y_stride[2]) {
      const T total = m.total[i];
      lse[i] = total == 0 ? -kNothing<T> : m.largest[i] + log_of(total);
      const V factor = V::set(total == 0 ? T(0) : T(1) / total);
      T* const sums = m.sums + i * value_pitch;
      if (hides && !is_finite<V>(sums, x.dv))
        AttentionRows<S, AttentionArgs>(a, batch, head).values(row + i, m.largest[i], sums);
      each_vector<V>(x.dv, [&](int64_t j, int lanes) { store(y + j, load<V>(sums + j, lanes) * factor, lanes); });
    }
  }

  const AttentionArgs& a;
  const AttentionShape& x;
  const int64_t depth, value_pitch, group;
};

}  // namespace
}  // namespace smelt
