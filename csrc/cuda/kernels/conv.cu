// Convolutions as matrix products whose operands are found in the channels-last image: nothing is unfolded in memory. A group
// is a product of its own.
//
//   forward          y  (pixels, K)  = patches of x (pixels, R S C)  times w^T
//   backward_input   dx (pixels, C)  = patches of dy (pixels, R S K) times w (R S K, C)
//   backward_weight  dw (K, R S C)   = dy^T                          times patches of x
#include "cuda/common/gemm.cuh"

namespace smelt {
namespace {

// Divides by a number that is known on the host only; 32 bits where that is enough.
SMELT_WORD void split(int64_t value, int64_t by, int64_t* quotient, int64_t* rest) {
  if ((value | by) >> 32) {
    *quotient = value / by;
    *rest = value % by;
  } else {
    const auto v = static_cast<uint32_t>(value), b = static_cast<uint32_t>(by);
    *quotient = v / b;
    *rest = v % b;
  }
}

// Pixels of the output by the taps and channels of x that each sees. `is_deep`: taps and channels are the depth, else the rows.
template <class S, bool is_deep>
struct PatchView {
  static constexpr bool deep = is_deep;
  using Element = S;
  const S* data;
  ConvShape shape;
  int64_t channels, pixels, length;  // of a group; N P Q; R S channels

  SMELT_WORD const S* find(int64_t group, int64_t row, int64_t p, int want, int* count) const {
    const int64_t pixel = deep ? row : p, at = deep ? p : row;
    *count = 0;
    if (pixel >= pixels || at >= length) return data;
    int64_t n, rest, i, j, tap, channel, r, s;
    split(pixel, shape.p * shape.q, &n, &rest);
    split(rest, shape.q, &i, &j);
    split(at, channels, &tap, &channel);
    split(tap, shape.s, &r, &s);
    const int64_t y = i * shape.stride[0] - shape.pad[0] + r * shape.dilation[0];
    const int64_t x = j * shape.stride[1] - shape.pad[1] + s * shape.dilation[1];
    if (y < 0 || y >= shape.h || x < 0 || x >= shape.w) return data;
    *count = static_cast<int>(min_of(channels - channel, static_cast<int64_t>(want)));
    return data + ((n * shape.h + y) * shape.w + x) * shape.c + group * channels + channel;
  }
};

// Pixels of the input by the taps and channels of dy that saw it.
template <class S>
struct SourceView {
  static constexpr bool deep = true;
  using Element = S;
  const S* data;
  ConvShape shape;
  int64_t channels, pixels, length;  // of a group of dy; N H W; R S channels

  SMELT_WORD const S* find(int64_t group, int64_t row, int64_t p, int want, int* count) const {
    *count = 0;
    if (row >= pixels || p >= length) return data;
    int64_t n, rest, y, x, tap, channel, r, s;
    split(row, shape.h * shape.w, &n, &rest);
    split(rest, shape.w, &y, &x);
    split(p, channels, &tap, &channel);
    split(tap, shape.s, &r, &s);
    const int64_t down = y + shape.pad[0] - r * shape.dilation[0], across = x + shape.pad[1] - s * shape.dilation[1];
    if (down < 0 || across < 0) return data;
    int64_t i, j, between_rows, between_columns;
    split(down, shape.stride[0], &i, &between_rows);
    split(across, shape.stride[1], &j, &between_columns);
    if (between_rows || between_columns || i >= shape.p || j >= shape.q) return data;
    *count = static_cast<int>(min_of(channels - channel, static_cast<int64_t>(want)));
    return data + ((n * shape.p + i) * shape.q + j) * shape.k + group * channels + channel;
  }
};

// Input channels by taps and output channels.
template <class S>
struct WeightView {
  static constexpr bool deep = false;
  using Element = S;
  const S* data;
  int64_t inputs, outputs, taps;  // channels of a group

