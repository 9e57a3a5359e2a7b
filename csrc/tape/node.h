// The tape: one node per op that was called, with what its backward needs.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/tensor.h"
#include "tape/leaf.h"

namespace smelt {

// Where an input of a node came from: an output of another node, or a leaf, or nothing that needs a gradient.
struct Edge {
  Ref<Node> node;
  int output = 0;
  Tensor leaf;
  explicit operator bool() const { return node || leaf; }
};

struct OutputMeta {
  Shape shape;
  DType dtype;
  Device device;
};

// A tensor kept for backward. Reading it raises when the memory was written since, or already freed.
class Saved {
 public:
  Saved() = default;
  explicit Saved(const Tensor& x);
  // An output of the node itself: kept off the tape, else node and tensor would keep each other alive.
  static Saved output(const Tensor& y);
  // A copy in another dtype that lasts as long as its original is not written.
  static Saved mirror(const Tensor& copy, const Tensor& original);
  Tensor get() const;
  explicit operator bool() const { return static_cast<bool>(tensor_); }

 private:
  Tensor tensor_, original_;  // original_ only where its version counts
  uint64_t version_ = 0;
};

class GradContext;

class Node : public RefCounted {
 public:
  explicit Node(const char* op_name) : op(op_name) {}

  // Reads the gradients of the outputs from `g` and writes those of the inputs to it.
  virtual void backward(GradContext& g) = 0;
  // Lets go of what was saved; a second backward then raises.
  virtual void free_saved() {}

  const char* op;
  uint64_t sequence = 0;  // in order of creation, over all threads
  int layer = 0;          // the call site's
  std::vector<Edge> inputs;
  std::vector<OutputMeta> outputs;
  std::vector<std::pair<int, std::pair<int64_t, GradHook>>> hooks;  // (output, (id, hook))
  bool freed = false;

  // Of the backward that runs now.
  std::vector<Tensor> grads;  // per output
  uint64_t visit = 0;

 protected:
  ~Node() override = default;
  void destroy() override;  // not recursive, however long the tape
};

// Given to Node::backward.
class GradContext {
 public:
  explicit GradContext(Node& node) : node_(node) {}

  // The gradient of an output, dense; zeros when nothing flowed into it.
  Tensor dy(int output = 0);
  bool has_dy(int output) const { return static_cast<bool>(node_.grads[output]); }
  bool needs(int input) const { return static_cast<bool>(node_.inputs[input]); }
  // Whether two inputs that need a gradient are one tensor.
  bool same(int input, int other) const;
  const Shape& input_shape(int input) const;
  DType input_dtype(int input) const;
  Device input_device(int input) const;

  // Memory for the gradient of an input, to be written by exactly one kernel.
  GradTarget target(int input);
  // Hands over a finished gradient of the input's shape and dtype.
  void give(int input, const Tensor& grad);
  // Likewise, summed over the axes along which the input was broadcast.
  void give_reduced(int input, const Tensor& grad);

 private:
  Node& node_;
};

// Thread-local: whether ops go on the tape.
bool grad_enabled();
void set_grad_enabled(bool on);
class NoGrad {
 public:
  NoGrad() : previous_(grad_enabled()) { set_grad_enabled(false); }
  ~NoGrad() { set_grad_enabled(previous_); }
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool previous_;
};

template <class... T>
bool needs_grad(const T&... x) {
  return grad_enabled() && ((x && x.requires_grad()) || ...);
}

// Puts `node` on the tape: its inputs (tensors without a gradient may be none) and its outputs.
void attach(const Ref<Node>& node, std::initializer_list<const Tensor*> inputs, std::initializer_list<Tensor*> outputs);
void attach(const Ref<Node>& node, const std::vector<Tensor>& inputs, std::vector<Tensor>& outputs);

// Gradients of `root` with respect to every leaf below it, `grad` being that of root itself (none: ones, scalars only).
void backward(const Tensor& root, const Tensor& grad, bool retain_graph);

// A hook on the gradient of x, run before that gradient is used further; the number undoes it.
int64_t register_hook(const Tensor& x, GradHook hook);
void remove_hook(const Tensor& x, int64_t id);

}  // namespace smelt
