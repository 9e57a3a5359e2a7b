// Convolutions of pictures with few channels, as in a network's first layer, where gathering rows of a matrix costs as much as
// multiplying them. A few rows of the picture are copied once, in what is computed in and with zeros around them; then
//
//   forward          pixels of a row times filters, each pixel's operands being runs of those rows
//   backward_weight  taps times filters, the depth being the pixels of a row, dy read as it lies
//   backward_input   dot products along the filters, a few pixels at once
#include "cpu/kernels/families.h"
#include "cpu/kernels/gemm_core.inl.h"

namespace smelt {
namespace {

constexpr int64_t kMostChannels = 4, kMostTapsOfAll = 128;  // R S of a filter
constexpr int64_t kRows = 4;                           // of the result, that share the copied rows

bool is_narrow(const ConvShape& s) {
  return s.groups == 1 && s.c >= 1 && s.c <= kMostChannels && s.k >= 2 * s.c && s.r * s.s <= kMostTapsOfAll && s.dilation[0] == 1 &&
         s.dilation[1] == 1 && s.n * s.p * s.q > 0;
}

// Rows of the picture around kRows rows of the result.
struct Strip {
  int64_t rows, pitch;  // elements of a row
  explicit Strip(const ConvShape& s) : rows((max_of(int64_t{1}, min_of(kRows, s.p)) - 1) * s.stride[0] + s.r), pitch(((s.q - 1) * s.stride[1] + s.s) * s.c) {}
  int64_t elements() const { return round_up(rows * pitch, 16) + 16; }

  template <class S>
  void copy(const ConvShape& s, const S* x, int64_t n, int64_t p, Compute<S>* to) const {
    const int64_t used = (min_of(kRows, s.p - p) - 1) * s.stride[0] + s.r, left = s.pad[1] * s.c;
    for (int64_t i = 0; i < used; ++i, to += pitch) {
      const int64_t y = p * s.stride[0] - s.pad[0] + i;
      const bool inside = y >= 0 && y < s.h;
      const int64_t first = inside ? min_of(left, pitch) : pitch, last = inside ? max_of(first, min_of(pitch, left + s.w * s.c)) : pitch;
      for (int64_t e = 0; e < first; ++e) to[e] = 0;
      copy_run(x + (n * s.h + y) * s.w * s.c + first - left, last - first, to + first);
      for (int64_t e = last; e < pitch; ++e) to[e] = 0;
    }
  }
};
// Strips of the result: of each picture, kRows rows each.
int64_t strips_of(const ConvShape& s) { return ceil_div(s.p, kRows); }

// ---------------------------------------------------------------------------------------------------------- forward

bool forward_takes(const Conv2dArgs& a) { return is_floating(a.dtype) && is_narrow(a.shape); }

// Filters as panels of B, the bias, pointers to a panel's runs and a strip for each thread.
template <class S>
struct Forward {
  using V = Vec<S>;
  using T = typename V::T;
  using F = Tile<V>;
  const ConvShape& s;
  const int64_t depth, panels, bias_room, run_bytes;
  const Strip strip;

  explicit Forward(const ConvShape& shape)
      : s(shape), depth(s.r * s.s * s.c), panels(ceil_div(s.k, F::kNr)), bias_room(round_up(s.k, 16)),
        run_bytes(round_up(static_cast<int64_t>(sizeof(Runs<T>)) + s.r * F::kMr * static_cast<int64_t>(sizeof(T*)), 64)), strip(s) {}
  size_t workspace(int threads) const {
    const int64_t elements = panels * depth * F::kNr + bias_room + threads * strip.elements();
    return static_cast<size_t>(elements) * sizeof(T) + static_cast<size_t>(threads * run_bytes);
  }

  void row(const Conv2dArgs& a, const T* filters, const T* bias, const T* pixels, Runs<T>* runs, S* y) const {
    const int64_t step = s.stride[1] * s.c;
    for (int64_t q = 0; q < s.q; q += F::kMr) {
      const int count = static_cast<int>(min_of(s.q - q, int64_t{F::kMr}));
      for (int64_t r = 0; r < s.r; ++r)
        for (int i = 0; i < F::kMr; ++i) runs->pointers[r * F::kMr + i] = pixels + r * strip.pitch + (q + min_of(i, count - 1)) * step;
      for (int64_t panel = 0; panel < panels; ++panel) {
        const int64_t k = panel * F::kNr;
        S* c_rows[F::kMr];
        for (int i = 0; i < F::kMr; ++i) c_rows[i] = y + (q + min_of(i, count - 1)) * s.k + k;
        run_tile<F, LayoutA::runs>(depth, reinterpret_cast<const T*>(runs), filters + panel * depth * F::kNr, c_rows, count,
                                   static_cast<int>(min_of(s.k - k, int64_t{F::kNr})),
                                   Epilogue<T>{T{1}, bias ? bias + k : nullptr, a.activation});
      }
    }
  }

