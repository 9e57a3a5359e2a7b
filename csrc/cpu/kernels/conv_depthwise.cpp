// Depthwise convolutions: each channel has a filter of its own, so nothing is a matrix product. Vectors run along the channels,
// a few neighbouring pixels of the result stay in registers over all taps.
//
// Forward and input gradient are one loop over different pictures: an element of the result is a sum over taps of
// source[i * step + offset] * weight. A strided input gradient is one such loop for each phase of the columns.
#include "cpu/kernels/activated.inl.h"
#include "cpu/kernels/conv_axis.inl.h"
#include "cpu/kernels/families.h"

namespace smelt {
namespace {

bool is_depthwise(const ConvShape& s) {
  return s.groups > 1 && s.c == s.groups && s.k == s.groups && s.r <= kMostTaps && s.s <= kMostTaps;
}

// Filters (C, R, S) as (R, S, C), in what is computed in.
template <class S>
void transpose_filters(const ConvShape& s, const S* w, Compute<S>* out) {
  const int64_t taps = s.r * s.s;
  for (int64_t t = 0; t < taps; ++t)
    for (int64_t c = 0; c < s.c; ++c) out[t * s.c + c] = from_storage(w[c * taps + t]);
}
template <class S>
int64_t filter_bytes(const ConvShape& s) {
  return round_up(s.r * s.s * s.c * static_cast<int64_t>(sizeof(Compute<S>)), 64);
}

// What becomes of a sum.
template <class S>
struct End {
  const S* bias = nullptr;  // (C)
  Activation activation = Activation::none;
  bool accumulate = false;
};

// One row of the result, whose pixels lie `pitch` elements apart. rows[t] is the source row of tap rows.index[t], weights those
// of all taps.
template <class S, class O>
struct Row {
  using V = Vec<S>;
  using T = typename V::T;
  const S* rows[kMostTaps];
  const T* weights[kMostTaps];
  int taps = 0;
  const S* coming = nullptr;  // the source row that the next row of the result needs anew
  const Axis* columns;
  int64_t channels;
  End<S> end;

  SMELT_INLINE void finish(V v, O* to, int64_t c, int lanes) const {
    if (end.accumulate) v = load<V>(to, lanes) + v;
    if (end.bias) v = v + load<V>(end.bias + c, lanes);
    store(to, end.activation == Activation::none ? v : activated(end.activation, rounded<O>(v)), lanes);
  }

