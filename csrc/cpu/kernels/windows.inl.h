// Windows of channels-last images: channels are the vector axis.
#pragma once
#include "cpu/kernels/common.inl.h"
#include "formulas/pool.inl.h"

namespace smelt {
namespace {

// Calls f(count, first channel, lanes of each vector) for runs of at most four, two and one vectors of channels, which stay in
// registers.
template <int n>
struct Vectors {
  static constexpr int count = n;
};
template <class V, int most = 4, class F>
inline void each_run(int64_t channels, const F& f) {
  constexpr int64_t kWidth = V::W;
  int64_t c = 0;
  if constexpr (most == 4)
    for (; c + 4 * kWidth <= channels; c += 4 * kWidth) f(Vectors<4>{}, c, V::W);
  for (; c + 2 * kWidth <= channels; c += 2 * kWidth) f(Vectors<2>{}, c, V::W);
  for (; c < channels; c += kWidth) f(Vectors<1>{}, c, static_cast<int>(min_of(channels - c, kWidth)));
}

// Places in windows of at most 256 pixels fill a byte and are exact in every number that is computed with; larger ones are compared
// one by one.
template <class V>
V load_places(const uint8_t* p, int lanes) {
  return lanes == V::W ? V::load_bytes(p) : V::load_bytes(p, lanes);
}

// The first of the largest of the pixels value(h, x, vector) of a window, a NaN being larger than any number.
template <bool kPlaces, int n, class V, class S, class F>
inline void largest_of(const Window& w, int lanes, S* y, uint8_t* places, const F& value) {
  V best[n], place[n];
  for (int k = 0; k < n; ++k) {
    best[k] = value(w.y0, w.x0, k);
    place[k] = V::zero();
  }
  int64_t at = 0;
  for (int64_t h = w.y0; h < w.y1; ++h)
    for (int64_t x = w.x0; x < w.x1; ++x, ++at) {
      const V here = V::set(static_cast<typename V::T>(at));
      for (int k = 0; k < n; ++k) {
        const V v = value(h, x, k);
        const typename V::Mask better = (!(v <= best[k])) & (best[k] == best[k]);
        best[k] = select(better, v, best[k]);
        if constexpr (kPlaces) place[k] = select(better, here, place[k]);
      }
    }
  for (int k = 0; k < n; ++k) {
    store(y + k * V::W, best[k], lanes);
    if constexpr (kPlaces)
      lanes == V::W ? place[k].store_bytes(places + k * V::W) : place[k].store_bytes(places + k * V::W, lanes);
  }
}

}  // namespace
}  // namespace smelt
