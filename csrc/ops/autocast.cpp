#include "ops/autocast.h"

#include <mutex>

#include "ops/common.h"

namespace smelt {
namespace {

thread_local DType t_low = DType::float32;

// Whether x is seen as the whole of its memory, whose content outlives a step.
bool is_parameter(const Tensor& x) {
  const bool kept = x.storage().base() || (!x.impl()->grad_fn && x.requires_grad());
  return kept && x.storage().may_have_mirror() && x.impl()->offset == 0 &&
         static_cast<size_t>(x.nbytes()) == x.storage().bytes();
}

Tensor mirror_of(const Tensor& x) {
  static std::mutex* const mutex = new std::mutex;  // never destroyed: a thread may still run at the program's end
  Storage& storage = x.storage();
  if (Recording* r = recording::current()) {
    if (r->walking()) {
      const Ref<Storage> nothing = Storage::placeholder(static_cast<size_t>(x.nbytes()) / 2, x.device());
      Tensor low(make_ref<TensorImpl>(nothing, 0, x.shape(), DType::bfloat16));
      low.impl()->transposed = x.transposed();
      return low;
    }
    const HostCheck current = [](RefCounted* object, int64_t) { return static_cast<Storage*>(object)->mirror_is_current(); };
    if (storage.mirror_is_current()) r->guard(current, &storage, 0);
  }
  if (!storage.mirror_is_current()) {
    // First the interpreter's lock is let go: a kernel may do so too, and nobody may hold it who waits here.
    const WithoutInterpreterLock unlocked(true);
    const std::lock_guard lock(*mutex);
    if (!storage.mirror_is_current()) {
      const auto [memory, offset] = storage.mirror();
      launch(CastArgs{.x = x.data(), .y = memory->data() + offset, .n = x.numel(), .from = x.dtype(), .to = DType::bfloat16},
             x.device());
      storage.mark_mirror();
    }
  }
  const auto [memory, offset] = storage.mirror();
  Tensor mirror(make_ref<TensorImpl>(memory, static_cast<int64_t>(offset), x.shape(), DType::bfloat16));
  mirror.impl()->transposed = x.transposed();
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

DType working_dtype(const Tensor& x) { return x.dtype() == DType::float32 ? t_low : x.dtype(); }

Tensor working(const Tensor& x) {
  if (!x || working_dtype(x) == x.dtype()) return x;
  if (dry_run::active()) return empty(x.shape(), t_low, x.device());
  if (is_parameter(x)) return mirror_of(x);
  NoGrad no_grad;
  return cast(x, t_low);
}

void require_one_dtype(const char* op, const char* what, const Tensor& x, const char* other, const Tensor& y) {
  require_type(working_dtype(x) == working_dtype(y), op, what, " is ", x.dtype(), ", ", other, " is ", y.dtype(),
               ": both must have one dtype");
}

Saved save_working(const Tensor& low, const Tensor& x) {
  return low.dtype() != x.dtype() && is_parameter(x) ? Saved::mirror(low, x) : Saved(low);
}

}  // namespace smelt
