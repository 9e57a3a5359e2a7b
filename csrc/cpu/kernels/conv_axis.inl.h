// Which pixels of a picture meet which taps of a filter, along one axis.
#pragma once
#include "cpu/kernels/common.inl.h"

namespace smelt {
namespace {

constexpr int kMostTaps = 32;  // along an axis: their places stand on the stack

// Which taps meet a pixel, along one axis: result i of `count` reads source i * step + offset[t] with weight index[t].
struct Axis {
  int64_t count, step, extent;  // results, source pixels from one to the next, source pixels
  int taps = 0;
  int64_t offset[kMostTaps], index[kMostTaps];
  int64_t first = 0, last = 0;  // results all of whose taps are inside

  Axis(int64_t results, int64_t pixels_between, int64_t pixels) : count(results), step(pixels_between), extent(pixels) {}
  void add(int64_t at, int64_t tap) {
    offset[taps] = at;
    index[taps++] = tap;
  }
  void find_inside() {
    int64_t low = 0, high = 0;
    for (int t = 0; t < taps; ++t) {
      low = max_of(low, -offset[t]);
      high = t ? max_of(high, offset[t]) : offset[t];
    }
    first = min_of(ceil_div(low, step), count);
    last = extent > high ? max_of(first, min_of(count, (extent - 1 - high) / step + 1)) : first;
  }
  bool inside(int64_t i, int t) const { return i * step + offset[t] >= 0 && i * step + offset[t] < extent; }
};

Axis forward_axis(const ConvShape& s, int axis) {
  Axis a(axis ? s.q : s.p, s.stride[axis], axis ? s.w : s.h);
  for (int64_t t = 0; t < (axis ? s.s : s.r); ++t) a.add(t * s.dilation[axis] - s.pad[axis], t);
  a.find_inside();
  return a;
}
// Input rows phase, phase + stride, ... meet the same taps.
Axis input_axis(const ConvShape& s, int axis, int64_t phase) {
  const int64_t extent = axis ? s.w : s.h, stride = s.stride[axis];
  Axis a(extent > phase ? ceil_div(extent - phase, stride) : 0, 1, axis ? s.q : s.p);
  for (int64_t t = 0; t < (axis ? s.s : s.r); ++t) {
    const int64_t at = phase + s.pad[axis] - t * s.dilation[axis];
    if (at % stride == 0) a.add(at / stride, t);
  }
  a.find_inside();
  return a;
}

}  // namespace
}  // namespace smelt
