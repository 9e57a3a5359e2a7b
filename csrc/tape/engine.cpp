// Backward: nodes in descending order of creation, so each runs after all that used its outputs.
#include <algorithm>
#include <unordered_map>

#include "core/profile.h"
#include "ops/ops.h"
#include "tape/node.h"

namespace smelt {
namespace {

std::atomic<uint64_t> g_visit{1};

// Gradients of leaves with hooks, kept apart until they are complete.
using HookedLeaves = std::vector<std::pair<Tensor, Tensor>>;
thread_local HookedLeaves* t_hooked = nullptr;

Tensor& pending_grad(Node& node, int input) {
  Edge& edge = node.inputs[input];
  if (edge.node) return edge.node->grads[edge.output];
  for (auto& [leaf, grad] : *t_hooked)
    if (leaf.impl() == edge.leaf.impl()) return grad;
  return t_hooked->emplace_back(edge.leaf, Tensor()).second;
}

bool written_at_once(const Edge& edge) {
  return edge.leaf && (!edge.leaf.impl()->leaf_grad || edge.leaf.impl()->leaf_grad->hooks.empty());
}

void write(const GradTarget& target, const Tensor& grad) {
  const Tensor g = dense(grad);
  launch(CastArgs{.x = g.data(), .y = target.tensor.data(), .n = g.numel(), .from = g.dtype(),
                  .to = target.tensor.dtype(), .accumulate = target.accumulate},
         g.device());
}

// Nodes below `root` in the order in which backward runs them; makes room for their gradients.
std::vector<Ref<Node>> collect(const Ref<Node>& root) {
  const uint64_t visit = g_visit.fetch_add(1, std::memory_order_relaxed);
  std::vector<Ref<Node>> nodes{root};
  root->visit = visit;
  for (size_t i = 0; i < nodes.size(); ++i) {
    Node& node = *nodes[i];
    if (node.freed)
      fail(ErrorKind::runtime, "backward",
           "the tape was already freed by an earlier backward; pass retain_graph=True to that one to run it again");
    node.grads.assign(node.outputs.size(), Tensor());
    for (const Edge& edge : node.inputs) {
      if (edge.node && edge.node->visit != visit) {
        edge.node->visit = visit;
        nodes.push_back(edge.node);
      }
    }
  }
  std::sort(nodes.begin(), nodes.end(), [](const auto& a, const auto& b) { return a->sequence > b->sequence; });
  return nodes;
}

void run_hooks(Node& node) {
  for (const auto& [output, hook] : std::vector(node.hooks)) {  // a hook may remove itself
    if (!node.grads[output]) continue;
    Tensor replaced = hook.second(node.grads[output]);
    if (replaced) node.grads[output] = replaced;
  }
}

void finish_hooked_leaves(HookedLeaves& hooked) {
  for (auto& [leaf, grad] : hooked) {
    if (!grad) continue;
    for (const auto& [id, hook] : std::vector(leaf_grad(leaf).hooks)) {
      Tensor replaced = hook(grad);
      if (replaced) grad = replaced;
    }
    write(leaf_target(leaf), grad);
  }
}

}  // namespace

Tensor GradContext::dy(int output) {
  const OutputMeta& meta = node_.outputs[output];
  if (!node_.grads[output]) return full(meta.shape, Scalar{}, meta.dtype, meta.device);
  return dense(node_.grads[output]);
}

const Shape& GradContext::input_shape(int input) const {
  const Edge& edge = node_.inputs[input];
  return edge.node ? edge.node->outputs[edge.output].shape : edge.leaf.shape();
}

bool GradContext::same(int input, int other) const {
  const Edge &a = node_.inputs[input], &b = node_.inputs[other];
  if (a.leaf) return b.leaf && a.leaf.impl() == b.leaf.impl();
  return a.node.get() == b.node.get() && a.output == b.output;
}

DType GradContext::input_dtype(int input) const {
  const Edge& edge = node_.inputs[input];
  return edge.node ? edge.node->outputs[edge.output].dtype : edge.leaf.dtype();
}

Device GradContext::input_device(int input) const {
  const Edge& edge = node_.inputs[input];
  return edge.node ? edge.node->outputs[edge.output].device : edge.leaf.device();
}

GradTarget GradContext::target(int input) {
  const Edge& edge = node_.inputs[input];
  if (written_at_once(edge)) return leaf_target(edge.leaf);
  Tensor& pending = pending_grad(node_, input);
  if (!pending) {
    pending = empty(input_shape(input), input_dtype(input), input_device(input));
    return {pending, false};
  }
  // Somebody else may hold what is there (an op that passes its gradient on, a hook that returns an array): then the
  // sum gets memory of its own.
  const Storage& storage = pending.storage();
  if (pending.ref()->use_count() > 1 || storage.use_count() > 1 || !storage.owned() || storage.exports() > 0 ||
      pending.transposed())
    pending = copy(pending);
  return {pending, true};
}

void GradContext::give(int input, const Tensor& grad) {
  const Edge& edge = node_.inputs[input];
  if (!written_at_once(edge)) {
    Tensor& pending = pending_grad(node_, input);
    if (!pending) {
      pending = grad;
      return;
    }
  }
  write(target(input), grad);
}


void backward(const Tensor& root, const Tensor& grad, bool retain_graph) {
  OpScope scope("backward");
  if (!root.requires_grad())
    fail(ErrorKind::runtime, "backward", "the tensor must depend on one that requires a gradient, this one does not");
  if (grad) {
    require(grad.shape() == root.shape(), "backward", "the gradient must have shape ", root.shape(), ", got ",
            grad.shape());
    require_type(grad.dtype() == root.dtype(), "backward", "the gradient must be ", root.dtype(), ", got ",
                 grad.dtype());
  } else {
    require(root.numel() == 1, "backward", "without a gradient the tensor must have one element, got shape ",
            root.shape());
  }
  if (dry_run::active()) return;

  WithoutInterpreterLock unlocked(true);
  NoGrad no_grad;
  HookedLeaves hooked;
  struct Restore {
    HookedLeaves* previous_hooked;
    CallSite previous_site = call_site();
    ~Restore() {
      t_hooked = previous_hooked;
      call_site() = previous_site;
    }
  } restore{std::exchange(t_hooked, &hooked)};

  const Tensor seed = grad ? grad : full(root.shape(), Scalar{1, 1}, root.dtype(), root.device());
  if (!root.impl()->grad_fn) {  // a leaf
    hooked.emplace_back(root, seed);
    finish_hooked_leaves(hooked);
    return;
  }
  std::vector<Ref<Node>> nodes = collect(root.impl()->grad_fn);
  struct Clear {
    std::vector<Ref<Node>>& nodes;
    ~Clear() {
      for (const Ref<Node>& node : nodes) node->grads.clear();
    }
  } clear{nodes};

  root.impl()->grad_fn->grads[root.impl()->output] = seed;
  for (const Ref<Node>& node : nodes) {
    const bool reached = std::any_of(node->grads.begin(), node->grads.end(), [](const Tensor& g) { return bool(g); });
    if (reached) {
      OpScope op(node->op);
      call_site() = {node->layer, true};
      if (!node->hooks.empty()) run_hooks(*node);
      GradContext context(*node);
      node->backward(context);
    }
    node->grads.clear();
    if (!retain_graph) {
      node->free_saved();
      node->freed = true;
    }
  }
  finish_hooked_leaves(hooked);
}

}  // namespace smelt
