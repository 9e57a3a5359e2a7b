// The gradients of attention, for any operands. Blocks of keys are the outer loop: the gradients of a block's keys and
// values are summed up in cache, those of the queries in memory of the thread's own.
#pragma once
#include "cpu/kernels/attention_rows.inl.h"

namespace smelt {
namespace {

template <class Operands>
class AttentionBackward {
 public:
  using S = typename Operands::S;
  using V = typename Operands::V;
  using T = typename Operands::T;
  using Tile = typename Operands::Tile;

  explicit AttentionBackward(const AttentionBackwardArgs& args)
      : a(args), x(a.shape), depth(Operands::words(x.d)), value_depth(Operands::words(x.dv)), pitch(round_up(x.d, Tile::kNr)),
        value_pitch(round_up(x.dv, Tile::kNr)), group(x.kv_heads ? x.heads / x.kv_heads : 0), heads(x.batch * x.kv_heads),
        parts(cut()) {}

  size_t workspace(int threads) const {
    return sizeof(T) * static_cast<size_t>(room() * threads + query_words() * (parts == 1 ? threads : heads * parts));
  }

  void run(Context& context) const {
    Context serial = context;
    serial.threads = 1;
    Context& region = a.work().flops < 5e5 ? serial : context;
    T* const memory = static_cast<T*>(context.workspace);
    T* const query_sums = memory + room() * context.threads;
    parallel_chunks(region, heads * parts, [&](int64_t chunk, int thread) {
      [[maybe_unused]] const typename Operands::Scope scope;
      // With a causal mask the first keys have most to do: they come first.
      const int64_t part = chunk / heads, head = chunk % heads;
      T* const sums = query_sums + query_words() * (parts == 1 ? thread : head * parts + part);
      piece(head / x.kv_heads, head % x.kv_heads, part, lay_out(memory + room() * thread), sums);
      if (parts == 1) write_queries(head, 0, group * x.tq, sums);
    });
    if (parts == 1) return;
    parallel_for(region, heads * group * x.tq, 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t head = i / (group * x.tq), row = i % (group * x.tq);
        write_queries(head, row, row + 1, query_sums + query_words() * head * parts);
      }
    });
  }

 private:
  using Rows = AttentionRows<S, AttentionBackwardArgs>;

  // Where heads are few, the keys of one are cut too: by shape alone, for the sums over queries' gradients are.
  int64_t cut() const {
    if (heads == 0) return 1;
    const int64_t blocks = ceil_div(x.tk, kKeys);
    return max_of(int64_t{1}, max_of(min_of(blocks, ceil_div(8, heads)), min_of(blocks / 4, ceil_div(64, heads))));
  }
  int64_t rows_of_head() const { return round_up(x.tq, 2); }
  int64_t query_words() const { return a.dq ? round_up(group * rows_of_head() * pitch, 16) : 0; }

  struct Room {
    BackwardRoom<T> block;
    T *k_across, *v_across, *k_down, *queries, *q_down, *dy, *dy_down, *dk, *dv, *delta;
    int64_t words;
  };
  Room lay_out(T* memory) const {
    Room m;
    m.words = 0;
    const auto take = [&](int64_t words) {
      const int64_t first = m.words;
      m.words += round_up(words, 16);
      return memory ? memory + first : nullptr;
    };
    m.block.scores = take(kRows<Tile> * kPitch);
    m.block.dp = take(kRows<Tile> * kPitch);
    m.block.more = take(Operands::kBackward);
    m.k_across = take(panels_words<Operands>(depth, kKeys));
    m.v_across = take(panels_words<Operands>(value_depth, kKeys));
    m.k_down = take(Operands::words(kKeys) * pitch);
    m.queries = take(queries_words<Operands>(x.d));
    m.q_down = take(Operands::words(kRows<Tile>) * pitch);
    m.dy = take(queries_words<Operands>(x.dv));
    m.dy_down = take(Operands::words(kRows<Tile>) * value_pitch);
    m.dk = take(kKeys * pitch);
    m.dv = take(kKeys * value_pitch);
    m.delta = take(group * x.tq);
    return m;
  }
  int64_t room() const { return lay_out(nullptr).words; }