  SMELT_WORD const S* find(int64_t group, int64_t row, int64_t p, int want, int* count) const {
    *count = 0;
    if (row >= inputs || p >= taps * outputs) return data;
    int64_t tap, k;
    split(p, outputs, &tap, &k);
    *count = static_cast<int>(min_of(inputs - row, static_cast<int64_t>(want)));
    return data + ((group * outputs + k) * taps + tap) * inputs + row;
  }
};

// What a product needs to know of the shape.
struct Sizes {
  int64_t inputs, outputs, taps;    // channels of a group
  int64_t out_pixels, in_pixels;    // of all images
  explicit Sizes(const ConvShape& s)
      : inputs(s.c / s.groups), outputs(s.k / s.groups), taps(s.r * s.s), out_pixels(s.n * s.p * s.q), in_pixels(s.n * s.h * s.w) {}
  template <class S>
  bool whole_chunks(const ConvShape& s) const {
    constexpr int kChunk = Stage<S>::kChunk;
    return inputs % kChunk == 0 && outputs % kChunk == 0 && s.c % kChunk == 0 && s.k % kChunk == 0;
  }
};

// ------------------------------------------------------------------------------------------------------------ forward

template <class S>
Status forward_run(const Conv2dArgs& a, Context& context) {
  const Sizes z(a.shape);
  const int64_t length = z.taps * z.inputs;
  const PatchView<S, true> patches{static_cast<const S*>(a.x), a.shape, z.inputs, z.out_pixels, length};
  const MatrixView<S, true> weight{static_cast<const S*>(a.w), z.outputs, length, length, z.outputs * length};
  const Epilogue<S, S> epilogue{static_cast<S*>(a.y), static_cast<const S*>(a.bias), nullptr, a.shape.k, z.outputs, z.outputs, 1,
                                a.activation,         false};
  const bool wide = z.whole_chunks<S>(a.shape) && aligned16(a.x) && aligned16(a.w);
  return multiply(context, a.dtype, patches, weight, epilogue, z.out_pixels, z.outputs, length, a.shape.groups, wide);
}
Status conv2d(const Conv2dArgs& a, Context& context) noexcept {
  return with_floating(a.dtype, [&]<class S>(S) { return forward_run<S>(a, context); });
}
size_t conv2d_workspace(const Conv2dArgs& a) {
  const Sizes z(a.shape);
  return multiply_workspace(a.dtype, z.out_pixels, z.outputs, z.taps * z.inputs, a.shape.groups);
}

// ----------------------------------------------------------------------------------------------------- backward_input

template <class S, class C>
Status backward_input_run(const Conv2dBackwardInputArgs& a, Context& context) {
  const Sizes z(a.shape);
  const int64_t length = z.taps * z.outputs;
  const SourceView<S> sources{static_cast<const S*>(a.dy), a.shape, z.outputs, z.in_pixels, length};
  const WeightView<S> weight{static_cast<const S*>(a.w), z.inputs, z.outputs, z.taps};
  const Epilogue<S, C> epilogue{static_cast<C*>(a.dx), nullptr, nullptr, a.shape.c, z.inputs, 0, 1, Activation::none, a.accumulate};
  const bool wide = z.whole_chunks<S>(a.shape) && aligned16(a.dy) && aligned16(a.w);
  return multiply(context, a.dtype, sources, weight, epilogue, z.in_pixels, z.inputs, length, a.shape.groups, wide);
}
Status backward_input(const Conv2dBackwardInputArgs& a, Context& context) noexcept {
  return with_sums(a.dtype, a.dx_dtype, [&]<class S, class C>(S, C) { return backward_input_run<S, C>(a, context); });
}
bool backward_input_supports(const Conv2dBackwardInputArgs& a) { return takes_sums(a.dtype, a.dx_dtype); }
size_t backward_input_workspace(const Conv2dBackwardInputArgs& a) {
  const Sizes z(a.shape);
  return multiply_workspace(a.dtype, z.in_pixels, z.inputs, z.taps * z.outputs, a.shape.groups);
}

// ---------------------------------------------------------------------------------------------------- backward_weight

template <class S, class C>
Status backward_weight_run(const Conv2dBackwardWeightArgs& a, Context& context) {
  const Sizes z(a.shape);
  const int64_t length = z.taps * z.inputs;
  const MatrixView<S, false> gradient{static_cast<const S*>(a.dy), z.outputs, z.out_pixels, a.shape.k, z.outputs};
  const PatchView<S, false> patches{static_cast<const S*>(a.x), a.shape, z.inputs, z.out_pixels, length};
  const Epilogue<S, C> epilogue{static_cast<C*>(a.dw), nullptr, nullptr, length, z.outputs * length, 0, 1, Activation::none, a.accumulate};
  const bool wide = z.whole_chunks<S>(a.shape) && aligned16(a.dy) && aligned16(a.x);
  return multiply(context, a.dtype, gradient, patches, epilogue, z.outputs, length, z.out_pixels, a.shape.groups, wide);
}
Status backward_weight(const Conv2dBackwardWeightArgs& a, Context& context) noexcept {
  return with_sums(a.dtype, a.dw_dtype, [&]<class S, class C>(S, C) { return backward_weight_run<S, C>(a, context); });
}
bool backward_weight_supports(const Conv2dBackwardWeightArgs& a) { return takes_sums(a.dtype, a.dw_dtype); }
size_t backward_weight_workspace(const Conv2dBackwardWeightArgs& a) {
  const Sizes z(a.shape);
  return multiply_workspace(a.dtype, z.outputs, z.taps * z.inputs, z.out_pixels, a.shape.groups);
}

}  // namespace

void cuda::register_conv(const Taker& taker) {
  add_kernel<Conv2dArgs, conv2d, floating_only, conv2d_workspace>(taker, "sm80_conv2d");
  add_kernel<Conv2dBackwardInputArgs, backward_input, backward_input_supports, backward_input_workspace>(taker,
                                                                                                         "sm80_conv2d_backward_input");
  add_kernel<Conv2dBackwardWeightArgs, backward_weight, backward_weight_supports, backward_weight_workspace>(
      taker, "sm80_conv2d_backward_weight");
}

}  // namespace smelt
