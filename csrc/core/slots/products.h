// Matrix products, convolution and pooling.
#pragma once
#include "core/slots/slot.h"

namespace smelt {

// --------------------------------------------------------------------------------------------------- matrix product

struct GemmArgs {  // c = activation(alpha * a @ b + bias + residual), c's content being added within when accumulating
  SMELT_SLOT(GemmArgs, "gemm");
  const void* a;     // (batch, M, K), or (batch, K, M) when transpose_a
  const void* b;     // (batch, K, N), or (batch, N, K) when transpose_b
  const void* bias;  // (N) or null
  void* c;           // (batch, M, N)
  const void* residual = nullptr;  // as c, or null
  void* column_sums = nullptr;     // (N) or null: of what is written to c, in the dtype of the sums; for a batch of 1
  int64_t m, n, k, batch = 1;
  int64_t lda, ldb, ldc;                               // elements from one stored row to the next
  int64_t batch_stride_a = 0, batch_stride_b = 0, batch_stride_c = 0;  // in elements; 0 repeats a or b
  float alpha = 1;
  DType dtype;    // of a, b and bias
  DType c_dtype;  // dtype, or float32 for halves
  Activation activation = Activation::none;
  bool transpose_a = false, transpose_b = false;
  bool accumulate = false;
  Work work() const {
    const double in = dtype_size(dtype) * (1.0 * m * k + 1.0 * k * n);
    const double out = (residual ? 2.0 : 1.0) * dtype_size(c_dtype) * m * n;
    return {2.0 * batch * m * n * k, batch * (in + out)};
  }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(GemmArgs, a), SMELT_IN(GemmArgs, b), SMELT_IN(GemmArgs, bias),
                      SMELT_GRAD(GemmArgs, c, accumulate), SMELT_IN(GemmArgs, residual), SMELT_OUT(GemmArgs, column_sums)};
  }
};

// ------------------------------------------------------------------------------------------ convolution and pooling

struct ConvShape {
  int64_t n, h, w, c;  // input (N, H, W, C)
  int64_t k, r, s;     // weight (K, R, S, C / groups)
  int64_t p, q;        // output (N, P, Q, K)
  int64_t stride[2], dilation[2];
  int64_t pad[2];  // rows above, columns on the left; those below and right follow from p and q
  int64_t groups;
  bool operator==(const ConvShape&) const = default;
  double macs() const { return 1.0 * n * p * q * k * r * s * (c / groups); }
  double elements() const { return 1.0 * n * h * w * c + 1.0 * k * r * s * (c / groups) + 1.0 * n * p * q * k; }
};

struct Conv2dArgs {
  SMELT_SLOT(Conv2dArgs, "conv2d");
  const void* x;     // (N, H, W, C)
  const void* w;     // (K, R, S, C / groups)
  const void* bias;  // (K) or null
  void* y;           // (N, P, Q, K)
  ConvShape shape;
  DType dtype;
  Activation activation;
  Work work() const { return {2 * shape.macs(), dtype_size(dtype) * shape.elements()}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(Conv2dArgs, x), SMELT_IN(Conv2dArgs, w), SMELT_IN(Conv2dArgs, bias),
                      SMELT_OUT(Conv2dArgs, y)};
  }
};

struct Conv2dBackwardInputArgs {
  SMELT_SLOT(Conv2dBackwardInputArgs, "conv2d_backward_input");
  const void* dy;  // (N, P, Q, K)
  const void* w;   // (K, R, S, C / groups)
  void* dx;        // (N, H, W, C)
  ConvShape shape;
  DType dtype;     // of dy and w
  DType dx_dtype;  // dtype, or float32 for halves
  bool accumulate;
  Work work() const { return {2 * shape.macs(), dtype_size(dtype) * shape.elements()}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(Conv2dBackwardInputArgs, dy), SMELT_IN(Conv2dBackwardInputArgs, w),
                      SMELT_GRAD(Conv2dBackwardInputArgs, dx, accumulate)};
  }
};

struct Conv2dBackwardWeightArgs {
  SMELT_SLOT(Conv2dBackwardWeightArgs, "conv2d_backward_weight");
  const void* x;   // (N, H, W, C)
  const void* dy;  // (N, P, Q, K)
  void* dw;        // (K, R, S, C / groups)
  ConvShape shape;
  DType dtype;     // of x and dy
  DType dw_dtype;  // dtype, or float32 for halves
  bool accumulate;
  Work work() const { return {2 * shape.macs(), dtype_size(dtype) * shape.elements()}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(Conv2dBackwardWeightArgs, x), SMELT_IN(Conv2dBackwardWeightArgs, dy),
                      SMELT_GRAD(Conv2dBackwardWeightArgs, dw, accumulate)};
  }
};

struct PoolShape {
  int64_t n, h, w, c;  // input (N, H, W, C)
  int64_t p, q;        // output (N, P, Q, C)
  int64_t kernel[2], stride[2], pad[2];
  bool adaptive;  // output i covers [floor(i H / P), ceil((i + 1) H / P)) instead
  bool operator==(const PoolShape&) const = default;
  double inputs() const { return 1.0 * n * h * w * c; }
  double outputs() const { return 1.0 * n * p * q * c; }
  double elements() const { return inputs() + outputs(); }
  // The most pixels of the image in a window, and the type of a place among them.
  int64_t window_pixels() const {
    const auto most = [this](int axis, int64_t extent, int64_t out) {
      const int64_t size = adaptive ? (out ? extent / out : 0) + 2 : kernel[axis];
      return size < extent ? size : extent;
    };
    return most(0, h, p) * most(1, w, q);
  }
  DType index_dtype() const { return window_pixels() <= 256 ? DType::uint8 : DType::int32; }
  // Whether no pixel lies in two windows, nor in a padding.
  bool side_by_side() const {
    return !adaptive && stride[0] == kernel[0] && stride[1] == kernel[1] && pad[0] == 0 && pad[1] == 0;
  }
  bool exists() const { return kernel[0] > 0 || adaptive; }  // where a pooling is optional
};

struct Pool2dArgs {
  SMELT_SLOT(Pool2dArgs, "pool2d");
  const void* x;  // (N, H, W, C)
  void* y;        // (N, P, Q, C)
  void* index;    // (N, P, Q, C) of index_dtype, or null: of each maximum its place among the window's pixels that lie in the
                  // image, row by row; max only
  PoolShape shape;
  DType dtype;
  DType index_dtype;  // PoolShape::index_dtype()
  bool max;                // else average
  bool count_include_pad;  // average: padding counts in the divisor
  Work work() const { return {shape.inputs(), dtype_size(dtype) * shape.elements()}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(Pool2dArgs, x), SMELT_OUT(Pool2dArgs, y), SMELT_OUT(Pool2dArgs, index)};
  }
};

struct Pool2dBackwardArgs {
  SMELT_SLOT(Pool2dBackwardArgs, "pool2d_backward");
  const void* dy;     // (N, P, Q, C)
  const void* index;  // (N, P, Q, C) of index_dtype; max only
  void* dx;           // (N, H, W, C)
  PoolShape shape;
  DType dtype;
  DType index_dtype;
  bool max;
  bool count_include_pad;
  bool accumulate;
  Work work() const { return {shape.inputs(), dtype_size(dtype) * shape.elements()}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(Pool2dBackwardArgs, dy), SMELT_IN(Pool2dBackwardArgs, index),
                      SMELT_GRAD(Pool2dBackwardArgs, dx, accumulate)};
  }
};

}  // namespace smelt
