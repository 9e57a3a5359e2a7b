// Batch and layer normalisation. Statistics are (count, mean, M2), merged in an order that the shape decides: the mean of
// squares minus the square of the mean would lose everything when the mean is large. Parameters and statistics of halves are
// float32.
#include "cuda/common/rows.cuh"

namespace smelt {
namespace {

constexpr int kColumns = 32, kLines = 8;  // threads of a block that goes down columns
constexpr int64_t kChunks = 1024;         // at most

int64_t chunk_rows(int64_t rows) { return max_of(int64_t{256}, ceil_div(rows, kChunks)); }
int64_t chunk_count(int64_t rows) { return max_of(int64_t{1}, ceil_div(rows, chunk_rows(rows))); }

// Of each chunk of rows two numbers for each column, then two for all of them.
size_t pair_workspace(int64_t rows, int64_t columns) {
  return static_cast<size_t>((chunk_count(rows) + 1) * 2 * columns) * 8;
}

// --------------------------------------------------------------------------------------------- statistics of columns

// Count, mean and sum of squared distances to it; Chan's rule to merge two.
template <class T>
struct Moments {
  T count, mean, m2;
  SMELT_WORD static Moments merge(Moments a, Moments b) {
    if (b.count == 0) return a;
    if (a.count == 0) return b;
    const T count = a.count + b.count, d = b.mean - a.mean;
    return {count, std::fma(d, b.count / count, a.mean), a.m2 + b.m2 + d * d * (a.count * b.count / count)};
  }
};

template <class S>
__global__ void column_moments(const S* x, int64_t rows, int64_t c, int64_t chunk, Compute<S>* partial) {
  using T = Compute<S>;
  SMELT_SHARED(Moments<T>, lines, kColumns * kLines);
  const int tx = static_cast<int>(threadIdx.x), ty = static_cast<int>(threadIdx.y);
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kColumns + tx;
  const int64_t begin = blockIdx.y * chunk, end = min_of(begin + chunk, rows);
  // Of differences to the column's first element: errors do not grow with the mean.
  const T first = column < c ? from_storage(x[column]) : T{0};
  Moments<T> mine{0, 0, 0};
  for (int64_t row = begin + ty; column < c && row < end; row += kLines) {
    const T v = from_storage(x[row * c + column]) - first, d = v - mine.mean;
    mine.count += T{1};
    mine.mean += d / mine.count;
    mine.m2 = std::fma(d, v - mine.mean, mine.m2);
  }
  lines[ty * kColumns + tx] = mine;
  cuda::sync_threads();
  if (ty != 0 || column >= c) return;
  for (int i = 1; i < kLines; ++i) mine = Moments<T>::merge(mine, lines[i * kColumns + tx]);
  T* const out = partial + blockIdx.y * 2 * c + column;
  out[0] = mine.mean;
  out[c] = mine.m2;
}

template <class S, class T = Compute<S>>
__global__ void batch_norm_statistics(BatchNormArgs a, int64_t chunk, const T* partial) {
  const int64_t i = grid_thread();
  if (i >= a.c) return;
  T* const running_mean = static_cast<T*>(a.running_mean) + i;
  T* const running_var = static_cast<T*>(a.running_var) + i;
  T mean = *running_mean, var = *running_var;
  if (a.training) {
    Moments<T> all{0, 0, 0};
    for (int64_t begin = 0; begin < a.rows; begin += chunk) {
      const T* const in = partial + begin / chunk * 2 * a.c + i;
      all = Moments<T>::merge(all, {static_cast<T>(min_of(chunk, a.rows - begin)), in[0], in[a.c]});
    }
    const T n = static_cast<T>(a.rows), momentum = static_cast<T>(a.momentum);
    mean = from_storage(static_cast<const S*>(a.x)[i]) + all.mean;
    var = all.m2 / n;
    *running_mean += momentum * (mean - *running_mean);
    *running_var += momentum * (all.m2 / (n - T{1}) - *running_var);  // the unbiased variance
  }
  static_cast<T*>(a.mean)[i] = mean;
  static_cast<T*>(a.rstd)[i] = T{1} / std::sqrt(var + static_cast<T>(a.eps));
}

template <class S, int W>
__global__ void batch_norm_apply(BatchNormArgs a) {
  using T = Compute<S>;
  const int64_t at = grid_thread() * W;
  if (at >= a.rows * a.c) return;
  const int64_t first = at % a.c;
  const Pack<S, W> x = load_pack<W>(static_cast<const S*>(a.x) + at);
  Pack<S, W> residual = {}, y;
  if (a.residual) residual = load_pack<W>(static_cast<const S*>(a.residual) + at);
  for (int j = 0; j < W; ++j) {
    const int64_t i = first + j;
    const T scale = static_cast<const T*>(a.rstd)[i] * static_cast<const T*>(a.weight)[i];
    T v = std::fma(from_storage(x.e[j]) - static_cast<const T*>(a.mean)[i], scale, static_cast<const T*>(a.bias)[i]);
    if (a.residual) v = from_storage(to_storage<S>(v)) + from_storage(residual.e[j]);
    if (a.activation == Activation::relu) v = max_nan(One<T>::set(v), One<T>::zero()).v;
    y.e[j] = to_storage<S>(v);
  }
  store_pack(static_cast<S*>(a.y) + at, y);
}

dim3 column_grid(int64_t rows, int64_t c) { return cuda::size3(ceil_div(c, kColumns), chunk_count(rows)); }

template <class S>
Status batch_norm_run(const BatchNormArgs& a, Context& context) {
  using T = Compute<S>;
  T* const partial = static_cast<T*>(context.workspace);
  Status status = Status::ok;
  if (a.training)
    status = cuda::launch(context, column_moments<S>, column_grid(a.rows, a.c), cuda::size3(kColumns, kLines), 0,
                          static_cast<const S*>(a.x), a.rows, a.c, chunk_rows(a.rows), partial);
  if (status != Status::ok) return status;
  status = cuda::launch(context, batch_norm_statistics<S, T>, cuda::blocks_for(a.c, kThreads), cuda::size3(kThreads), 0, a,
                        chunk_rows(a.rows), partial);
  if (status != Status::ok) return status;
  constexpr int W = 16 / sizeof(S);
  const int64_t n = a.rows * a.c;
  const bool wide = a.c % W == 0 && aligned16(a.x) && aligned16(a.y) && aligned16(a.residual);
  if (wide) return cuda::launch(context, batch_norm_apply<S, W>, cuda::blocks_for(n / W, kThreads), cuda::size3(kThreads), 0, a);
  return cuda::launch(context, batch_norm_apply<S, 1>, cuda::blocks_for(n, kThreads), cuda::size3(kThreads), 0, a);
}

Status batch_norm(const BatchNormArgs& a, Context& context) noexcept {
  if (a.rows * a.c == 0) return Status::ok;
  return with_floating(a.dtype, [&]<class S>(S) { return batch_norm_run<S>(a, context); });
}
size_t batch_norm_workspace(const BatchNormArgs& a) { return pair_workspace(a.rows, a.c); }

// ------------------------------------------------------------------------------------------------------ pairs of sums

// Down the columns of (rows, c): the sums of dy and of dy times the normalised x, a chunk of rows for each block.
// `Source` says what they are at (row, column).
template <class Source>
__global__ void column_sums(Source source, int64_t rows, int64_t c, int64_t chunk, typename Source::T* partial) {
  using T = typename Source::T;
  SMELT_SHARED(T, lines, 2 * kColumns * kLines);
  const int tx = static_cast<int>(threadIdx.x), ty = static_cast<int>(threadIdx.y);
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kColumns + tx;
  const int64_t begin = blockIdx.y * chunk, end = min_of(begin + chunk, rows);
  T sum_g = 0, sum_gx = 0;
  for (int64_t row = begin + ty; column < c && row < end; row += kLines) {
    T g, x;
    source.at(row, column, &g, &x);
    sum_g += g;
    sum_gx = std::fma(g, x, sum_gx);
  }
  T* const mine = lines + (ty * kColumns + tx) * 2;
  mine[0] = sum_g;
  mine[1] = sum_gx;
  cuda::sync_threads();
  if (ty != 0 || column >= c) return;
  for (int i = 1; i < kLines; ++i) {
    sum_g += lines[(i * kColumns + tx) * 2];
    sum_gx += lines[(i * kColumns + tx) * 2 + 1];
  }
  T* const out = partial + blockIdx.y * 2 * c + column;
  out[0] = sum_g;
  out[c] = sum_gx;
}

// Adds the chunks in order, into totals (2, c), and gives them as gradients of bias and weight.
template <class T>
struct ParameterGradients {
  T *dweight, *dbias;  // (c) or null
  bool accumulate_weight, accumulate_bias;
};
template <class T>
__global__ void column_totals(const T* partial, int64_t chunks, int64_t c, T* totals, ParameterGradients<T> gradients) {
  const int64_t i = grid_thread();
  if (i >= c) return;
  T sum_g = 0, sum_gx = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    sum_g += partial[chunk * 2 * c + i];
    sum_gx += partial[chunk * 2 * c + c + i];
  }
  totals[i] = sum_g;
  totals[c + i] = sum_gx;
  if (gradients.dbias) gradients.dbias[i] = gradients.accumulate_bias ? gradients.dbias[i] + sum_g : sum_g;
  if (gradients.dweight) gradients.dweight[i] = gradients.accumulate_weight ? gradients.dweight[i] + sum_gx : sum_gx;
}

template <class Source>
Status sum_columns(const Context& context, const Source& source, int64_t rows, int64_t c,
                   const ParameterGradients<typename Source::T>& gradients, typename Source::T** totals) {
  using T = typename Source::T;
  T* const partial = static_cast<T*>(context.workspace);
  *totals = partial + chunk_count(rows) * 2 * c;
  const Status status = cuda::launch(context, column_sums<Source>, column_grid(rows, c), cuda::size3(kColumns, kLines), 0, source, rows,
                                     c, chunk_rows(rows), partial);
  if (status != Status::ok) return status;
  return cuda::launch(context, column_totals<T>, cuda::blocks_for(c, kThreads), cuda::size3(kThreads), 0, partial, chunk_count(rows), c,
                      *totals, gradients);
}

// ------------------------------------------------------------------------------------------------ batch norm, backward

template <class S>
struct BatchNormSource {
  using T = Compute<S>;
  const S *x, *y, *dy;  // y: of a relu behind a residual, or null
  const T *mean, *rstd, *weight, *relu_bias;  // relu_bias: x tells what came out of the relu; or null
  int64_t c;
  // The gradient behind the activation, and the normalised x.
  SMELT_WORD void at(int64_t row, int64_t column, T* g, T* normalised) const {
    const int64_t i = row * c + column;
    const T centred = from_storage(x[i]) - mean[column];
    *g = from_storage(dy[i]);
    if (y || relu_bias) {
      const T out = from_storage(y ? y[i] : to_storage<S>(std::fma(centred, rstd[column] * weight[column], relu_bias[column])));
      *g = out > 0 ? *g : out != out ? out : T{0};
    }
    *normalised = centred * rstd[column];
  }
};

template <class S>
__global__ void batch_norm_dx(BatchNormBackwardArgs a, BatchNormSource<S> source, const Compute<S>* totals) {
  using T = Compute<S>;
  const int64_t at = grid_thread();
  if (at >= a.rows * a.c) return;
  const int64_t i = at % a.c;
  T g, normalised;
  source.at(at / a.c, i, &g, &normalised);
  if (a.dx) {
    const T inverse = a.training ? T{1} / static_cast<T>(a.rows) : T{0};
    const T scale = static_cast<const T*>(a.weight)[i] * source.rstd[i];
    T d = scale * std::fma(-normalised, totals[a.c + i] * inverse, g - totals[i] * inverse);
    S* const dx = static_cast<S*>(a.dx) + at;
    if (a.accumulate_x) d = from_storage(*dx) + d;
    *dx = to_storage<S>(d);
  }
  if (a.dresidual) {
    S* const dresidual = static_cast<S*>(a.dresidual) + at;
    *dresidual = to_storage<S>(a.accumulate_residual ? from_storage(*dresidual) + g : g);
  }
}

template <class S>
Status batch_norm_backward_run(const BatchNormBackwardArgs& a, Context& context) {
  using T = Compute<S>;
  const bool relu_of_x = a.activation == Activation::relu && !a.y;
  const BatchNormSource<S> source{.x = static_cast<const S*>(a.x),
                                  .y = static_cast<const S*>(a.y),
                                  .dy = static_cast<const S*>(a.dy),
                                  .mean = static_cast<const T*>(a.mean),
                                  .rstd = static_cast<const T*>(a.rstd),
                                  .weight = static_cast<const T*>(a.weight),
                                  .relu_bias = relu_of_x ? static_cast<const T*>(a.bias) : nullptr,
                                  .c = a.c};
  T* totals;
  const Status status = sum_columns(
      context, source, a.rows, a.c,
      ParameterGradients<T>{static_cast<T*>(a.dweight), static_cast<T*>(a.dbias), a.accumulate_weight, a.accumulate_bias}, &totals);
  if (status != Status::ok || a.rows == 0 || (!a.dx && !a.dresidual)) return status;
  return cuda::launch(context, batch_norm_dx<S>, cuda::blocks_for(a.rows * a.c, kThreads), cuda::size3(kThreads), 0, a, source, totals);
}
Status batch_norm_backward(const BatchNormBackwardArgs& a, Context& context) noexcept {
  if (a.c == 0) return Status::ok;
  return with_floating(a.dtype, [&]<class S>(S) { return batch_norm_backward_run<S>(a, context); });
}
size_t batch_norm_backward_workspace(const BatchNormBackwardArgs& a) { return pair_workspace(a.rows, a.c); }

template <class Args>
bool without_pooling(const Args& a) {
  return is_floating(a.dtype) && !a.pool.exists();
}

// ------------------------------------------------------------------------------------------------------- layer norm

template <class S, int kLanes>
__global__ void layer_norm_kernel(LayerNormArgs a) {
  using T = Compute<S>;
  using Row = RowThreads<kLanes>;
  SMELT_SHARED(T, shared, Row::kWarps);
  const int64_t row = min_of(Row::row(), a.rows - 1);
  const S* x = static_cast<const S*>(a.x) + row * a.d;
  S* y = static_cast<S*>(a.y) + row * a.d;
  const T* weight = static_cast<const T*>(a.weight);
  const T* bias = static_cast<const T*>(a.bias);
  // Differences to the first element: sums that do not grow with the mean.
  const T start = a.d ? from_storage(x[0]) : T{0};
  T sum = 0, squares = 0;
  for (int64_t i = Row::first(); i < a.d; i += kLanes) sum += from_storage(x[i]) - start;
  const T mean = start + (a.d ? Row::sum(sum, shared) / static_cast<T>(a.d) : T{0});
  for (int64_t i = Row::first(); i < a.d; i += kLanes) {
    const T d = from_storage(x[i]) - mean;
    squares = std::fma(d, d, squares);
  }
  const T rstd = T{1} / std::sqrt(Row::sum(squares, shared) / static_cast<T>(a.d) + static_cast<T>(a.eps));
  if (row != Row::row()) return;
  if (Row::first() == 0) {
    static_cast<T*>(a.mean)[row] = mean;
    static_cast<T*>(a.rstd)[row] = rstd;
  }
  for (int64_t i = Row::first(); i < a.d; i += kLanes) {
    T v = (from_storage(x[i]) - mean) * rstd;
    if (weight) v *= weight[i];
    if (bias) v += bias[i];
    y[i] = to_storage<S>(v);
  }
}
Status layer_norm(const LayerNormArgs& a, Context& context) noexcept {
  return with_floating(a.dtype, [&]<class S>(S) {
    return launch_rows(context, layer_norm_kernel<S, 32>, layer_norm_kernel<S, kThreads>, a.rows, a.d, a);
  });
}

template <class S>
struct LayerNormSource {
  using T = Compute<S>;
  const S *x, *dy;
  const T *mean, *rstd;
  int64_t d;
  SMELT_WORD void at(int64_t row, int64_t column, T* g, T* normalised) const {
    *g = from_storage(dy[row * d + column]);
    *normalised = (from_storage(x[row * d + column]) - mean[row]) * rstd[row];
  }
};

// dx = rstd (g - mean(g) - normalised x * mean(g * normalised x)) with g = dy * weight.
template <class S, int kLanes>
__global__ void layer_norm_dx(LayerNormBackwardArgs a, LayerNormSource<S> source) {
  using T = Compute<S>;
  using Row = RowThreads<kLanes>;
  SMELT_SHARED(T, shared, Row::kWarps);
  const int64_t row = min_of(Row::row(), a.rows - 1);
  const T* weight = static_cast<const T*>(a.weight);
  S* const dx = static_cast<S*>(a.dx) + row * a.d;
  const T rstd = source.rstd[row];
  T sum_g = 0, sum_gx = 0;
  for (int64_t i = Row::first(); i < a.d; i += kLanes) {
    T g, n;
    source.at(row, i, &g, &n);
    if (weight) g *= weight[i];
    sum_g += g;
    sum_gx = std::fma(g, n, sum_gx);
  }
  const T mean_g = Row::sum(sum_g, shared) / static_cast<T>(a.d), mean_gx = Row::sum(sum_gx, shared) / static_cast<T>(a.d);
  if (row != Row::row()) return;
  for (int64_t i = Row::first(); i < a.d; i += kLanes) {
    T g, n;
    source.at(row, i, &g, &n);
    if (weight) g *= weight[i];
    T v = rstd * std::fma(-n, mean_gx, g - mean_g);
    if (a.accumulate_x) v = from_storage(dx[i]) + v;
    dx[i] = to_storage<S>(v);
  }
}

template <class S>
Status layer_norm_backward_run(const LayerNormBackwardArgs& a, Context& context) {
  using T = Compute<S>;
  const LayerNormSource<S> source{static_cast<const S*>(a.x), static_cast<const S*>(a.dy), static_cast<const T*>(a.mean),
                                  static_cast<const T*>(a.rstd), a.d};
  Status status = Status::ok;
  if (a.dx && a.d) status = launch_rows(context, layer_norm_dx<S, 32>, layer_norm_dx<S, kThreads>, a.rows, a.d, a, source);
  if (status != Status::ok || a.d == 0 || (!a.dweight && !a.dbias)) return status;
  T* totals;
  return sum_columns(
      context, source, a.rows, a.d,
      ParameterGradients<T>{static_cast<T*>(a.dweight), static_cast<T*>(a.dbias), a.accumulate_weight, a.accumulate_bias}, &totals);
}
Status layer_norm_backward(const LayerNormBackwardArgs& a, Context& context) noexcept {
  return with_floating(a.dtype, [&]<class S>(S) { return layer_norm_backward_run<S>(a, context); });
}
size_t layer_norm_backward_workspace(const LayerNormBackwardArgs& a) {
  return a.dweight || a.dbias ? pair_workspace(a.rows, a.d) : 0;
}

// Sums with a residual are an op of their own here.
bool plain_layer_norm(const LayerNormArgs& a) { return floating_only(a) && !a.residual; }
bool plain_layer_norm_backward(const LayerNormBackwardArgs& a) { return floating_only(a) && !a.dsum; }

}  // namespace

void cuda::register_norm(const Taker& taker) {
  add_kernel<BatchNormArgs, batch_norm, without_pooling, batch_norm_workspace>(taker, "sm80_batch_norm");
  add_kernel<BatchNormBackwardArgs, batch_norm_backward, without_pooling, batch_norm_backward_workspace>(taker,
                                                                                                         "sm80_batch_norm_backward");
  add_kernel<LayerNormArgs, layer_norm, plain_layer_norm>(taker, "sm80_layer_norm");
  add_kernel<LayerNormBackwardArgs, layer_norm_backward, plain_layer_norm_backward, layer_norm_backward_workspace>(taker, "sm80_layer_norm_backward");
}

}  // namespace smelt
