// softmax and log_softmax along any axis.
#include "ops/common.h"

namespace smelt {
namespace {

struct SoftmaxNode final : Node {
  SoftmaxNode(const Tensor& result, bool logarithm)
      : Node(logarithm ? "log_softmax" : "softmax"), y(Saved::output(result)), log(logarithm) {}
  void backward(GradContext& g) override {
    const Tensor dy = g.dy(), out = y.get();
    const int64_t n = out.shape().back();
    const GradTarget dx = g.target(0);
    launch(SoftmaxBackwardArgs{.y = out.data(), .dy = dy.data(), .dx = dx.tensor.data(),
                               .rows = n ? out.numel() / n : 0, .n = n, .dtype = dy.dtype(), .log = log,
                               .accumulate = dx.accumulate},
           dy.device());
  }
  void free_saved() override { y = {}; }
  Saved y;
  bool log;
};

}  // namespace

Tensor softmax(const Tensor& x_in, int64_t axis_in, bool log) {
  OpScope scope(log ? "log_softmax" : "softmax");
  const Tensor x = dense(as_floating(x_in));
  const int axis = normalize_axis(current_op(), axis_in, x.rank());
  if (axis != x.rank() - 1) {
    std::vector<int64_t> order(x.rank());
    for (int i = 0; i < x.rank(); ++i) order[i] = i;
    std::swap(order[axis], order.back());
    return permute(softmax(permute(x, order), -1, log), order);
  }
  const int64_t n = x.shape().back();
  Tensor y = empty(x.shape(), x.dtype(), x.device());
  launch(SoftmaxArgs{.x = x.data(), .y = y.data(), .rows = n ? x.numel() / n : 0, .n = n, .dtype = x.dtype(),
                     .log = log},
         x.device());
  if (needs_grad(x)) attach(make_ref<SoftmaxNode>(y, log), {&x}, {&y});
  return y;
}

}  // namespace smelt