  const S* row_of(const void* p, const int64_t (&stride)[3], int64_t batch, int64_t head, int64_t row) const {
    return static_cast<const S*>(p) + batch * stride[0] + head * stride[1] + row * stride[2];
  }

  // delta = sum over the features of dy y, of each query: what the normalisation of its probabilities takes from each.
  void deltas(int64_t batch, int64_t kv_head, T* delta) const {
    for (int64_t h = 0; h < group; ++h)
      for (int64_t i = 0; i < x.tq; ++i) {
        const S* y = row_of(a.y, a.y_stride, batch, kv_head * group + h, i);
        const S* dy = row_of(a.dy, a.dy_stride, batch, kv_head * group + h, i);
        V acc = V::zero();
        each_vector<V>(x.dv, [&](int64_t j, int lanes) { acc = fma(load<V>(y + j, lanes), load<V>(dy + j, lanes), acc); });
        delta[h * x.tq + i] = sum(acc);
      }
  }

  // A part of the keys that some heads of queries share.
  void piece(int64_t batch, int64_t kv_head, int64_t part, const Room& m, T* query_sums) const {
    const Visible sight = visible(a, batch);
    const int64_t blocks = ceil_div(x.tk, kKeys);
    if (a.dq) __builtin_memset(query_sums, 0, sizeof(T) * group * rows_of_head() * pitch);
    deltas(batch, kv_head, m.delta);
    for (int64_t block = blocks * part / parts; block < blocks * (part + 1) / parts; ++block) {
      const int64_t key = block * kKeys, there = max_of(int64_t{0}, min_of(kKeys, sight.keys - key));
      __builtin_memset(m.dk, 0, sizeof(T) * kKeys * pitch);
      __builtin_memset(m.dv, 0, sizeof(T) * kKeys * value_pitch);
      const S *k = row_of(a.k, a.k_stride, batch, kv_head, key), *v = row_of(a.v, a.v_stride, batch, kv_head, key);
      Operands::pack_across(k, a.k_stride[2], x.d, depth, there, m.k_across);
      Operands::pack_across(v, a.v_stride[2], x.dv, value_depth, there, m.v_across);
      if (a.dq) Operands::pack_down(k, a.k_stride[2], there, x.d, m.k_down);
      // Rows start at a multiple of the block, however many of them see no key here.
      const int64_t first = there ? sight.first_query(key) / kRows<Tile> * kRows<Tile> : x.tq;
      for (int64_t h = 0; h < group; ++h)
        for (int64_t row = first; row < x.tq; row += kRows<Tile>)
          rows(m, sight, batch, kv_head * group + h, row, key, query_sums + (h * rows_of_head() + row) * pitch,
               m.delta + h * x.tq + row);
      const int64_t n = min_of(kKeys, x.tk - key);
      if (hides_keys(a)) mend_keys(m, batch, kv_head, key, there);
      write(a.dk, a.dk_stride, batch, kv_head, key, n, x.d, m.dk, pitch, static_cast<T>(a.scale), a.accumulate_k);
      write(a.dv, a.dv_stride, batch, kv_head, key, n, x.dv, m.dv, value_pitch, T(1), a.accumulate_v);
    }
  }

  // Gradients of keys that are not finite, once more from the queries that see them.
  void mend_keys(const Room& m, int64_t batch, int64_t kv_head, int64_t key, int64_t n) const {
    for (int64_t j = 0; j < n; ++j) {
      T* const dk = a.dk && !is_finite<V>(m.dk + j * pitch, x.d) ? m.dk + j * pitch : nullptr;
      T* const dv = a.dv && !is_finite<V>(m.dv + j * value_pitch, x.dv) ? m.dv + j * value_pitch : nullptr;
      if (!dk && !dv) continue;
      if (dk) Rows::clear(dk, x.d);
      if (dv) Rows::clear(dv, x.dv);
      for (int64_t h = 0; h < group; ++h) Rows(a, batch, kv_head * group + h).add_key_gradients(key + j, dk, dv);
    }
  }

