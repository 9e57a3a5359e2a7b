// Attention a row at a time, over the keys that it sees alone. The blocked products multiply what a row does not see by 0,
// which is not 0 where that is infinite or NaN: rows that come out so are computed again from here.
#pragma once
#include "cpu/kernels/attention_core.inl.h"

namespace smelt {
namespace {

template <class V>
bool is_finite(const typename V::T* row, int64_t n) {
  V acc = V::zero();
  each_vector<V>(n, [&](int64_t j, int lanes) { acc = fma(load<V>(row + j, lanes), V::zero(), acc); });
  const auto total = sum(acc);
  return total == total;
}

template <class Args>
bool hides_keys(const Args& a) {
  return a.causal || a.mask;
}

// One head of queries; S are stored, T computed in. `Args` are those of forward or backward.
template <class S, class Args>
class AttentionRows {
 public:
  using V = Vec<S>;
  using T = typename V::T;
  AttentionRows(const Args& args, int64_t batch_in, int64_t head_in)
      : a(args), batch(batch_in), head(head_in), kv_head(head_in / (args.shape.heads / args.shape.kv_heads)),
        sight(visible(args, batch_in)) {}

  // sums = sum over the seen keys of e^(score - largest) v
  __attribute__((noinline)) void values(int64_t query, T largest, T* sums) const {
    clear(sums, a.shape.dv);
    for (int64_t key = 0; key < sight.of(query); ++key) {
      T s;
      if (score(query, key, &s)) add(exp_of(s - largest), at(a.v, a.v_stride, kv_head, key), sums, a.shape.dv);
    }
  }

  // sums = the gradient of a query, but for the scale
  __attribute__((noinline)) void query_gradient(int64_t query, T* sums) const {
    clear(sums, a.shape.d);
    for (int64_t key = 0; key < sight.of(query); ++key) {
      T p, ds;
      if (weights(query, key, &p, &ds)) add(ds, at(a.k, a.k_stride, kv_head, key), sums, a.shape.d);
    }
  }

  // Adds what the queries of this head give to a key, but for the scale, and to its value; either may be null.
  __attribute__((noinline)) void add_key_gradients(int64_t key, T* dk, T* dv) const {
    for (int64_t query = sight.first_query(key); query < a.shape.tq; ++query) {
      T p, ds;
      if (!weights(query, key, &p, &ds)) continue;
      if (dk) add(ds, at(a.q, a.q_stride, head, query), dk, a.shape.d);
      if (dv) add(p, at(a.dy, a.dy_stride, head, query), dv, a.shape.dv);
    }
  }

  static void clear(T* sums, int64_t n) {
    for (int64_t j = 0; j < n; ++j) sums[j] = 0;
  }

 private:
  const S* at(const void* p, const int64_t (&stride)[3], int64_t h, int64_t row) const {
    return static_cast<const S*>(p) + batch * stride[0] + h * stride[1] + row * stride[2];
  }
  static T exp_of(T x) {
    T lanes[V::W];
    exp_small(min(V::set(T(1)), V::set(x))).store(lanes);
    return lanes[0];
  }
  static T dot(const S* x, const S* y, int64_t n) {
    V acc = V::zero();
    each_vector<V>(n, [&](int64_t j, int lanes) { acc = fma(load<V>(x + j, lanes), load<V>(y + j, lanes), acc); });
    return sum(acc);
  }
  static void add(T factor, const S* x, T* sums, int64_t n) {
    each_vector<V>(n, [&](int64_t j, int lanes) {
      store(sums + j, fma(V::set(factor), load<V>(x + j, lanes), load<V>(sums + j, lanes)), lanes);
    });
  }
  // Whether the query sees the key, and its score.
  bool score(int64_t query, int64_t key, T* s) const {
    T added = 0;
    if (key >= sight.of(query)) return false;
    if (a.mask) {
      const int64_t* step = a.mask_stride;
      added = mask_value<T>(a.mask, a.mask_dtype, batch * step[0] + head * step[1] + query * step[2] + key * step[3]);
      if (added == kNothing<T>) return false;
    }
    const T product = dot(at(a.q, a.q_stride, head, query), at(a.k, a.k_stride, kv_head, key), a.shape.d);
    *s = product * static_cast<T>(a.scale) + added;
    return true;
  }
  bool weights(int64_t query, int64_t key, T* p, T* ds) const {
    T s;
    if (!score(query, key, &s)) return false;
    const S* dy = at(a.dy, a.dy_stride, head, query);
    *p = exp_of(s - static_cast<const T*>(a.lse)[(batch * a.shape.heads + head) * a.shape.tq + query]);
    const T dp = dot(dy, at(a.v, a.v_stride, kv_head, key), a.shape.dv);
    *ds = *p * (dp - dot(dy, at(a.y, a.y_stride, head, query), a.shape.dv));
    return true;
  }

  const Args& a;
  const int64_t batch, head, kv_head;
  const Visible sight;
};

}  // namespace
}  // namespace smelt