  void run(const Conv2dArgs& a, Context& context) const {
    T* const filters = static_cast<T*>(context.workspace);
    T* const bias = filters + panels * depth * F::kNr;
    T* const strips = bias + bias_room;
    char* const all_runs = reinterpret_cast<char*>(strips + context.threads * strip.elements());
    each_panel<F>(0, s.k, depth, filters, [&](int64_t k, int count, T* panel) {
      pack_transpose(static_cast<const S*>(a.w) + k * depth, depth, depth, count, F::kNr, panel);
    });
    for (int64_t k = 0; a.bias && k < s.k; ++k) bias[k] = from_storage(static_cast<const S*>(a.bias)[k]);
    parallel_chunks(context, s.n * strips_of(s), [&](int64_t chunk, int thread) {
      const int64_t n = chunk / strips_of(s), p = chunk % strips_of(s) * kRows;
      T* const own = strips + thread * strip.elements();
      auto* runs = reinterpret_cast<Runs<T>*>(all_runs + thread * run_bytes);
      runs->length = s.s * s.c;
      runs->skip = 0;
      strip.copy(s, static_cast<const S*>(a.x), n, p, own);
      for (int64_t i = 0; i < min_of(kRows, s.p - p); ++i)
        row(a, filters, a.bias ? bias : nullptr, own + i * s.stride[0] * strip.pitch, runs,
            static_cast<S*>(a.y) + (n * s.p + p + i) * s.q * s.k);
    });
  }
};

size_t forward_workspace(const Conv2dArgs& a, int threads) {
  return with_floating(a.dtype, [&]<class S>(S) { return Forward<S>(a.shape).workspace(threads); });
}
Status conv2d(const Conv2dArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) { Forward<S>(a.shape).run(a, context); });
  return Status::ok;
}

// -------------------------------------------------------------------------------------------------- weight gradient

// Strips are summed up in parts, cut by shape alone.
constexpr int64_t kParts = 16;
int64_t parts_of(const ConvShape& s) { return max_of(int64_t{1}, min_of(kParts, s.n * strips_of(s))); }

bool weight_takes(const Conv2dBackwardWeightArgs& a) { return takes_sums(a.dtype, a.dw_dtype) && is_narrow(a.shape); }
size_t weight_workspace(const Conv2dBackwardWeightArgs& a, int threads) {
  return with_floating(a.dtype, [&]<class S>(S) -> size_t {
    const ConvShape& s = a.shape;
    const int64_t sums = parts_of(s) * s.r * s.s * s.c * round_up(s.k, 16);
    return static_cast<size_t>(sums + threads * Strip(s).elements()) * sizeof(Compute<S>);
  });
}

// sums (R of `count` rows, NV vectors) += taps' pixels times dy, over the pixels of some rows.
template <class S, int R, int NV>
__attribute__((noinline)) void sum_taps(const Compute<S>* const* taps, int64_t tap_row, int64_t step, const S* dy, int64_t k, int64_t rows,
                                        int64_t q, int lanes, Compute<S>* sums, int64_t pitch, int count) {
  using V = Vec<S>;
  V acc[R][NV];
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[i][v] = V::zero();
  for (int64_t p = 0; p < rows; ++p)
    for (int64_t j = 0; j < q; ++j, dy += k) {
      V g[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) g[v] = v + 1 < NV ? V::load(dy + v * V::W) : load<V>(dy + v * V::W, lanes);
#pragma GCC unroll 8
      for (int i = 0; i < R; ++i) {
        const V x = V::set(taps[i][p * tap_row + j * step]);
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) acc[i][v] = fma(x, g[v], acc[i][v]);
      }
    }
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v)
      if (i < count) {
        Compute<S>* to = sums + i * pitch + v * V::W;
        (V::load(to) + acc[i][v]).store(to);
      }
}

