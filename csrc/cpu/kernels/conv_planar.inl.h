// Channels as planes: a few rows of a picture with each channel's pixels one after the other and zeros around them, so that
// vectors run along the pixels. Pixels a stride apart lie together: a plane for each phase of the stride that some tap meets.
#pragma once
#include "cpu/kernels/conv_axis.inl.h"

namespace smelt {
namespace {

constexpr int kSquare = kTransposeBlock;
static_assert(VecF::W % kSquare == 0);

// Tap t of result i meets pixel (i + shift[t]) * step + phases[phase[t]].
struct PlaneAxis : Axis {
  int64_t shift[kMostTaps], phases[kMostTaps];
  int phase[kMostTaps], phase_count = 0;
  int64_t low = 0, high = 0;  // of the shifts

  explicit PlaneAxis(const Axis& axis) : Axis(axis) {
    for (int t = 0; t < taps; ++t) {
      shift[t] = offset[t] >= 0 ? offset[t] / step : -ceil_div(-offset[t], step);
      const int64_t rest = offset[t] - shift[t] * step;
      int at = 0;
      while (at < phase_count && phases[at] != rest) ++at;
      if (at == phase_count) phases[phase_count++] = rest;
      phase[t] = at;
      low = t ? min_of(low, shift[t]) : shift[t];
      high = t ? max_of(high, shift[t]) : shift[t];
    }
  }
  // Places j in [0, places) whose pixels are inside, [begin, end).
  void inside_of(int at, int64_t places, int64_t* begin, int64_t* end) const {
    *begin = min_of(max_of(-low, int64_t{0}), places);
    *end = max_of(*begin, min_of(places, (extent > phases[at] ? ceil_div(extent - phases[at], step) : 0) - low));
  }
};

// Eight pixels of eight channels (four of four), `ld` elements from pixel to pixel, to planes; zeros for what is not there.
template <class S>
inline void to_planes(const S* src, int64_t ld, int pixels, int channels, float* dst, int64_t plane) {
  if constexpr (sizeof(S) == 4)
    if (pixels == kSquare && channels == kSquare) return transpose_square(src, 4 * ld, dst, plane);
  alignas(64) float square[kSquare * kSquare];
  for (int i = 0; i < kSquare; ++i)
    (i < pixels ? VecF::load(src + i * ld, channels) : VecF::zero()).store(square + i * kSquare, kSquare);
  transpose_square(square, 4 * kSquare, dst, plane);
}

struct Planes {
  PlaneAxis rows, columns;
  int64_t strip, strips;  // rows of the result at once, how many such
  int64_t pitch;          // elements of a row in a plane
  int64_t plane;          // and of a phase
  int64_t result;         // and of a channel of the result

  Planes(const Axis& row_axis, const Axis& column_axis, int64_t strip_rows, int64_t row_pitch = 0)
      : rows(row_axis), columns(column_axis), strip(max_of(strip_rows, int64_t{1})), strips(ceil_div(rows.count, strip)),
        pitch(max_of(row_pitch, columns.count + columns.high - columns.low)),
        plane(round_up(plane_rows() * pitch + columns.high - columns.low + 16, 16)), result(round_up(strip * pitch, 16) + 16) {}

  int64_t plane_rows() const { return strip + rows.high - rows.low; }
  int64_t channel() const { return rows.phase_count * columns.phase_count * plane; }
  int taps() const { return rows.taps * columns.taps; }
  int64_t tap_offset(int t) const {
    const int y = t / columns.taps, x = t % columns.taps;
    const int64_t slot = rows.phase[y] * columns.phase_count + columns.phase[x];
    return slot * plane + (rows.shift[y] - rows.low) * pitch + columns.shift[x] - columns.low;
  }

  // Channels [0, count) of `picture` around rows [first, first + strip) of the result. Planes are there for whole squares.
  template <class S>
  void fill(const S* picture, int64_t channels, int64_t count, int64_t first, float* to) const {
    for (int64_t c = 0; c < count; c += kSquare) {
      float* of_phase = to + c * channel();
      const int there = static_cast<int>(min_of(count - c, int64_t{kSquare}));
      for (int y = 0; y < rows.phase_count; ++y)
        for (int x = 0; x < columns.phase_count; ++x, of_phase += plane)
          fill_phase(picture + c, channels, there, first, y, x, of_phase);
    }
  }

 private:
  template <class S>
  void fill_phase(const S* picture, int64_t channels, int count, int64_t first, int phase_y, int phase_x, float* to) const {
    int64_t begin, end;
    columns.inside_of(phase_x, pitch, &begin, &end);
    const int64_t ld = columns.step * channels, next = rows.step * columns.extent * channels, from_plane = channel();
    const auto zero = [&](int64_t at, int64_t stop) {
      for (int c = 0; c < count && at < stop; ++c)
        __builtin_memset(to + c * from_plane + at, 0, static_cast<size_t>(stop - at) * 4);
    };
    for (int64_t i = 0; i < plane_rows(); ++i) {
      const int64_t y = (first + i + rows.low) * rows.step + rows.phases[phase_y], at = i * pitch;
      if (y < 0 || y >= rows.extent) {
        zero(at, at + pitch);
        continue;
      }
      const S* source = picture + (y * columns.extent + columns.low * columns.step + columns.phases[phase_x]) * channels;
      // A square may reach beyond its row's end, to where the next row's will be, or the zeros behind the last.
      for (int64_t j = begin; j < end; j += kSquare) {
        const int64_t from = end - begin >= kSquare ? min_of(j, end - kSquare) : j;
        for (int p = 0; p < kSquare; ++p) __builtin_prefetch(source + next + (from + p) * ld);
        const int there = static_cast<int>(min_of(end - from, int64_t{kSquare}));
        to_planes(source + from * ld, ld, there, count, to + at + from, from_plane);
      }
      zero(at, at + begin);
      zero(at + end, at + pitch);
    }
    zero(plane_rows() * pitch, plane);
  }
};

// Rows of a strip, in strips of one size: planes of 16 channels and their results stay in the second cache.
inline int64_t strip_rows(int64_t rows, int64_t pitch) {
  const int64_t most = max_of(int64_t{1}, min_of(rows, int64_t{1024} / max_of(pitch, int64_t{1})));
  return max_of(int64_t{1}, ceil_div(rows, max_of(int64_t{1}, ceil_div(rows, most))));
}
// Groups that go together, so that their channels fill vectors.
inline int64_t groups_together(int64_t groups, int64_t in, int64_t out) {
  return max_of(int64_t{1}, min_of(groups, int64_t{16} / max_of(max_of(in, out), int64_t{1})));
}

}  // namespace
}  // namespace smelt