  // Pixels [i, i + kCount), all of whose columns are inside.
  template <int kCount>
  int64_t block(int64_t i, O* dst, int64_t pitch) const {
    dst += i * pitch;
    const int64_t next = columns->step * channels;
    each_vector<V>(channels, [&](int64_t c, int lanes) __attribute__((always_inline)) {
      V sum[kCount];
#pragma GCC unroll 8
      for (int j = 0; j < kCount; ++j) sum[j] = V::zero();
      if (taps) {
        const S* first = coming + i * next + c;
#pragma GCC unroll 8
        for (int j = 0; j < kCount; ++j) __builtin_prefetch(first + j * next);
      }
      for (int r = 0; r < taps; ++r)
        for (int t = 0; t < columns->taps; ++t) {
          const V w = load<V>(weights[r] + columns->index[t] * channels + c, lanes);
          const S* x = rows[r] + (i * columns->step + columns->offset[t]) * channels + c;
#pragma GCC unroll 8
          for (int j = 0; j < kCount; ++j) sum[j] = fma(load<V>(x + j * next, lanes), w, sum[j]);
        }
#pragma GCC unroll 8
      for (int j = 0; j < kCount; ++j) finish(sum[j], dst + j * pitch + c, c, lanes);
    });
    return i + kCount;
  }
  // A pixel some of whose columns are outside: several vectors of channels at once, since their sums do not wait for each other.
  void border(int64_t i, O* dst, int64_t pitch) const {
    constexpr int kAtOnce = 4;
    dst += i * pitch;
    for (int64_t c = 0; c < channels; c += kAtOnce * V::W) {
      V sum[kAtOnce];
#pragma GCC unroll 4
      for (int v = 0; v < kAtOnce; ++v) sum[v] = V::zero();
      const auto each = [&](const auto& f) __attribute__((always_inline)) {
        if (c + kAtOnce * V::W <= channels) {
#pragma GCC unroll 4
          for (int v = 0; v < kAtOnce; ++v) f(v, V::W);
        } else {
#pragma GCC unroll 4
          for (int v = 0; v < kAtOnce; ++v)
            if (channels - c > v * V::W) f(v, static_cast<int>(min_of(channels - c - v * V::W, int64_t{V::W})));
        }
      };
      for (int r = 0; r < taps; ++r)
        for (int t = 0; t < columns->taps; ++t) {
          if (!columns->inside(i, t)) continue;
          const T* w = weights[r] + columns->index[t] * channels + c;
          const S* x = rows[r] + (i * columns->step + columns->offset[t]) * channels + c;
          each([&](int v, int lanes) __attribute__((always_inline)) {
            sum[v] = fma(load<V>(x + v * V::W, lanes), load<V>(w + v * V::W, lanes), sum[v]);
          });
        }
      each([&](int v, int lanes) __attribute__((always_inline)) { finish(sum[v], dst + c + v * V::W, c + v * V::W, lanes); });
    }
  }
  void run(O* dst, int64_t pitch) const {
    int64_t i = 0;
    for (; i < columns->first; ++i) border(i, dst, pitch);
    while (i + 8 <= columns->last) i = block<8>(i, dst, pitch);
    if (i + 4 <= columns->last) i = block<4>(i, dst, pitch);
    if (i + 2 <= columns->last) i = block<2>(i, dst, pitch);
    if (i < columns->last) i = block<1>(i, dst, pitch);
    for (; i < columns->count; ++i) border(i, dst, pitch);
  }
};

// All rows of a result of n pictures, (n, rows.count) of them: source row y of picture n is source(n, y), result row dst(n, i).
template <class S, class O, class Dst>
void each_row(Context& context, const ConvShape& s, const Axis& rows, const Axis& columns, const S* source, const Compute<S>* filters,
              const End<S>& end, int64_t pitch, const Dst& dst) {
  const int64_t work = columns.count * s.c * max_of(rows.taps * columns.taps, 1);
  int64_t lowest = 0;  // the source row furthest down that a row of the result meets
  for (int t = 0; t < rows.taps; ++t) lowest = t ? max_of(lowest, rows.offset[t]) : rows.offset[t];
  parallel_for(context, s.n * rows.count, ceil_div(32768, max_of(work, int64_t{1})), [&](int64_t begin, int64_t stop) {
    for (int64_t at = begin; at < stop; ++at) {
      const int64_t n = at / rows.count, i = at % rows.count;
      Row<S, O> row;
      row.columns = &columns;
      row.channels = s.c;
      row.coming = source + (n * rows.extent + (i + 1) * rows.step + lowest) * columns.extent * s.c;
      row.end = end;
      for (int t = 0; t < rows.taps; ++t) {
        if (!rows.inside(i, t)) continue;
        row.rows[row.taps] = source + (n * rows.extent + i * rows.step + rows.offset[t]) * columns.extent * s.c;
        row.weights[row.taps++] = filters + rows.index[t] * s.s * s.c;
      }
      row.run(dst(n, i), pitch);
    }
  });
}

// ---------------------------------------------------------------------------------------------------------- forward

bool forward_takes(const Conv2dArgs& a) { return is_floating(a.dtype) && is_depthwise(a.shape); }
size_t forward_workspace(const Conv2dArgs& a, int) {
  return with_floating(a.dtype, [&]<class S>(S) { return static_cast<size_t>(filter_bytes<S>(a.shape)); });
}
Status conv2d(const Conv2dArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) {
    const ConvShape& s = a.shape;
    auto* filters = static_cast<Compute<S>*>(context.workspace);
    transpose_filters(s, static_cast<const S*>(a.w), filters);
    each_row<S, S>(context, s, forward_axis(s, 0), forward_axis(s, 1), static_cast<const S*>(a.x), filters,
                   End<S>{static_cast<const S*>(a.bias), a.activation, false}, s.k,
                   [&](int64_t n, int64_t i) { return static_cast<S*>(a.y) + (n * s.p + i) * s.q * s.k; });
  });
  return Status::ok;
}