// The strip at `pixels`, and dy of its rows, added to sums (R S C, K rounded up).
template <class S>
void sum_strip(const ConvShape& s, const Compute<S>* pixels, const S* dy, int64_t rows, Compute<S>* sums) {
  using V = Vec<S>;
  constexpr int R = 6;
  const Strip strip(s);
  const int64_t run = s.s * s.c, depth = s.r * run, pitch = round_up(s.k, 16), row = s.stride[0] * strip.pitch;
  for (int64_t e = 0; e < depth; e += R) {
    const Compute<S>* taps[R];
    for (int i = 0; i < R; ++i) {
      const int64_t at = min_of(e + i, depth - 1);
      taps[i] = pixels + at / run * strip.pitch + at % run;
    }
    const int count = static_cast<int>(min_of(depth - e, int64_t{R}));
    const auto sum_up = [&]<int NV>(int64_t k, int lanes) {
      sum_taps<S, R, NV>(taps, row, s.stride[1] * s.c, dy + k, s.k, rows, s.q, lanes, sums + e * pitch + k, pitch, count);
    };
    int64_t k = 0;
    constexpr int kMost = __is_same(V, VecF) && V::W == 16 ? 4 : 2;  // more would not fit the registers
    for (; k + kMost * V::W <= s.k; k += kMost * V::W) sum_up.template operator()<kMost>(k, V::W);
    for (; k < s.k; k += V::W) sum_up.template operator()<1>(k, static_cast<int>(min_of(s.k - k, int64_t{V::W})));
  }
}

Status conv2d_backward_weight(const Conv2dBackwardWeightArgs& a, Context& context) noexcept {
  with_sums(a.dtype, a.dw_dtype, [&]<class S, class O>(S, O) {
    using T = Compute<S>;
    const ConvShape& s = a.shape;
    const Strip strip(s);
    const int64_t depth = s.r * s.s * s.c, pitch = round_up(s.k, 16), parts = parts_of(s), strips = s.n * strips_of(s);
    T* const sums = static_cast<T*>(context.workspace);
    T* const copies = sums + parts * depth * pitch;
    parallel_chunks(context, parts, [&](int64_t part, int thread) {
      T* const own = sums + part * depth * pitch;
      for (int64_t i = 0; i < depth * pitch; ++i) own[i] = 0;
      T* const pixels = copies + thread * strip.elements();
      for (int64_t at = strips * part / parts; at < strips * (part + 1) / parts; ++at) {
        const int64_t n = at / strips_of(s), p = at % strips_of(s) * kRows;
        strip.copy(s, static_cast<const S*>(a.x), n, p, pixels);
        sum_strip<S>(s, pixels, static_cast<const S*>(a.dy) + (n * s.p + p) * s.q * s.k, min_of(kRows, s.p - p), own);
      }
    });
    O* dw = static_cast<O*>(a.dw);
    for (int64_t k = 0; k < s.k; ++k)
      for (int64_t e = 0; e < depth; ++e) {
        T sum = sums[e * pitch + k];
        for (int64_t part = 1; part < parts; ++part) sum += sums[(part * depth + e) * pitch + k];
        O* to = dw + k * depth + e;
        *to = to_storage<O>(a.accumulate ? from_storage(*to) + sum : sum);
      }
  });
  return Status::ok;
}

// --------------------------------------------------------------------------------------------------- input gradient

constexpr int kPixels = 4;  // at once

bool input_takes(const Conv2dBackwardInputArgs& a) { return takes_sums(a.dtype, a.dx_dtype) && is_narrow(a.shape); }

// Filters as (R, S, C, K), K rounded up; a row of zeros in the place of pixels outside.
size_t input_workspace(const Conv2dBackwardInputArgs& a, int) {
  return with_floating(a.dtype, [&]<class S>(S) -> size_t {
    const ConvShape& s = a.shape;
    const int64_t pitch = round_up(s.k, 16);
    return static_cast<size_t>(s.r * s.s * s.c * pitch) * sizeof(Compute<S>) + static_cast<size_t>(pitch) * sizeof(S);
  });
}

// sums[j][c] of kPixels pixels, one per tap: sources[j] has K elements, weights (C, K).
template <class S, int C>
SMELT_INLINE void add_dots(const S* const* sources, const Compute<S>* weights, int64_t k, int64_t pitch, Vec<S> (&acc)[kPixels][C]) {
  using V = Vec<S>;
  each_vector<V>(k, [&](int64_t i, int lanes) __attribute__((always_inline)) {
    V g[kPixels];
#pragma GCC unroll 4
    for (int j = 0; j < kPixels; ++j) g[j] = load<V>(sources[j] + i, lanes);
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      const V w = V::load(weights + c * pitch + i);
#pragma GCC unroll 4
      for (int j = 0; j < kPixels; ++j) acc[j][c] = fma(g[j], w, acc[j][c]);
    }
  });
}

