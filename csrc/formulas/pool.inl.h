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

// The windows [*first, *last] that cover pixel i of an axis.
SMELT_INLINE void covering(const PoolShape& s, int axis, int64_t i, int64_t extent, int64_t out, int64_t* first, int64_t* last) {
  if (s.adaptive) {
    *first = i * out / extent;
    *last = ceil_div((i + 1) * out, extent) - 1;
    return;
  }
  const int64_t before = i + s.pad[axis] - s.kernel[axis];
  *first = before < 0 ? 0 : before / s.stride[axis] + 1;
  *last = min_of((i + s.pad[axis]) / s.stride[axis], out - 1);
}

// The place of pixel (h, x) among those of a window.
SMELT_INLINE int64_t place_of(const Window& w, int64_t h, int64_t x) { return (h - w.y0) * (w.x1 - w.x0) + x - w.x0; }

SMELT_INLINE int64_t divisor_of(const Window& w, bool count_include_pad) {
  return count_include_pad ? w.padded : max_of((w.y1 - w.y0) * (w.x1 - w.x0), int64_t{1});
}

}  // namespace
}  // namespace smelt
