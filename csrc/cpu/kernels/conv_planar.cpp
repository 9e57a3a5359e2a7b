// Convolutions with few filters or few channels in a group, in float32, also of bfloat16. As matrix products they would leave most
// lanes of a vector empty; here vectors run along the pixels, and an element of a filter is the same for all lanes.
//
//   forward, backward_input   sums (filters, pixels) over channels and taps of filter times plane, then back to pixels
//   backward_weight           dot products of planes of dy with planes of x, shifted by a tap
#include "cpu/kernels/activated.inl.h"
#include "cpu/kernels/conv_formats.inl.h"
#include "cpu/kernels/conv_planar.inl.h"
#include "cpu/kernels/families.h"
#include "cpu/kernels/gemm_tile.inl.h"

namespace smelt {
namespace {

using V = VecF;
constexpr bool kManyRegisters = V::W == 16;
constexpr int kMostTapsOfAll = 128;  // R S of a filter: their places stand on the stack
constexpr int64_t kChannels = 32;    // of a group that are planes at once

// ---------------------------------------------------------------------------------------- forward and input gradient

// One convolution, whichever way round: of each group `out` channels of the result from `in` of the picture.
template <class S, class O>
struct Layer {
  const S* picture;
  int64_t n, groups, in, out;
  const S* filters;                      // (K, R, S, C / groups)
  bool turned;                           // of the input gradient: filters have `in` first
  O* result;
  int64_t image, row, column;            // elements of the result from one to the next
  const S* bias;                         // (groups out)
  Activation activation;
  bool accumulate;
};

// Vectors of pixels at once, with R filters.
template <int R>
constexpr int kPixelVectors = kManyRegisters ? (R >= 3 ? 6 : 8) : (R >= 3 ? 3 : R == 2 ? 4 : 8);

// y[i][pixels] (+)= over channels and taps of w[i] x; w lies (channels, taps, R).
template <int R, int P>
__attribute__((noinline)) void sum_tile(const float* x, int64_t channel, int64_t channels, const int64_t* offsets, int taps,
                                        const float* w, float* y, int64_t plane, bool add) {
  V acc[R][P];
#pragma GCC unroll 4
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < P; ++v) acc[i][v] = add ? V::load(y + i * plane + v * V::W) : V::zero();
  for (int64_t c = 0; c < channels; ++c, x += channel)
    for (int t = 0; t < taps; ++t, w += R) {
      const float* at = x + offsets[t];
      V pixels[P];
#pragma GCC unroll 8
      for (int v = 0; v < P; ++v) pixels[v] = V::load(at + v * V::W);
#pragma GCC unroll 4
      for (int i = 0; i < R; ++i) {
        const V weight = V::set(w[i]);
#pragma GCC unroll 8
        for (int v = 0; v < P; ++v) acc[i][v] = add_product(acc[i][v], weight, pixels[v]);
      }
    }
#pragma GCC unroll 4
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < P; ++v) acc[i][v].store(y + i * plane + v * V::W);
}

// Likewise for `count` pixels, rounded up to vectors.
template <int R>
void sum_pixels(int64_t count, const float* x, int64_t channel, int64_t channels, const int64_t* offsets, int taps,
                const float* w, float* y, int64_t plane, bool add) {
  constexpr int P = kPixelVectors<R>, kHalf = P / 2;
  int64_t f = 0;
  for (; f + (P - 1) * V::W < count; f += P * V::W) sum_tile<R, P>(x + f, channel, channels, offsets, taps, w, y + f, plane, add);
  for (; f + (kHalf - 1) * V::W < count; f += kHalf * V::W)
    sum_tile<R, kHalf>(x + f, channel, channels, offsets, taps, w, y + f, plane, add);
  if constexpr (kHalf > 1)
    for (; f < count; f += V::W) sum_tile<R, 1>(x + f, channel, channels, offsets, taps, w, y + f, plane, add);
}

constexpr int64_t kFilters = 4;  // at once

