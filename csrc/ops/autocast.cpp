#include "ops/autocast.h"

#include <mutex>

#include "ops/common.h"

namespace smelt {
namespace {

thread_local DType t_low = DType::float32;

// Whether x is seen as the whole of its memory, whose content outlives a step.
bool is_parameter(const Tensor& x) {
  const bool kept = x.storage().base() || (!x.impl()->grad_fn && x.requires_grad());
  return kept && x.impl()->offset == 0 && static_cast<size_t>(x.nbytes()) == x.storage().bytes();
}

Tensor mirror_of(const Tensor& x) {
  static std::mutex* const mutex = new std::mutex;  // never destroyed: a thread may still run at the program's end
  const std::lock_guard lock(*mutex);
  Storage& storage = x.storage();
  const auto [memory, offset] = storage.mirror();
  const Tensor mirror(make_ref<TensorImpl>(memory, static_cast<int64_t>(offset), x.shape(), DType::bfloat16));
  mirror.impl()->transposed = x.transposed();
  if (!storage.mirror_is_current()) {
    launch(CastArgs{.x = x.data(), .y = mirror.data(), .n = x.numel(), .from = x.dtype(), .to = DType::bfloat16}, x.device());
    storage.mark_mirror();
  }
  return mirror;
}

}  // namespace

DType autocast_dtype() { return t_low; }
void set_autocast_dtype(DType dtype) { t_low = dtype; }

Tensor in_float32(const Tensor& x) { return is_half(x.dtype()) ? cast(x, DType::float32) : x; }

DType common_dtype(DType a, DType b) {
  const bool mixed = t_low != DType::float32 && ((a == t_low && b == DType::float32) || (b == t_low && a == DType::float32));
  return mixed ? t_low : promote(a, b);
}

Tensor working(const Tensor& x) {
  if (t_low == DType::float32 || !x || x.dtype() != DType::float32) return x;
  if (dry_run::active()) return empty(x.shape(), t_low, x.device());
  if (is_parameter(x)) return mirror_of(x);
  NoGrad no_grad;
  return cast(x, t_low);
}

Saved save_working(const Tensor& low, const Tensor& x) {
  return low.dtype() != x.dtype() && is_parameter(x) ? Saved::mirror(low, x) : Saved(low);
}

}  // namespace smelt
