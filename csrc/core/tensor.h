// A dense, row-major array on one device. Tensor is a reference: copies share the implementation.
#pragma once
#include <memory>

#include "core/shape.h"
#include "core/storage.h"

namespace smelt {

class Node;      // tape/node.h
class LeafGrad;  // tape/leaf.h
class Tensor;

class TensorImpl final : public RefCounted {
 public:
  TensorImpl(Ref<Storage> storage, int64_t offset, Shape shape, DType dtype);

  Ref<Storage> storage;
  int64_t offset;  // bytes
  Shape shape;
  DType dtype;
  // The bytes lie with the last two axes swapped: what `.T` leaves for a matrix product to consume.
  bool transposed = false;
  bool requires_grad = false;  // of a leaf
  int output = 0;              // which output of grad_fn this is
  Ref<Node> grad_fn;           // null on a leaf
  Ref<LeafGrad> leaf_grad;     // null until a leaf that requires a gradient is first used

 private:
  ~TensorImpl() override;
};

class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(Ref<TensorImpl> impl) : impl_(std::move(impl)) {}

  explicit operator bool() const { return static_cast<bool>(impl_); }
  TensorImpl* impl() const { return impl_.get(); }
  const Ref<TensorImpl>& ref() const { return impl_; }

  const Shape& shape() const { return impl_->shape; }
  int rank() const { return impl_->shape.rank(); }
  int64_t numel() const { return impl_->shape.numel(); }
  DType dtype() const { return impl_->dtype; }
  Device device() const { return impl_->storage->device(); }
  int64_t nbytes() const { return numel() * dtype_size(dtype()); }
  Storage& storage() const { return *impl_->storage; }
  bool transposed() const { return impl_->transposed; }

  // The bytes; null in check mode. The caller has made sure of dtype and, unless it handles it, of !transposed().
  char* data() const { return impl_->storage->data() ? impl_->storage->data() + impl_->offset : nullptr; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data());
  }

  bool requires_grad() const { return impl_->requires_grad || impl_->grad_fn; }

 private:
  Ref<TensorImpl> impl_;
};

Tensor empty(const Shape& shape, DType dtype, Device device);
// Another tensor on x's memory, off the tape; `offset` in elements from x's first.
Tensor alias(const Tensor& x, const Shape& shape, int64_t offset = 0);
inline Tensor alias(const Tensor& x) { return alias(x, x.shape()); }

}  // namespace smelt
