#include "tape/node.h"

#include <atomic>
#include <utility>

#include "core/profile.h"

namespace smelt {
namespace {

std::atomic<uint64_t> g_sequence{1};
std::atomic<int64_t> g_hook_id{1};
thread_local bool t_grad_enabled = true;

Edge edge_of(const Tensor& x) {
  if (!x) return {};
  TensorImpl* impl = x.impl();
  if (impl->grad_fn) return {impl->grad_fn, impl->output, {}};
  if (impl->requires_grad) return {nullptr, 0, x};
  return {};
}

void connect(const Ref<Node>& node, Tensor& output) {
  output.impl()->grad_fn = node;
  output.impl()->output = static_cast<int>(node->outputs.size());
  node->outputs.push_back({output.shape(), output.dtype(), output.device()});
}

void number(Node& node) {
  node.sequence = g_sequence.fetch_add(1, std::memory_order_relaxed);
  node.layer = call_site().layer;
}

}  // namespace

Saved::Saved(const Tensor& x) : tensor_(x), version_(x ? x.storage().version() : 0) {}

Saved Saved::output(const Tensor& y) { return Saved(y ? alias(y) : Tensor()); }

Saved Saved::mirror(const Tensor& copy, const Tensor& original) {
  Saved saved(original);
  saved.original_ = std::exchange(saved.tensor_, copy);
  return saved;
}

Tensor Saved::get() const {
  const Tensor& written = original_ ? original_ : tensor_;
  if (written && written.storage().version() != version_)
    fail(ErrorKind::runtime, "backward", "a tensor of shape ", tensor_.shape(),
         " that backward needs was changed in place after it was used");
  return tensor_;
}

void Node::destroy() {
  // A node's destructor lets go of the nodes before it; a list instead of recursion keeps the stack flat.
  static thread_local std::vector<Node*>* pending = nullptr;
  if (pending) {
    pending->push_back(this);
    return;
  }
  std::vector<Node*> list{this};
  pending = &list;
  while (!list.empty()) {
    Node* node = list.back();
    list.pop_back();
    delete node;
  }
  pending = nullptr;
}

bool grad_enabled() { return t_grad_enabled; }
void set_grad_enabled(bool on) { t_grad_enabled = on; }

void attach(const Ref<Node>& node, std::initializer_list<const Tensor*> inputs,
            std::initializer_list<Tensor*> outputs) {
  number(*node);
  node->inputs.reserve(inputs.size());
  for (const Tensor* x : inputs) node->inputs.push_back(edge_of(*x));
  for (Tensor* y : outputs) connect(node, *y);
}

void attach(const Ref<Node>& node, const std::vector<Tensor>& inputs, std::vector<Tensor>& outputs) {
  number(*node);
  for (const Tensor& x : inputs) node->inputs.push_back(edge_of(x));
  for (Tensor& y : outputs) connect(node, y);
}

int64_t register_hook(const Tensor& x, GradHook hook) {
  if (!x.requires_grad()) fail(ErrorKind::runtime, "register_hook", "the tensor must require a gradient");
  if (!x.impl()->grad_fn && x.storage().recorded()) recording::change_layout();
  const int64_t id = g_hook_id.fetch_add(1);
  if (x.impl()->grad_fn)
    x.impl()->grad_fn->hooks.push_back({x.impl()->output, {id, std::move(hook)}});
  else
    leaf_grad(x).hooks.push_back({id, std::move(hook)});
  return id;
}

void remove_hook(const Tensor& x, int64_t id) {
  if (x.impl()->grad_fn) {
    std::erase_if(x.impl()->grad_fn->hooks, [id](const auto& h) { return h.second.first == id; });
  } else if (x.impl()->leaf_grad) {
    if (x.storage().recorded()) recording::change_layout();
    std::erase_if(x.impl()->leaf_grad->hooks, [id](const auto& h) { return h.first == id; });
  }
}

}  // namespace smelt