// --------------------------------------------------------------------------------------------------- input gradient

bool input_takes(const Conv2dBackwardInputArgs& a) { return takes_sums(a.dtype, a.dx_dtype) && is_depthwise(a.shape); }
size_t input_workspace(const Conv2dBackwardInputArgs& a, int) {
  return with_floating(a.dtype, [&]<class S>(S) { return static_cast<size_t>(filter_bytes<S>(a.shape)); });
}
Status conv2d_backward_input(const Conv2dBackwardInputArgs& a, Context& context) noexcept {
  with_sums(a.dtype, a.dx_dtype, [&]<class S, class O>(S, O) {
    const ConvShape& s = a.shape;
    auto* filters = static_cast<Compute<S>*>(context.workspace);
    transpose_filters(s, static_cast<const S*>(a.w), filters);
    for (int64_t y = 0; y < min_of(s.stride[0], s.h); ++y)
      for (int64_t x = 0; x < min_of(s.stride[1], s.w); ++x)
        each_row<S, O>(context, s, input_axis(s, 0, y), input_axis(s, 1, x), static_cast<const S*>(a.dy), filters,
                       End<S>{nullptr, Activation::none, a.accumulate}, s.stride[1] * s.c, [&](int64_t n, int64_t i) {
                         return static_cast<O*>(a.dx) + ((n * s.h + y + i * s.stride[0]) * s.w + x) * s.c;
                       });
  });
  return Status::ok;
}

// -------------------------------------------------------------------------------------------------- weight gradient

// Rows of the result are cut into parts by shape alone; channels freely.
constexpr int64_t kParts = 16, kChannels = 64;
int64_t weight_parts(const ConvShape& s) { return max_of(int64_t{1}, min_of(kParts, s.n * s.p)); }

bool weight_takes(const Conv2dBackwardWeightArgs& a) { return takes_sums(a.dtype, a.dw_dtype) && is_depthwise(a.shape); }
size_t weight_workspace(const Conv2dBackwardWeightArgs& a, int) {
  return with_floating(a.dtype, [&]<class S>(S) {
    return static_cast<size_t>(weight_parts(a.shape) * a.shape.r * a.shape.s * a.shape.c) * sizeof(Compute<S>);
  });
}

// sum[t] += x[q * step + offset[t]] * dy[q] over the pixels q of a row in which kTaps taps are inside, and those of some of them.
template <class S, int kTaps>
struct RowSums {
  using V = Vec<S>;
  using T = typename V::T;

  SMELT_INLINE static void run(const Axis& columns, int first_tap, const S* x, const S* dy, int64_t channels, int lanes, T* out) {
    V sum[2][kTaps];
#pragma GCC unroll 4
    for (int t = 0; t < kTaps; ++t) sum[0][t] = sum[1][t] = V::zero();
    const int64_t next = columns.step * channels;
    const S* at[kTaps];
    for (int t = 0; t < kTaps; ++t) at[t] = x + columns.offset[first_tap + t] * channels;
    int64_t q = 0;
    const auto some = [&](int64_t end) {
      for (; q < end; ++q) {
        const V g = load<V>(dy + q * channels, lanes);
#pragma GCC unroll 4
        for (int t = 0; t < kTaps; ++t)
          if (columns.inside(q, first_tap + t)) sum[0][t] = fma(load<V>(at[t] + q * next, lanes), g, sum[0][t]);
      }
    };
    some(columns.first);
    for (; q + 2 <= columns.last; q += 2)
#pragma GCC unroll 2
      for (int u = 0; u < 2; ++u) {
        const V g = load<V>(dy + (q + u) * channels, lanes);
        __builtin_prefetch(dy + (q + u + columns.count) * channels);  // of the next row
        __builtin_prefetch(x + (q + u) * next + columns.step * columns.extent * channels);
#pragma GCC unroll 4
        for (int t = 0; t < kTaps; ++t) sum[u][t] = fma(load<V>(at[t] + (q + u) * next, lanes), g, sum[u][t]);
      }
    some(columns.count);
#pragma GCC unroll 4
    for (int t = 0; t < kTaps; ++t) {
      T* to = out + columns.index[first_tap + t] * channels;
      store(to, load<V>(to, lanes) + (sum[0][t] + sum[1][t]), lanes);
    }
  }
};

