// Filling, converting and moving elements.
#include "cpu/kernels/common.inl.h"
#include "cpu/kernels/families.h"
#include "formulas/convert.inl.h"

namespace smelt {
namespace {

constexpr int64_t kGrain = 32768;  // elements: about 10 us

// Writes n elements at y: plain(i, count) some, line(i) returns 64 bytes of them.
template <class T, class Plain, class Line>
void write_elements(T* y, int64_t n, bool past, const Plain& plain, const Line& line) {
  if (!past) return plain(0, n);
  constexpr int64_t kLine = 64 / sizeof(T);
  const int64_t head = min_of(n, static_cast<int64_t>(-reinterpret_cast<uintptr_t>(y) % 64 / sizeof(T)));
  plain(0, head);
  int64_t i = head;
  for (; i + kLine <= n; i += kLine) stream_line(y + i, line(i));
  plain(i, n - i);
  end_stream();
}

Status fill(const FillArgs& a, Context& context) noexcept {
  const uint64_t bits = scalar_bits(a.value, a.dtype);
  with_bits(a.dtype, [&]<class T>(T) {
    T* y = static_cast<T*>(a.y);
    parallel_for(context, a.n, kGrain * 2, [&](int64_t begin, int64_t end) {
      const T value = static_cast<T>(bits);
      T values[64 / sizeof(T)];
      for (T& v : values) v = value;
      const auto plain = [&](int64_t first, int64_t count) {
        for (int64_t i = begin + first; i < begin + first + count; ++i) y[i] = value;
      };
      const bool past = past_caches<T>(a.n);
      write_elements(y + begin, end - begin, past, plain, [&](int64_t) { return values; });
    });
  });
  return Status::ok;
}

Status arange(const ArangeArgs& a, Context& context) noexcept {
  parallel_for(context, a.n, kGrain, [&](int64_t begin, int64_t end) {
    if (is_floating(a.dtype)) {
      with_floating(a.dtype, [&]<class T>(T) {
        for (int64_t i = begin; i < end; ++i)
          static_cast<T*>(a.y)[i] = to_storage<T>(static_cast<Compute<T>>(a.start.f + static_cast<double>(i) * a.step.f));
      });
    } else {
      with_integer(a.dtype, [&]<class T>(T) {
        for (int64_t i = begin; i < end; ++i) static_cast<T*>(a.y)[i] = static_cast<T>(a.start.i + i * a.step.i);
      });
    }
  });
  return Status::ok;
}

template <class From, class To>
void cast_range(const From* x, To* y, int64_t n, bool accumulate) {
  constexpr bool kFloats = (__is_same(From, float) || __is_same(From, bfloat16) || __is_same(From, float16)) &&
                           (__is_same(To, float) || __is_same(To, bfloat16) || __is_same(To, float16));
  if constexpr (kFloats) {
    each_vector<VecF>(n, [&](int64_t i, int lanes) {
      VecF v = load<VecF>(x + i, lanes);
      if (accumulate) v = load<VecF>(y + i, lanes) + v;
      store(y + i, v, lanes);
    });
  } else {
    for (int64_t i = 0; i < n; ++i) {
      if constexpr (__is_same(To, double) && is_real<From>)
        y[i] = accumulate ? y[i] + x[i] : static_cast<double>(x[i]);
      else
        y[i] = convert<To>(x[i]);
    }
  }
}

Status cast(const CastArgs& a, Context& context) noexcept {
  with_element(a.from, [&]<class From>(From) {
    with_element(a.to, [&]<class To>(To) {
      const auto* x = static_cast<const From*>(a.x);
      auto* y = static_cast<To*>(a.y);
      const bool past = !a.accumulate && past_caches<To>(a.n);
      parallel_for(context, a.n, kGrain, [&](int64_t begin, int64_t end) {
        To values[64 / sizeof(To)];
        const auto plain = [&](int64_t i, int64_t count) { cast_range(x + begin + i, y + begin + i, count, a.accumulate); };
        write_elements(y + begin, end - begin, past, plain, [&](int64_t i) {
          cast_range(x + begin + i, values, 64 / sizeof(To), false);
          return values;
        });
      });
    });
  });
  return Status::ok;
}

template <class T>
void copy_flat(const T* x, T* y, int64_t n, Context& context) {
  const bool past = past_caches<T>(n);
  parallel_for(context, n, kGrain, [&](int64_t begin, int64_t end) {
    const auto plain = [&](int64_t i, int64_t count) {
      __builtin_memcpy(y + begin + i, x + begin + i, static_cast<size_t>(count) * sizeof(T));
    };
    write_elements(y + begin, end - begin, past, plain, [&](int64_t i) { return x + begin + i; });
  });
}

// One row of a strided copy.
template <class T>
void copy_row(const T* x, int64_t x_step, T* y, int64_t y_step, int64_t n) {
  if (x_step == 1 && y_step == 1) {
    __builtin_memcpy(y, x, static_cast<size_t>(n) * sizeof(T));
  } else {
    for (int64_t i = 0; i < n; ++i) y[i * y_step] = x[i * x_step];
  }
}
template <class T>
void add_row(const T* x, int64_t x_step, T* y, int64_t y_step, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    y[i * y_step] = to_storage<T>(from_storage(y[i * y_step]) + from_storage(x[i * x_step]));
}

// Swaps two axes, y[j, i] = x[i, j], by columns of x that fill a line of the cache: each line of x is read once, and the rows
// of y grow side by side. Words of 32 bits go through registers in squares.
template <class T>
void transpose_block(const T* x, int64_t x_row, T* y, int64_t y_row, int64_t rows, int64_t columns) {
  constexpr int64_t kLine = 64 / sizeof(T), kSquare = kTransposeBlock;
  const auto one_by_one = [&](int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
    for (int64_t j = j0; j < j1; ++j)
      for (int64_t i = i0; i < i1; ++i) y[j * y_row + i] = x[i * x_row + j];
  };
  for (int64_t j0 = 0; j0 < columns; j0 += kLine) {
    const int64_t j1 = min_of(j0 + kLine, columns);
    int64_t i = 0;
    if constexpr (sizeof(T) == 4) {
      const int64_t squares = j0 + (j1 - j0) / kSquare * kSquare;
      for (; i + kSquare <= rows; i += kSquare) {
        for (int64_t j = j0; j < squares; j += kSquare)
          transpose_square(x + i * x_row + j, x_row * 4, reinterpret_cast<float*>(y + j * y_row + i), y_row);
        one_by_one(i, i + kSquare, squares, j1);
      }
    }
    for (; i < rows; i += kLine) one_by_one(i, min_of(i + kLine, rows), j0, j1);
  }
}

// The axes before the last in an order in which the one whose elements of x are neighbours stands behind the others, so that it
// and the last are swapped block by block.
void neighbours_last(CopyArgs* a) {
  const int middle = a->rank - 2;
  if (middle < 1 || a->x_stride[middle + 1] == 1 || a->y_stride[middle + 1] != 1) return;
  for (int i = 0; i < middle; ++i) {
    if (a->x_stride[i] != 1 || a->shape[i] == 1) continue;
    const auto exchange = [&](int64_t* values) {
      const int64_t kept = values[i];
      values[i] = values[middle];
      values[middle] = kept;
    };
    exchange(a->shape);
    exchange(a->x_stride);
    exchange(a->y_stride);
    return;
  }
}

template <class T>
void copy_all(const CopyArgs& given, Context& context) {
  CopyArgs a = given;
  neighbours_last(&a);
  const int rank = a.rank;
  const auto* x = static_cast<const T*>(a.x);
  auto* y = static_cast<T*>(a.y);
  if (rank == 0) return copy_row(x, 0, y, 0, 1);
  if (rank == 1 && a.x_stride[0] == 1 && a.y_stride[0] == 1) return copy_flat(x, y, a.shape[0], context);
  // The last two axes are done at once; the ones before are one flat, independent axis.
  const int64_t inner = a.shape[rank - 1], middle = rank > 1 ? a.shape[rank - 2] : 1;
  const int64_t x_in = a.x_stride[rank - 1], y_in = a.y_stride[rank - 1];
  const int64_t x_mid = rank > 1 ? a.x_stride[rank - 2] : 0, y_mid = rank > 1 ? a.y_stride[rank - 2] : 0;
  int64_t outer = 1;
  for (int i = 0; i < rank - 2; ++i) outer *= a.shape[i];
  if (outer * middle * inner == 0) return;
  const bool transposes = x_mid == 1 && y_in == 1 && inner > 1 && middle > 1;
  const auto offsets = [&](int64_t index, int64_t* x_offset, int64_t* y_offset) {
    *x_offset = *y_offset = 0;
    for (int i = rank - 3; i >= 0; --i) {
      const int64_t at = index % a.shape[i];
      index /= a.shape[i];
      *x_offset += at * a.x_stride[i];
      *y_offset += at * a.y_stride[i];
    }
  };
  const int64_t slab = middle * inner;
  // With few slabs the middle axis is cut too.
  const int64_t pieces = outer >= 8 ? 1 : min_of(middle, int64_t{16});
  parallel_for(context, outer * pieces, max_of(int64_t{1}, kGrain / 4 * pieces / slab), [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; ++job) {
      const int64_t piece = job % pieces, first = middle * piece / pieces, last = middle * (piece + 1) / pieces;
      int64_t x_offset, y_offset;
      offsets(job / pieces, &x_offset, &y_offset);
      const T* from = x + x_offset + first * x_mid;
      T* to = y + y_offset + first * y_mid;
      if (transposes) {
        transpose_block(from, x_in, to, y_mid, inner, last - first);
      } else {
        for (int64_t m = 0; m < last - first; ++m) copy_row(from + m * x_mid, x_in, to + m * y_mid, y_in, inner);
      }
    }
  });
}

template <class T>
void add_all(const CopyArgs& a, Context& context) {
  const int last = a.rank - 1;
  const int64_t inner = a.rank ? a.shape[last] : 1;
  int64_t outer = 1;
  for (int i = 0; i < last; ++i) outer *= a.shape[i];
  parallel_for(context, inner ? outer : 0, max_of(int64_t{1}, kGrain / 4 / max_of(inner, int64_t{1})),
               [&](int64_t begin, int64_t end) {
                 for (int64_t row = begin; row < end; ++row) {
                   int64_t x_offset = 0, y_offset = 0, rest = row;
                   for (int i = last - 1; i >= 0; --i) {
                     x_offset += rest % a.shape[i] * a.x_stride[i];
                     y_offset += rest % a.shape[i] * a.y_stride[i];
                     rest /= a.shape[i];
                   }
                   add_row(static_cast<const T*>(a.x) + x_offset, a.rank ? a.x_stride[last] : 0,
                           static_cast<T*>(a.y) + y_offset, a.rank ? a.y_stride[last] : 0, inner);
                 }
               });
}

Status copy(const CopyArgs& a, Context& context) noexcept {
  if (a.accumulate)
    with_floating(a.dtype, [&]<class T>(T) { add_all<T>(a, context); });
  else
    with_bits(a.dtype, [&]<class T>(T) { copy_all<T>(a, context); });
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_fill(KernelTable& table) {
  add_kernel<FillArgs, fill>(table, SMELT_KERNEL_NAME("fill"));
  add_kernel<ArangeArgs, arange>(table, SMELT_KERNEL_NAME("arange"));
  add_kernel<CastArgs, cast>(table, SMELT_KERNEL_NAME("cast"));
  add_kernel<CopyArgs, copy>(table, SMELT_KERNEL_NAME("copy"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