// What a layer takes of a workspace, and how it is cut.
struct Cut {
  Planes planes;
  int64_t together, blocks;             // groups
  int64_t channels, x_elements, y_elements;
  int64_t filter_elements, each;        // of all threads together, of one thread

  Cut(const Axis& rows, const Axis& columns, int64_t n, int64_t groups, int64_t in, int64_t out, int threads)
      : planes(rows, columns, 1), together(groups_together(groups, in, out)), blocks(ceil_div(groups, together)) {
    const int64_t strip = strip_rows(rows.count, planes.pitch), wanted = 4 * int64_t{threads};
    // Where the pictures are few, smaller strips, for all threads to have some.
    const int64_t cut = ceil_div(rows.count, max_of(int64_t{1}, wanted / max_of(n * blocks, int64_t{1})));
    const int64_t least = ceil_div(int64_t{128}, max_of(planes.pitch, int64_t{1}));
    planes = Planes(rows, columns, threads == 1 ? strip : min_of(strip, max_of(cut, least)));
    channels = together > 1 ? together * in : min_of(in, kChannels);
    x_elements = round_up(channels, kSquare) * planes.channel();
    y_elements = round_up(together * out, V::W) * planes.result;
    each = round_up(x_elements + y_elements, 16);
    filter_elements = round_up(groups * in * out * planes.taps(), 16);
  }
  size_t bytes(int threads) const { return static_cast<size_t>(filter_elements + threads * each) * sizeof(float); }
};

// Filters of each group in tiles of kFilters, (channels, taps, filters of the tile).
template <class S, class O>
void pack_filters(Context& context, const Layer<S, O>& l, const Planes& planes, int64_t kernel, int64_t kernel_columns, float* to) {
  const int taps = planes.taps();
  int64_t index[kMostTapsOfAll];
  for (int t = 0; t < taps; ++t)
    index[t] = planes.rows.index[t / planes.columns.taps] * kernel_columns + planes.columns.index[t % planes.columns.taps];
  parallel_for(context, l.groups * l.out, ceil_div(16384, max_of(l.in * taps, int64_t{1})), [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      const int64_t group = o / l.out, k = o % l.out, first = k / kFilters * kFilters, width = min_of(kFilters, l.out - first);
      float* dst = to + (group * l.out + first) * l.in * taps + k - first;
      for (int64_t c = 0; c < l.in; ++c)
        for (int t = 0; t < taps; ++t, dst += width)
          *dst = from_storage(l.turned ? l.filters[((group * l.in + c) * kernel + index[t]) * l.out + k]
                                       : l.filters[(o * kernel + index[t]) * l.in + c]);
    }
  });
}

// Planes (channels, plane) of results to pixels [0, rows) x [0, columns), `to` being the first of these.
template <class S, class O>
void write_strip(const Layer<S, O>& l, const Planes& planes, const float* y, int64_t rows, int64_t channels, const S* bias, O* to) {
  alignas(64) float pixels[kSquare * V::W];
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < planes.columns.count; j += kSquare)
      for (int64_t k = 0; k < channels; k += V::W) {
        const int lanes = static_cast<int>(min_of(channels - k, int64_t{V::W}));
        for (int q = 0; q < lanes; q += kSquare)
          transpose_square(y + (k + q) * planes.result + i * planes.pitch + j, 4 * planes.result, pixels + q, V::W);
        for (int64_t p = 0; p < min_of(planes.columns.count - j, int64_t{kSquare}); ++p) {
          O* dst = to + i * l.row + (j + p) * l.column + k;
          V v = V::load(pixels + p * V::W);
          if (l.accumulate) v = load<V>(dst, lanes) + v;
          if (bias) v = v + load<V>(bias + k, lanes);
          store(dst, l.activation == Activation::none ? v : activated(l.activation, rounded<O>(v)), lanes);
        }
      }
}

