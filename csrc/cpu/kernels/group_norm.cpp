// Group normalisation, instance normalisation with a group for each channel.
#include "cpu/kernels/channel_norm.inl.h"
#include "cpu/kernels/families.h"

namespace smelt {
namespace {

// Work on images: one for each thread, so that an image is in cache when it is looked at again, or with few images on their
// chunks of rows. What is added, and in which order, is the same.
template <class Sums, class Then, class Rows>
void each_image(Context& context, int64_t n, int64_t rows, int64_t c, const Sums& sums, const Then& then,
                const Rows& each) {
  const int64_t chunks = chunk_count(rows);
  if (n >= context.threads) {
    parallel_for(context, n, max_of(int64_t{1}, kGrain / max_of(rows * c, int64_t{1})), [&](int64_t begin, int64_t end) {
      for (int64_t image = begin; image < end; ++image) {
        for (int64_t chunk = 0; chunk < chunks; ++chunk) sums(image, chunk);
        then(image);
        each(image, int64_t{0}, rows);
      }
    });
    return;
  }
  for (int64_t image = 0; image < n; ++image) {
    parallel_chunks(context, chunks, [&](int64_t chunk, int) { sums(image, chunk); });
    then(image);
    parallel_for(context, rows, row_grain(c), [&](int64_t begin, int64_t end) { each(image, begin, end); });
  }
}

// Of each image: its chunks (4, C), and constants of each channel (2, C).
int64_t image_scratch(int64_t rows, int64_t c) { return (chunk_count(rows) * 4 + 2) * c; }
size_t group_norm_workspace(const GroupNormArgs& a, int) {
  return static_cast<size_t>(a.n * image_scratch(a.positions, a.c)) * (a.dtype == DType::float64 ? 8 : 4);
}

template <class S>
void group_norm_run(const GroupNormArgs& a, Context& context) {
  using T = Compute<S>;
  const int64_t c = a.c, rows = a.positions, step = chunk_rows(rows), width = c / max_of(a.groups, int64_t{1});
  if (rows * c == 0) return;
  const auto scratch = [&](int64_t image) { return static_cast<T*>(context.workspace) + image * image_scratch(rows, c); };
  const auto constants = [&](int64_t image) { return scratch(image) + chunk_count(rows) * 4 * c; };
  const S* x = static_cast<const S*>(a.x);
  const T* weight = static_cast<const T*>(a.weight);
  const bool past = rows_past_caches<S>(a.y, a.n * rows * c, c);
  const auto statistics = [&](int64_t image, int64_t chunk) {
    chunk_statistics(x + image * rows * c, chunk * step, min_of((chunk + 1) * step, rows), c, scratch(image) + chunk * 4 * c);
  };
  const auto merge = [&](int64_t image) {
    T *const means = scratch(image), *const m2s = means + c, *const mean = constants(image), *const scale = mean + c;
    merge_chunks(means, rows, c);
    for (int64_t g = 0; g < a.groups; ++g) {
      T m = means[g * width], m2 = m2s[g * width];
      for (int64_t k = 1; k < width; ++k) {  // channels k take in one more, each of `rows` numbers
        const T d = means[g * width + k] - m, share = T(1) / static_cast<T>(k + 1);
        m += d * share;
        m2 += m2s[g * width + k] + d * d * (static_cast<T>(rows) * (static_cast<T>(k) * share));
      }
      const T rstd = T(1) / std::sqrt(m2 / static_cast<T>(rows * width) + static_cast<T>(a.eps));
      static_cast<T*>(a.mean)[image * a.groups + g] = m;
      static_cast<T*>(a.rstd)[image * a.groups + g] = rstd;
      for (int64_t i = g * width; i < (g + 1) * width; ++i) {
        mean[i] = m;
        scale[i] = weight ? rstd * weight[i] : rstd;
      }
    }
  };
  each_image(context, a.n, rows, c, statistics, merge, [&](int64_t image, int64_t begin, int64_t end) {
    const T* const mean = constants(image);
    Apply<S>{x + image * rows * c, nullptr, static_cast<S*>(a.y) + image * rows * c, mean, mean + c,
             static_cast<const T*>(a.bias), c, false, past}(begin, end);
  });
}

Status group_norm(const GroupNormArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) { group_norm_run<S>(a, context); });
  return Status::ok;
}

// Of each image: its chunks of sums (2, C), and mean, rstd and three constants of each channel (5, C).
int64_t slopes_scratch(int64_t rows, int64_t c) { return (chunk_count(rows) * 2 + 5) * c; }
size_t group_norm_backward_workspace(const GroupNormBackwardArgs& a, int) {
  return static_cast<size_t>(a.n * slopes_scratch(a.positions, a.c)) * (a.dtype == DType::float64 ? 8 : 4);
}