// Rows [begin, end) of the result and channels [c0, c1), added to sums (R, S, C).
template <class S>
void sum_rows(const Conv2dBackwardWeightArgs& a, const Axis& rows, const Axis& columns, int64_t begin, int64_t end, int64_t c0,
              int64_t c1, Compute<S>* sums) {
  const ConvShape& s = a.shape;
  for (int64_t at = begin; at < end; ++at) {
    const int64_t n = at / s.p, i = at % s.p;
    const S* dy = static_cast<const S*>(a.dy) + at * s.q * s.k;
    for (int r = 0; r < rows.taps; ++r) {
      if (!rows.inside(i, r)) continue;
      const S* x = static_cast<const S*>(a.x) + (n * s.h + i * rows.step + rows.offset[r]) * s.w * s.c;
      each_vector<Vec<S>>(c1 - c0, [&](int64_t v, int lanes) __attribute__((always_inline)) {
        const int64_t c = c0 + v;
        Compute<S>* const out = sums + rows.index[r] * s.s * s.c + c;
        int t = 0;
        for (; t + 4 <= columns.taps; t += 4) RowSums<S, 4>::run(columns, t, x + c, dy + c, s.c, lanes, out);
        switch (columns.taps - t) {
          case 3: RowSums<S, 3>::run(columns, t, x + c, dy + c, s.c, lanes, out); break;
          case 2: RowSums<S, 2>::run(columns, t, x + c, dy + c, s.c, lanes, out); break;
          case 1: RowSums<S, 1>::run(columns, t, x + c, dy + c, s.c, lanes, out); break;
        }
      });
    }
  }
}

Status conv2d_backward_weight(const Conv2dBackwardWeightArgs& a, Context& context) noexcept {
  with_sums(a.dtype, a.dw_dtype, [&]<class S, class O>(S, O) {
    using T = Compute<S>;
    const ConvShape& s = a.shape;
    const Axis rows = forward_axis(s, 0), columns = forward_axis(s, 1);
    const int64_t parts = weight_parts(s), taps = s.r * s.s, size = taps * s.c, blocks = ceil_div(s.c, kChannels);
    T* const partial = static_cast<T*>(context.workspace);
    parallel_chunks(context, parts * blocks, [&](int64_t chunk, int) {
      const int64_t part = chunk / blocks, c0 = chunk % blocks * kChannels, c1 = min_of(s.c, c0 + kChannels);
      T* const sums = partial + part * size;
      for (int64_t t = 0; t < taps; ++t)
        for (int64_t c = c0; c < c1; ++c) sums[t * s.c + c] = 0;
      sum_rows<S>(a, rows, columns, s.n * s.p * part / parts, s.n * s.p * (part + 1) / parts, c0, c1, sums);
    });
    O* dw = static_cast<O*>(a.dw);
    for (int64_t t = 0; t < taps; ++t)
      for (int64_t c = 0; c < s.c; ++c) {
        T sum = partial[t * s.c + c];
        for (int64_t p = 1; p < parts; ++p) sum += partial[p * size + t * s.c + c];
        O* to = dw + c * taps + t;
        *to = to_storage<O>(a.accumulate ? from_storage(*to) + sum : sum);
      }
  });
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_conv_depthwise(KernelTable& table) {
  add_kernel<Conv2dArgs, conv2d, forward_takes, forward_workspace>(table, SMELT_KERNEL_NAME("conv2d_depthwise"));
  add_kernel<Conv2dBackwardInputArgs, conv2d_backward_input, input_takes, input_workspace>(
      table, SMELT_KERNEL_NAME("conv2d_backward_input_depthwise"));
  add_kernel<Conv2dBackwardWeightArgs, conv2d_backward_weight, weight_takes, weight_workspace>(
      table, SMELT_KERNEL_NAME("conv2d_backward_weight_depthwise"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