template <class S, class O>
void run_layer(Context& context, const Layer<S, O>& l, const Axis& rows, const Axis& columns, int64_t kernel, int64_t kernel_columns) {
  const Cut cut(rows, columns, l.n, l.groups, l.in, l.out, context.threads);
  const Planes& planes = cut.planes;
  const int taps = planes.taps();
  int64_t offsets[kMostTapsOfAll];
  for (int t = 0; t < taps; ++t) offsets[t] = planes.tap_offset(t);
  float* const filters = static_cast<float*>(context.workspace);
  pack_filters(context, l, planes, kernel, kernel_columns, filters);
  parallel_chunks(context, l.n * planes.strips * cut.blocks, [&](int64_t chunk, int thread) {
    const int64_t block = chunk % cut.blocks, strip = chunk / cut.blocks % planes.strips, n = chunk / cut.blocks / planes.strips;
    const int64_t g0 = block * cut.together, groups = min_of(cut.together, l.groups - g0), first = strip * planes.strip;
    const int64_t height = min_of(planes.strip, rows.count - first), all = l.groups * l.in;
    float* const x = filters + cut.filter_elements + thread * cut.each;
    float* const y = x + cut.x_elements;
    const S* picture = l.picture + n * rows.extent * columns.extent * all + g0 * l.in;
    for (int64_t c0 = 0; c0 == 0 || c0 < l.in; c0 += kChannels) {
      const int64_t channels = groups > 1 ? l.in : min_of(l.in - c0, kChannels);
      if (taps) planes.fill(picture + c0, all, groups * channels, first, x);
      for (int64_t g = 0; g < groups; ++g)
        for (int64_t k = 0; k < l.out; k += kFilters) {
          const int64_t width = min_of(kFilters, l.out - k);
          const float* w = filters + (((g0 + g) * l.out + k) * l.in + c0 * width) * taps;
          const auto sum_up = [&]<int R>() {
            sum_pixels<R>(height * planes.pitch, x + g * l.in * planes.channel(), planes.channel(), channels, offsets, taps, w,
                          y + (g * l.out + k) * planes.result, planes.result, c0 > 0);
          };
          switch (width) {
            case 1: sum_up.template operator()<1>(); break;
            case 2: sum_up.template operator()<2>(); break;
            case 3: sum_up.template operator()<3>(); break;
            default: sum_up.template operator()<4>(); break;
          }
        }
      if (groups > 1) break;
    }
    write_strip(l, planes, y, height, groups * l.out, l.bias ? l.bias + g0 * l.out : nullptr,
                l.result + n * l.image + first * l.row + g0 * l.out);
  });
}

// Whether there is room for a filter's places, and for the rows that it reaches over.
bool fits(const ConvShape& s) {
  const int64_t reach = (s.r - 1) * s.dilation[0] + 1, pitch = max_of(s.q, s.w) + (s.s - 1) * s.dilation[1];
  return s.c > 0 && s.k > 0 && s.r <= kMostTaps && s.s <= kMostTaps && s.r * s.s <= kMostTapsOfAll &&
         reach <= 16384 / max_of(pitch, int64_t{1});
}
// Beside products of pairs: these are so much faster that a third of a vector may be empty, and tiles of AMX have few columns.
// What has kernels of its own below them, depthwise layers and few channels in all, stays there.
bool others_are_faster(const ConvShape& s, int64_t in, int64_t out) {
  if (!kBesidePairs) return false;
  if (s.groups > 1) return s.c == s.groups && s.k == s.groups;
  return kIsa == Isa::amx || s.c <= 4 || in > 64 || out > 10;
}
// Vectors of pixels pay where `out` channels of a group's result leave more of a vector empty than do the places between rows.
bool pays(const ConvShape& s, int64_t in, int64_t out, int64_t columns) {
  if (others_are_faster(s, in, out)) return false;
  if (s.groups > 1) return out <= 16;
  return s.r * s.s > 1 && out <= 16 && (columns + s.s - 1) * out <= 20 * columns;
}

