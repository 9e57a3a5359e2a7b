// Every op: checks its input, gives the output's shape, calls the kernels and puts its node on the tape.
// ValueError and TypeError are raised here and nowhere below. One file a family: shape, elementwise, reduce, index,
// linear, conv, conv_transpose, pool, norm, softmax, attention, loss, random, optimizer.
#pragma once
#include <optional>
#include <vector>

#include "core/kernels.h"
#include "core/tensor.h"

namespace smelt {

// -------------------------------------------------------------------------------------------------- shape.cpp
Tensor full(const Shape& shape, Scalar value, DType dtype, Device device);
Tensor arange(Scalar start, Scalar step, int64_t n, DType dtype, Device device);
Tensor copy(const Tensor& x);                  // dense, off the tape
Tensor dense(const Tensor& x);                 // x itself unless its transposition is still to be carried out
Tensor cast(const Tensor& x, DType dtype);
Tensor to_device(const Tensor& x, Device device);
Tensor reshape(const Tensor& x, const std::vector<int64_t>& shape);  // one extent may be -1
Tensor permute(const Tensor& x, const std::vector<int64_t>& axes);
Tensor swap_last(const Tensor& x);             // lazily: the bit that matmul consumes
Tensor expand(const Tensor& x, const Shape& shape);
struct SliceAxis {
  int64_t start = 0, length = 0, step = 1;
};
Tensor slice(const Tensor& x, const std::vector<SliceAxis>& axes);  // one per axis, in range
Tensor concat(const std::vector<Tensor>& xs, int64_t axis);
Tensor pad(const Tensor& x, const std::vector<std::pair<int64_t, int64_t>>& widths, double value);
// Writes; not on the tape. `y` must not need a gradient while grad mode is on.
void assign(const Tensor& y, const Tensor& x);                                         // y[...] = x, broadcast
void assign_slice(const Tensor& y, const std::vector<SliceAxis>& axes, const Tensor& x);
void check_writable(const char* op, const Tensor& y);
// The number of one-element tensor; waits for the device.
Scalar item(const Tensor& x);

// -------------------------------------------------------------------------------------------- elementwise.cpp
Tensor unary(UnaryOp op, const Tensor& x, Scalar a = {}, Scalar b = {});
Tensor binary(BinaryOp op, const Tensor& a, const Tensor& b);
struct Number {  // a Python number: gives way to a tensor's dtype of its kind
  Scalar value;
  enum Kind { boolean, integer, floating } kind;
  bool huge = false;  // an integer beyond 64 bits: i is the nearest that fits
};
Tensor binary(BinaryOp op, const Tensor& x, Number number, bool number_first);
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);
const char* op_name(UnaryOp op);
const char* op_name(BinaryOp op);
UnaryOp unary_op(Activation activation);

// ------------------------------------------------------------------------------------------------- reduce.cpp
Tensor reduce(ReduceOp op, const Tensor& x, const std::optional<std::vector<int64_t>>& axes, bool keepdims,
              bool mean = false);
// Values and indices; `name` is the function's in messages.
std::pair<Tensor, Tensor> extremum(const char* name, ReduceOp op, const Tensor& x, int64_t axis, bool keepdims);
Tensor cumsum(const Tensor& x, int64_t axis);
std::pair<Tensor, Tensor> sort(const Tensor& x, bool descending);  // along the last axis
Tensor sum_to(const Tensor& x, const Shape& shape);                // undoes a broadcast; off the tape

// -------------------------------------------------------------------------------------------------- index.cpp
Tensor take(const Tensor& x, const Tensor& index, int64_t axis);
Tensor gather(const Tensor& x, const Tensor& index, int64_t axis);
Tensor scatter_add(const Tensor& x, const Tensor& index, const Tensor& values, int64_t axis);
Tensor embedding(const Tensor& index, const Tensor& weight, int64_t padding_index);
Tensor nonzero(const Tensor& mask);  // flat positions, int64
void put(const Tensor& y, const Tensor& index, const Tensor& values);  // y[index] = values along the first axis
// IndexError unless every element of `index` lies in [low, high) or is `ignore`.
void check_index(const Tensor& index, int64_t low, int64_t high, const char* what, std::optional<int64_t> ignore = {});

