// Helpers shared by the ops.
#pragma once
#include <algorithm>
#include <initializer_list>

#include "core/error.h"
#include "core/launch.h"
#include "ops/ops.h"
#include "tape/node.h"

namespace smelt {

inline void require_floating(const char* op, const char* what, const Tensor& x) {
  require_type(is_floating(x.dtype()), op, what, " must be floating, got ", x.dtype(), "; use .float()");
}
inline void require_same_dtype(const char* op, const char* what, const Tensor& x, const char* other,
                               const Tensor& y) {
  require_type(x.dtype() == y.dtype(), op, what, " is ", x.dtype(), ", ", other, " is ", y.dtype(),
               ": both must have one dtype");
}
void require_same_device(const char* op, std::initializer_list<const Tensor*> tensors);

// Address of x's element number `index`; null in check mode.
inline char* at(const Tensor& x, int64_t index) {
  return x.data() ? x.data() + index * dtype_size(x.dtype()) : nullptr;
}

// Floating tensors as they are, the others as float32.
Tensor as_floating(const Tensor& x);

// A walk over arrays of one shape with different strides, axes merged where they can be.
template <int K>
struct Strided {
  int rank = 0;
  int64_t shape[kMaxRank] = {};
  int64_t stride[K][kMaxRank] = {};

  void append(int64_t extent, const int64_t (&steps)[K]) {
    if (extent == 1) return;
    bool merges = rank > 0;
    for (int i = 0; i < K && merges; ++i) merges = stride[i][rank - 1] == steps[i] * extent;
    if (!merges) ++rank;
    shape[rank - 1] = merges ? shape[rank - 1] * extent : extent;
    for (int i = 0; i < K; ++i) stride[i][rank - 1] = steps[i];
  }
};

// Dense strides in elements of `shape`, as seen from an axis of `wide`, 0 where broadcast.
void broadcast_strides(const Shape& shape, const Shape& wide, int64_t* strides);

template <int K>
Strided<K> broadcast_walk(const Shape& wide, const Shape* const (&shapes)[K]) {
  int64_t strides[K][kMaxRank];
  for (int i = 0; i < K; ++i) broadcast_strides(*shapes[i], wide, strides[i]);
  Strided<K> walk;
  for (int axis = 0; axis < wide.rank(); ++axis) {
    int64_t steps[K];
    for (int i = 0; i < K; ++i) steps[i] = strides[i][axis];
    walk.append(wide[axis], steps);
  }
  return walk;
}

// A strided copy from x to y, either given by its first element and strides over `walk`.
void copy_strided(const Strided<2>& walk, const void* x, void* y, DType dtype, Device device, bool accumulate = false);

// Extents of x seen as (outer, n, inner) around one axis.
struct AxisView {
  int64_t outer, n, inner;
  AxisView(const Shape& shape, int axis)
      : outer(shape.product(0, axis)), n(shape[axis]), inner(shape.product(axis + 1, shape.rank())) {}
};

// Whether the derivative of an activation can be had from its result, so that only the result is kept.
bool keeps_result(Activation activation);
// dy * activation'(saved), off the tape.
Tensor activation_backward(Activation activation, const Tensor& saved, const Tensor& dy);

// Where one kernel writes the gradients of several inputs. Of inputs that are one tensor, which its memory can take but one of,
// the later have memory of their own, and finish() adds them.
class GradTargets {
 public:
  GradTargets(GradContext& g, std::initializer_list<int> inputs);
  void* data(int input) const { return target_[input].tensor ? target_[input].tensor.data() : nullptr; }
  bool accumulate(int input) const { return target_[input].accumulate; }
  void finish();

 private:
  static constexpr int kMost = 4;
  GradContext& g_;
  GradTarget target_[kMost];
  bool apart_[kMost] = {};
};

// A gradient computed by one binary kernel, dx = a (op) b, straight into its target.
void give_binary(GradContext& g, int input, BinaryOp op, const Tensor& a, const Tensor& b);
Tensor binary_plain(BinaryOp op, const Tensor& a, const Tensor& b);  // same dtype, off the tape

}  // namespace smelt