bool forward_takes(const Conv2dArgs& a) {
  const ConvShape& s = a.shape;
  return takes_formats(a.dtype, a.dtype) && fits(s) && pays(s, s.c / s.groups, s.k / s.groups, s.q);
}
size_t forward_workspace(const Conv2dArgs& a, int threads) {
  const ConvShape& s = a.shape;
  return Cut(forward_axis(s, 0), forward_axis(s, 1), s.n, s.groups, s.c / s.groups, s.k / s.groups, threads).bytes(threads);
}
Status conv2d(const Conv2dArgs& a, Context& context) noexcept {
  const ConvShape& s = a.shape;
  with_formats(a.dtype, a.dtype, [&]<class S, class O>(S, O) {
    if constexpr (sizeof(S) == sizeof(O))
      run_layer(context,
                Layer<S, O>{static_cast<const S*>(a.x), s.n, s.groups, s.c / s.groups, s.k / s.groups, static_cast<const S*>(a.w),
                            false, static_cast<O*>(a.y), s.p * s.q * s.k, s.q * s.k, s.k, static_cast<const S*>(a.bias),
                            a.activation, false},
                forward_axis(s, 0), forward_axis(s, 1), s.r * s.s, s.s);
  });
  return Status::ok;
}

// Input pixels of a phase of the stride meet the same taps: a layer for each phase.
template <class F>
void each_phase(const ConvShape& s, const F& f) {
  for (int64_t y = 0; y < min_of(s.stride[0], s.h); ++y)
    for (int64_t x = 0; x < min_of(s.stride[1], s.w); ++x) f(y, x, input_axis(s, 0, y), input_axis(s, 1, x));
}

bool input_takes(const Conv2dBackwardInputArgs& a) {
  const ConvShape& s = a.shape;
  return takes_formats(a.dtype, a.dx_dtype) && fits(s) && pays(s, s.k / s.groups, s.c / s.groups, s.w);
}
size_t input_workspace(const Conv2dBackwardInputArgs& a, int threads) {
  const ConvShape& s = a.shape;
  size_t most = 0;
  each_phase(s, [&](int64_t, int64_t, const Axis& rows, const Axis& columns) {
    most = max_of(most, Cut(rows, columns, s.n, s.groups, s.k / s.groups, s.c / s.groups, threads).bytes(threads));
  });
  return most;
}
Status conv2d_backward_input(const Conv2dBackwardInputArgs& a, Context& context) noexcept {
  const ConvShape& s = a.shape;
  each_phase(s, [&](int64_t y, int64_t x, const Axis& rows, const Axis& columns) {
    with_formats(a.dtype, a.dx_dtype, [&]<class S, class O>(S, O) {
      run_layer(context,
                Layer<S, O>{static_cast<const S*>(a.dy), s.n, s.groups, s.k / s.groups, s.c / s.groups,
                            static_cast<const S*>(a.w), true, static_cast<O*>(a.dx) + (y * s.w + x) * s.c, s.h * s.w * s.c,
                            s.stride[0] * s.w * s.c, s.stride[1] * s.c, nullptr, Activation::none, a.accumulate},
                rows, columns, s.r * s.s, s.s);
    });
  });
  return Status::ok;
}

// -------------------------------------------------------------------------------------------------- weight gradient

template <int R>
constexpr int kPlaces = kManyRegisters ? (R >= 3 ? 6 : 8) : (R == 4 ? 2 : R == 3 ? 3 : R == 2 ? 4 : 8);  // of a filter, at once

// Planes of `strips` strips, so many elements from one to the next.
struct Strips {
  const float* x;
  const float* dy;
  int64_t count, x_step, dy_step, pixels;
};

// sums[i][t] += dy[i] . x shifted by offsets[t]; the first `count` of these.
template <int R, int T>
__attribute__((noinline)) void dot_tile(const Strips& s, int64_t plane, const int64_t* offsets, int count, float* sums,
                                        int64_t pitch) {
  V acc[R][T];
#pragma GCC unroll 4
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) acc[i][t] = V::zero();
  for (int64_t n = 0; n < s.count; ++n) {
    const float* dy = s.dy + n * s.dy_step;
    const float* x[T];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) x[t] = s.x + n * s.x_step + offsets[t];
    for (int64_t f = 0; f < s.pixels; f += V::W) {
      V g[R];
#pragma GCC unroll 4
      for (int i = 0; i < R; ++i) g[i] = V::load(dy + i * plane + f);
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        const V v = V::load(x[t] + f);
#pragma GCC unroll 4
        for (int i = 0; i < R; ++i) acc[i][t] = add_product(acc[i][t], g[i], v);
      }
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t)
      if (t < count) sums[i * pitch + t] += sum(acc[i][t]);
}

