// The windows of a pooling.
#pragma once
#include "core/kernels.h"
#include "formulas/types.inl.h"

namespace smelt {
namespace {

struct Window {
  int64_t y0, y1, x0, x1;  // pixels inside the image
  int64_t padded;          // pixels of the window, those of the padding too
};

SMELT_INLINE void window_axis(const PoolShape& s, int axis, int64_t index, int64_t extent, int64_t out, int64_t* begin,
                        int64_t* end, int64_t* padded) {
  if (s.adaptive) {
    *begin = index * extent / out;
    *end = ceil_div((index + 1) * extent, out);
    *padded = *end - *begin;
    return;
  }
  const int64_t first = index * s.stride[axis] - s.pad[axis];
  *padded = min_of(first + s.kernel[axis], extent + s.pad[axis]) - first;
  *begin = max_of(first, int64_t{0});
  *end = min_of(first + s.kernel[axis], extent);
}

SMELT_INLINE Window window(const PoolShape& s, int64_t p, int64_t q) {
  Window w;
  int64_t rows, columns;
  window_axis(s, 0, p, s.h, s.p, &w.y0, &w.y1, &rows);
  window_axis(s, 1, q, s.w, s.q, &w.x0, &w.x1, &columns);
  w.padded = rows * columns;
  return w;
}

SMELT_INLINE int64_t divisor_of(const Window& w, bool count_include_pad) {
  return count_include_pad ? w.padded : max_of((w.y1 - w.y0) * (w.x1 - w.x0), int64_t{1});
}

}  // namespace
}  // namespace smelt
