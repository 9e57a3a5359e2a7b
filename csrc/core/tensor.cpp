#include "core/tensor.h"

#include "core/error.h"
#include "core/launch.h"
#include "tape/leaf.h"
#include "tape/node.h"

namespace smelt {

TensorImpl::TensorImpl(Ref<Storage> storage_in, int64_t offset_in, Shape shape_in, DType dtype_in)
    : storage(std::move(storage_in)), offset(offset_in), shape(shape_in), dtype(dtype_in) {}

TensorImpl::~TensorImpl() = default;

Tensor empty(const Shape& shape, DType dtype, Device device) {
  int64_t bytes = dtype_size(dtype);
  for (int64_t extent : shape) {
    require(extent >= 0, current_op(), "extents must not be negative, got shape ", shape);
    if (__builtin_mul_overflow(bytes, extent, &bytes))
      fail(ErrorKind::memory, current_op(), "shape ", shape, " has more bytes than an address can count");
  }
  return Tensor(make_ref<TensorImpl>(Storage::allocate(static_cast<size_t>(bytes), device), 0, shape, dtype));
}

Tensor alias(const Tensor& x, const Shape& shape, int64_t offset) {
  auto impl = make_ref<TensorImpl>(x.impl()->storage, x.impl()->offset + offset * dtype_size(x.dtype()), shape,
                                   x.dtype());
  impl->transposed = x.transposed() && shape == x.shape();
  return Tensor(impl);
}

}  // namespace smelt