template <int R>
void dots(const Strips& s, int64_t plane, const int64_t* taps, int tap_count, int64_t channel, int64_t channels, float* sums,
          int64_t pitch) {
  constexpr int T = kPlaces<R>;
  const int64_t places = channels * tap_count;
  for (int64_t e = 0; e < places; e += T) {
    int64_t offsets[T];
    for (int t = 0; t < T; ++t) {
      const int64_t at = min_of(e + t, places - 1);
      offsets[t] = at / tap_count * channel + taps[at % tap_count];
    }
    dot_tile<R, T>(s, plane, offsets, static_cast<int>(min_of(places - e, int64_t{T})), sums + e, pitch);
  }
}

// Strips of pictures are summed up in parts, cut by shape alone; those of a part a few at once.
struct WeightCut {
  Planes x, dy;
  int64_t in, out, together, blocks, units, parts, at_once;
  int64_t x_elements, dy_elements, size, each;

  explicit WeightCut(const ConvShape& s)
      : x(forward_axis(s, 0), forward_axis(s, 1), 1), dy(x), in(s.c / s.groups), out(s.k / s.groups),
        together(groups_together(s.groups, in, out)), blocks(ceil_div(s.groups, together)) {
    x = Planes(x.rows, x.columns, strip_rows(s.p, x.pitch));
    Axis rows(s.p, 1, s.p), columns(s.q, 1, s.q);
    rows.add(0, 0);
    columns.add(0, 0);
    dy = Planes(rows, columns, x.strip, x.pitch);
    units = s.n * x.strips;
    parts = max_of(int64_t{1}, min_of(units, ceil_div(int64_t{16}, blocks)));
    at_once = max_of(int64_t{1}, min_of(int64_t{1024} / max_of(x.strip * x.pitch, int64_t{1}), ceil_div(units, parts)));
    const int64_t channels = together > 1 ? together * in : min_of(in, kChannels);
    x_elements = round_up(channels, kSquare) * x.channel();
    dy_elements = round_up(together * out, kSquare) * dy.channel();
    size = s.k * in * x.taps();
    each = round_up(at_once * (x_elements + dy_elements), 16);
  }
  size_t bytes(int threads) const { return static_cast<size_t>(round_up(parts * size, 16) + threads * each) * sizeof(float); }
};

// Strips [begin, end) of groups [g0, g0 + groups) to sums (groups out, in, taps).
template <class S>
void sum_units(const Conv2dBackwardWeightArgs& a, const WeightCut& cut, const int64_t* taps, int64_t begin, int64_t end,
               int64_t g0, int64_t groups, float* room, float* sums) {
  const ConvShape& s = a.shape;
  const int tap_count = cut.x.taps();
  float* const x = room;
  float* const dy = room + cut.at_once * cut.x_elements;
  for (int64_t unit = begin; unit < end; unit += cut.at_once) {
    const int64_t count = min_of(cut.at_once, end - unit);
    for (int64_t c0 = 0; c0 < cut.in; c0 += kChannels) {
      const int64_t channels = groups > 1 ? cut.in : min_of(cut.in - c0, kChannels);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t n = (unit + i) / cut.x.strips, first = (unit + i) % cut.x.strips * cut.x.strip;
        cut.x.fill(static_cast<const S*>(a.x) + n * s.h * s.w * s.c + g0 * cut.in + c0, s.c, groups * channels, first,
                   x + i * cut.x_elements);
        if (c0 == 0)
          cut.dy.fill(static_cast<const S*>(a.dy) + n * s.p * s.q * s.k + g0 * cut.out, s.k, groups * cut.out, first,
                      dy + i * cut.dy_elements);
      }
      for (int64_t g = 0; g < groups; ++g)
        for (int64_t k = 0; k < cut.out; k += kFilters) {
          const Strips strips{x + g * cut.in * cut.x.channel(), dy + (g * cut.out + k) * cut.dy.plane, count, cut.x_elements,
                              cut.dy_elements, cut.x.strip * cut.x.pitch};
          float* const to = sums + (g * cut.out + k) * cut.in * tap_count + c0 * tap_count;
          const auto sum_up = [&]<int R>() {
            dots<R>(strips, cut.dy.plane, taps, tap_count, cut.x.channel(), channels, to, cut.in * tap_count);
          };
          switch (min_of(cut.out - k, kFilters)) {
            case 1: sum_up.template operator()<1>(); break;
            case 2: sum_up.template operator()<2>(); break;
            case 3: sum_up.template operator()<3>(); break;
            default: sum_up.template operator()<4>(); break;
          }
        }
      if (groups > 1) break;
    }
  }
}