// ------------------------------------------------------------------------------------------------- linear.cpp
Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b);
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, Activation activation);

// ------------------------------------------------------------------------- conv*.cpp, pool.cpp
struct Conv2dOptions {
  int64_t stride[2] = {1, 1};
  int64_t padding[2][2] = {};  // (before, after) for rows and columns
  bool same = false;           // padding so that the output has ceil(input / stride) rows and columns
  int64_t dilation[2] = {1, 1};
  int64_t groups = 1;
  Activation activation = Activation::none;
  int64_t output_padding[2] = {};  // transposed: rows and columns more at the end of the output
};
Tensor conv2d(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options);
Tensor conv1d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options);  // rows: 1
// weight (in, rows, columns, out / groups)
Tensor conv_transpose2d(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options);
Tensor conv_transpose1d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options);
struct Pool2dOptions {
  int64_t kernel[2] = {}, stride[2] = {}, padding[2] = {};
  bool count_include_pad = true;
};
// The windows, checked; with none at all where a dry run found them wrong.
PoolShape max_pool_shape(const char* op, const Tensor& x, const Pool2dOptions& options);
Tensor max_pool2d(const Tensor& x, const Pool2dOptions& options);
Tensor avg_pool2d(const Tensor& x, const Pool2dOptions& options);
Tensor adaptive_pool2d(const Tensor& x, int64_t rows, int64_t columns, bool max);

// ----------------------------------------------------------------------- *norm.cpp, softmax.cpp, loss.cpp
Tensor batch_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& running_mean,
                  const Tensor& running_var, bool training, double momentum, double eps, const Tensor& residual,
                  Activation activation, const std::optional<Pool2dOptions>& pool);  // max pooling of what comes out
Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps);
Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps);
// x + residual, and its norm.
std::pair<Tensor, Tensor> add_layer_norm(const Tensor& x, const Tensor& residual, const Tensor& weight, const Tensor& bias,
                                         double eps);
std::pair<Tensor, Tensor> add_rms_norm(const Tensor& x, const Tensor& residual, const Tensor& weight, double eps);
Tensor group_norm(const Tensor& x, int64_t groups, const Tensor& weight, const Tensor& bias, double eps);
Tensor softmax(const Tensor& x, int64_t axis, bool log);
Tensor cross_entropy(const Tensor& logits, const Tensor& labels, const Tensor& weight, double label_smoothing,
                     int64_t ignore_index, Reduction reduction);
Tensor pointwise_loss(LossOp op, const Tensor& x, const Tensor& target, const Tensor& pos_weight, double delta,
                      Reduction reduction);

// ---------------------------------------------------------------------------------------------- attention.cpp
struct AttentionOptions {
  bool causal = false;
  std::optional<double> scale = {};  // 1 / sqrt(features)
};
// q (B, Tq, H, D), k (B, Tk, Hkv, D), v (B, Tk, Hkv, Dv); mask and lengths may be none.
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask, const Tensor& lengths,
                 const AttentionOptions& options);
// qkv (B, T, (H + 2 Hkv) D)
Tensor attention_packed(const Tensor& qkv, int64_t heads, int64_t kv_heads, const Tensor& mask, const Tensor& lengths,
                        const AttentionOptions& options);

// ------------------------------------------------------------------------------------------------- random.cpp
void manual_seed(uint64_t seed);
GeneratorState generator_state();
void set_generator_state(GeneratorState state);
void advance_generator();  // a step's end: the offset in this thread's memory moves to the next counter
void discard_random();     // gives back the counters that this thread drew since then
Tensor random(const Shape& shape, RandomKind kind, Scalar a, Scalar b, DType dtype, Device device);
Tensor dropout(const Tensor& x, double p);

}  // namespace smelt