template <class S>
void group_norm_backward_run(const GroupNormBackwardArgs& a, Context& context) {
  using T = Compute<S>;
  const int64_t c = a.c, rows = a.positions, step = chunk_rows(rows), chunks = chunk_count(rows);
  const int64_t width = c / max_of(a.groups, int64_t{1});
  const T* weight = static_cast<const T*>(a.weight);
  S* dx = static_cast<S*>(a.dx);
  const bool past = !a.accumulate_x && rows_past_caches<S>(dx, a.n * rows * c, c);
  const auto scratch = [&](int64_t image) { return static_cast<T*>(context.workspace) + image * slopes_scratch(rows, c); };
  const auto constants = [&](int64_t image) { return scratch(image) + chunks * 2 * c; };
  const auto slopes = [&](int64_t image) {
    const int64_t at = image * rows * c;
    const T* const mean = constants(image);
    return Slopes<S>{.x = static_cast<const S*>(a.x) + at, .y = nullptr, .dy = static_cast<const S*>(a.dy) + at, .relu_bias = nullptr,
                     .mean = mean, .rstd = mean + c, .factor = mean + 2 * c, .c = c};
  };
  for (int64_t image = 0; image < a.n; ++image)  // statistics of groups at each channel
    for (int64_t i = 0; i < c; ++i) {
      constants(image)[i] = static_cast<const T*>(a.mean)[image * a.groups + i / width];
      constants(image)[c + i] = static_cast<const T*>(a.rstd)[image * a.groups + i / width];
    }
  const auto add = [&](int64_t image, int64_t chunk) {
    T* const mine = scratch(image) + chunk * 2 * c;
    for (int64_t i = 0; i < 2 * c; ++i) mine[i] = 0;
    slopes(image).sums(chunk * step, min_of((chunk + 1) * step, rows), mine, mine + c);
  };
  const auto merge = [&](int64_t image) {
    T *const sum_g = scratch(image), *const sum_gx = sum_g + c;
    for (int64_t chunk = 1; chunk < chunks; ++chunk)
      for (int64_t i = 0; i < 2 * c; ++i) sum_g[i] += sum_g[chunk * 2 * c + i];
    T *const rstd = constants(image) + c, *const factor = rstd + c, *const shift = factor + c, *const slope = shift + c;
    for (int64_t g = 0; g < a.groups; ++g) {
      T total = 0, total_x = 0;
      for (int64_t i = g * width; i < (g + 1) * width; ++i) {
        total += weight ? weight[i] * sum_g[i] : sum_g[i];
        total_x += weight ? weight[i] * sum_gx[i] : sum_gx[i];
      }
      const T inverse = T(1) / static_cast<T>(max_of(rows * width, int64_t{1}));
      for (int64_t i = g * width; i < (g + 1) * width; ++i) {
        factor[i] = weight ? rstd[i] * weight[i] : rstd[i];
        shift[i] = rstd[i] * (total * inverse);
        slope[i] = rstd[i] * (total_x * inverse) * rstd[i];
      }
    }
  };
  each_image(context, a.n, rows, c, add, merge, [&](int64_t image, int64_t begin, int64_t end) {
    const T* const shift = constants(image) + 3 * c;
    if (dx)
      slopes(image).dx(begin, end, shift, shift + c, dx + image * rows * c, a.accumulate_x, past, nullptr, false, false);
  });
  const auto total = [&](T* to, int64_t part, bool accumulate) {
    for (int64_t i = 0; to && i < c; ++i) {
      T v = 0;
      for (int64_t image = 0; image < a.n; ++image) v += scratch(image)[part * c + i];
      to[i] = accumulate ? to[i] + v : v;
    }
  };
  total(static_cast<T*>(a.dbias), 0, a.accumulate_bias);
  total(static_cast<T*>(a.dweight), 1, a.accumulate_weight);
}

Status group_norm_backward(const GroupNormBackwardArgs& a, Context& context) noexcept {
  with_floating(a.dtype, [&]<class S>(S) { group_norm_backward_run<S>(a, context); });
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_group_norm(KernelTable& table) {
  add_kernel<GroupNormArgs, group_norm, floating_only, group_norm_workspace>(table, SMELT_KERNEL_NAME("group_norm"));
  add_kernel<GroupNormBackwardArgs, group_norm_backward, floating_only, group_norm_backward_workspace>(
      table, SMELT_KERNEL_NAME("group_norm_backward"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