bool weight_takes(const Conv2dBackwardWeightArgs& a) {
  const ConvShape& s = a.shape;
  if (!takes_formats(a.dtype, a.dw_dtype) || s.n * s.p * s.q == 0 || !fits(s) || others_are_faster(s, s.c, s.k)) return false;
  // Products of few rows spend their time on gathering; of some, on gathering short runs for each group.
  return s.groups > 1 ? s.k <= 32 * s.groups && s.c <= 64 * s.groups : s.r * s.s > 1 && s.k <= 12 && 4 * (s.s - 1) < s.q;
}
size_t weight_workspace(const Conv2dBackwardWeightArgs& a, int threads) { return WeightCut(a.shape).bytes(threads); }

template <class S, class O>
void weight_gradient(const Conv2dBackwardWeightArgs& a, Context& context) {
  const ConvShape& s = a.shape;
  const WeightCut cut(s);
  const int taps = cut.x.taps();
  int64_t offsets[kMostTapsOfAll];
  for (int t = 0; t < taps; ++t) offsets[t] = cut.x.tap_offset(t);
  float* const partial = static_cast<float*>(context.workspace);
  float* const rooms = partial + round_up(cut.parts * cut.size, 16);
  const int64_t filter = cut.in * taps;
  parallel_chunks(context, cut.parts * cut.blocks, [&](int64_t chunk, int thread) {
    const int64_t part = chunk / cut.blocks, g0 = chunk % cut.blocks * cut.together, groups = min_of(cut.together, s.groups - g0);
    float* const sums = partial + part * cut.size + g0 * cut.out * filter;
    __builtin_memset(sums, 0, static_cast<size_t>(groups * cut.out * filter) * sizeof(float));
    sum_units<S>(a, cut, offsets, cut.units * part / cut.parts, cut.units * (part + 1) / cut.parts, g0, groups,
              rooms + thread * cut.each, sums);
  });
  parallel_for(context, s.k, ceil_div(8192, filter), [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k)
      for (int64_t e = 0; e < filter; ++e) {
        float total = 0;
        for (int64_t part = 0; part < cut.parts; ++part) total += partial[part * cut.size + k * filter + e];
        O* to = static_cast<O*>(a.dw) + k * filter + e % taps * cut.in + e / taps;
        *to = to_storage<O>(a.accumulate ? from_storage(*to) + total : total);
      }
  });
}
Status conv2d_backward_weight(const Conv2dBackwardWeightArgs& a, Context& context) noexcept {
  with_formats(a.dtype, a.dw_dtype, [&]<class S, class O>(S, O) { weight_gradient<S, O>(a, context); });
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_conv_planar(KernelTable& table) {
  add_kernel<Conv2dArgs, conv2d, forward_takes, forward_workspace>(table, SMELT_KERNEL_NAME("conv2d_planar"));
  add_kernel<Conv2dBackwardInputArgs, conv2d_backward_input, input_takes, input_workspace>(
      table, SMELT_KERNEL_NAME("conv2d_backward_input_planar"));
  add_kernel<Conv2dBackwardWeightArgs, conv2d_backward_weight, weight_takes, weight_workspace>(
      table, SMELT_KERNEL_NAME("conv2d_backward_weight_planar"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