// Row y of picture n.
template <class S, class O, int C>
void input_row(const Conv2dBackwardInputArgs& a, int64_t n, int64_t y, const Compute<S>* weights, const S* zeros) {
  using V = Vec<S>;
  const ConvShape& s = a.shape;
  const int64_t pitch = round_up(s.k, 16);
  const S* dy = static_cast<const S*>(a.dy) + n * s.p * s.q * s.k;
  O* dx = static_cast<O*>(a.dx) + (n * s.h + y) * s.w * C;
  // Pixels a stride apart meet the same taps.
  for (int64_t phase = 0; phase < min_of(s.stride[1], s.w); ++phase)
    for (int64_t x = phase; x < s.w; x += kPixels * s.stride[1]) {
      V acc[kPixels][C];
#pragma GCC unroll 4
      for (int j = 0; j < kPixels; ++j)
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) acc[j][c] = V::zero();
      for (int64_t r = 0; r < s.r; ++r) {
        const int64_t up = y + s.pad[0] - r, p = up / s.stride[0];
        if (up < 0 || up % s.stride[0] != 0 || p >= s.p) continue;
        for (int64_t t = 0; t < s.s; ++t) {
          const int64_t left = x + s.pad[1] - t;
          if (left % s.stride[1] != 0) continue;
          const int64_t q = left / s.stride[1];
          const S* sources[kPixels];
          for (int j = 0; j < kPixels; ++j) sources[j] = q + j >= 0 && q + j < s.q ? dy + (p * s.q + q + j) * s.k : zeros;
          add_dots<S, C>(sources, weights + (r * s.s + t) * C * pitch, s.k, pitch, acc);
        }
      }
#pragma GCC unroll 4
      for (int j = 0; j < kPixels; ++j) {
        if (x + j * s.stride[1] >= s.w) break;
        O* to = dx + (x + j * s.stride[1]) * C;
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) {
          const auto v = sum(acc[j][c]);
          to[c] = to_storage<O>(a.accumulate ? from_storage(to[c]) + v : v);
        }
      }
    }
}

template <class S, class O, int C>
void backward_input(const Conv2dBackwardInputArgs& a, Context& context) {
  const ConvShape& s = a.shape;
  const int64_t pitch = round_up(s.k, 16), taps = s.r * s.s * C;
  auto* weights = static_cast<Compute<S>*>(context.workspace);
  S* zeros = reinterpret_cast<S*>(weights + taps * pitch);
  for (int64_t e = 0; e < taps; ++e)
    for (int64_t k = 0; k < pitch; ++k) weights[e * pitch + k] = k < s.k ? from_storage(static_cast<const S*>(a.w)[k * taps + e]) : 0;
  for (int64_t k = 0; k < pitch; ++k) zeros[k] = to_storage<S>(0);
  const int64_t work = s.w * taps * s.k;
  parallel_for(context, s.n * s.h, ceil_div(65536, max_of(work, int64_t{1})), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) input_row<S, O, C>(a, row / s.h, row % s.h, weights, zeros);
  });
}

Status conv2d_backward_input(const Conv2dBackwardInputArgs& a, Context& context) noexcept {
  with_sums(a.dtype, a.dx_dtype, [&]<class S, class O>(S, O) {
    switch (a.shape.c) {
      case 1: return backward_input<S, O, 1>(a, context);
      case 2: return backward_input<S, O, 2>(a, context);
      case 3: return backward_input<S, O, 3>(a, context);
      default: return backward_input<S, O, 4>(a, context);
    }
  });
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_conv_narrow(KernelTable& table) {
  add_kernel<Conv2dArgs, conv2d, forward_takes, forward_workspace>(table, SMELT_KERNEL_NAME("conv2d_narrow"));
  add_kernel<Conv2dBackwardInputArgs, conv2d_backward_input, input_takes, input_workspace>(
      table, SMELT_KERNEL_NAME("conv2d_backward_input_narrow"));
  add_kernel<Conv2dBackwardWeightArgs, conv2d_backward_weight, weight_takes, weight_workspace>(
      table, SMELT_KERNEL_NAME("conv2d_backward_weight_narrow"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