  // A block of queries with a block of keys.
  void rows(const Room& m, const Visible& sight, int64_t batch, int64_t head, int64_t row, int64_t key, T* query_sums,
            const T* delta) const {
    const int64_t count = min_of(kRows<Tile>, x.tq - row);
    const Block<Operands> block(sight, row, count, key);
    if (!block.keys) return;
    const S *q = row_of(a.q, a.q_stride, batch, head, row), *dy = row_of(a.dy, a.dy_stride, batch, head, row);
    pack_queries<Operands>(q, a.q_stride[2], count, x.d, m.queries);
    pack_queries<Operands>(dy, a.dy_stride[2], count, x.dv, m.dy);
    block_scores(block, m.queries, m.k_across, depth, m.block.scores);
    block_scores(block, m.dy, m.v_across, value_depth, m.block.dp);
    MaskRows<V> mask(a, batch, head);
    const T* lse = static_cast<const T*>(a.lse) + (batch * x.heads + head) * x.tq + row;
    for (int64_t i = 0; i < count; i += 2) two_rows(m.block, sight, block, mask, i, lse, delta);
    Operands::finish(m.block, count, block.limit[block.tiles - 1]);
    if (a.dq)
      block_rows(block, [&](int g) { return Operands::ds_rows(m.block, g); }, m.k_down,
                 Operands::words(min_of(kKeys, sight.keys - key)), x.d, query_sums, pitch);
    if (a.dv) {
      Operands::pack_down(dy, a.dy_stride[2], count, x.dv, m.dy_down);
      across(sight, block, [&](int64_t p, int g, Columns<T>* room) { return Operands::p_across(m.block, p, g, room); },
             m.dy_down, x.dv, m.dv, value_pitch);
    }
    if (a.dk) {
      Operands::pack_down(q, a.q_stride[2], count, x.d, m.q_down);
      across(sight, block, [&](int64_t p, int g, Columns<T>* room) { return Operands::ds_across(m.block, p, g, room); },
             m.q_down, x.d, m.dk, pitch);
    }
  }

  // Probabilities p = e^(score - lse) and the gradients of the scores, p (dp - delta), of rows i and i + 1.
  void two_rows(const BackwardRoom<T>& m, const Visible& sight, const Block<Operands>& block, MaskRows<V>& mask, int64_t i,
                const T* lse, const T* delta) const {
    const int64_t limit = block.limit_of(i), width = block.limit[block.tiles - 1];
    const int there = i + 1 < block.rows ? 2 : 1;
    T factor[2] = {};
    V minus_lse[2] = {V::zero(), V::zero()}, minus_delta[2] = {V::zero(), V::zero()};
    for (int r = 0; r < there; ++r) {
      const int64_t query = block.row + i + r, seen = max_of(int64_t{0}, min_of(limit, sight.of(query) - block.key));
      const T* added = mask ? mask.row(query, block.key, seen) : nullptr;
      factor[r] = finish_scores<V>(m.scores + (i + r) * kPitch, seen, limit, static_cast<T>(a.scale), added);
      minus_lse[r] = V::set(-lse[i + r]);
      minus_delta[r] = V::set(-delta[i + r]);
    }
    const V nothing = V::set(kNothing<T>), one = V::set(T(1)), zero = V::zero();
    V p[2][2] = {{zero, zero}, {zero, zero}}, ds[2][2] = {{zero, zero}, {zero, zero}};
    for (int64_t j = 0; j < limit; j += kStep<V>) {
      for (int r = 0; r < there; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < 2; ++v) {
          const int64_t at = (i + r) * kPitch + j + v * V::W;
          const V s = V::load(m.scores + at);
          const V e = exp_small(min(one, s * V::set(factor[r]) + minus_lse[r]));  // rounded as in forward
          // A key that is not seen has no part in anything, whatever it holds.
          const auto unseen = s == nothing;
          p[r][v] = select(unseen, zero, e);
          ds[r][v] = select(unseen, zero, e * (V::load(m.dp + at) + minus_delta[r]));
        }
      Operands::put(m, i, j, p, ds);
    }
    const V zeros[2][2] = {{zero, zero}, {zero, zero}};
    for (int64_t j = limit; j < width; j += kStep<V>) Operands::put(m, i, j, zeros, zeros);
  }

  // Sums over the queries of a block for its keys: c += a b, from the first query on that sees a tile's keys.
  template <class A>
  void across(const Visible& sight, const Block<Operands>& block, const A& operand, const T* b, int64_t columns, T* c,
              int64_t ldc) const {
    const int64_t words = Operands::words(block.rows);
    for (int64_t j = 0; j < columns; j += Tile::kNr)
      for (int g = 0; g * Tile::kMr < block.keys; ++g) {
        const int64_t unseen = max_of(int64_t{0}, sight.first_query(block.key + g * Tile::kMr) - block.row);
        const int64_t first = Operands::words_before(min_of(unseen, block.rows));
        if (first >= words) continue;
        Columns<T> room;
        const T* p = operand(first, g, &room);
        multiply<Operands, Operands::kLayoutAcross>(words - first, p, b + j * words + first * Tile::kNr,
                                                    c + g * Tile::kMr * ldc + j, ldc,
                                                    min_of(block.keys - g * Tile::kMr, int64_t{Tile::kMr}),
                                                    min_of(columns - j, int64_t{Tile::kNr}), true);
      }
  }

  // Rows of sums, scaled, to a gradient, which may be wider than the operands.
  void write(void* to, const int64_t (&stride)[3], int64_t batch, int64_t head, int64_t row, int64_t rows, int64_t columns,
             const T* sums,
             int64_t ld, T scale, bool accumulate) const {
    if (!to) return;
    if (sizeof(S) == 2 && a.grad_dtype == DType::float32)
      write_as(static_cast<float*>(to), stride, batch, head, row, rows, columns, sums, ld, scale, accumulate);
    else
      write_as(static_cast<S*>(to), stride, batch, head, row, rows, columns, sums, ld, scale, accumulate);
  }
  template <class G>
  void write_as(G* to, const int64_t (&stride)[3], int64_t batch, int64_t head, int64_t row, int64_t rows, int64_t columns,
                const T* sums,
                int64_t ld, T scale, bool accumulate) const {
    if constexpr (__is_same(Compute<G>, T)) {
      G* out = to + batch * stride[0] + head * stride[1] + row * stride[2];
      const V factor = V::set(scale);
      for (int64_t i = 0; i < rows; ++i, out += stride[2], sums += ld)
        each_vector<V>(columns, [&](int64_t j, int lanes) {
          V v = load<V>(sums + j, lanes) * factor;
          if (accumulate) v = load<V>(out + j, lanes) + v;
          store(out + j, v, lanes);
        });
    }
  }

  // Rows [begin, end) of a group's queries, parts added in their order.
  void write_queries(int64_t head, int64_t begin, int64_t end, T* sums) const {
    if (!a.dq) return;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t h = i / x.tq, row = i % x.tq;
      T* const own = sums + (h * rows_of_head() + row) * pitch;
      for (int64_t part = 1; part < parts; ++part)
        for (int64_t j = 0; j < pitch; j += V::W) (V::load(own + j) + V::load(own + part * query_words() + j)).store(own + j);
      const int64_t batch = head / x.kv_heads, q_head = head % x.kv_heads * group + h;
      if (hides_keys(a) && !is_finite<V>(own, x.d)) Rows(a, batch, q_head).query_gradient(row, own);
      write(a.dq, a.dq_stride, batch, q_head, row, 1, x.d, own, pitch, static_cast<T>(a.scale), a.accumulate_q);
    }
  }

  const AttentionBackwardArgs& a;
  const AttentionShape& x;
  const int64_t depth, value_depth, pitch, value_pitch, group, heads, parts;
};

}  // namespace
}  // namespace smelt
