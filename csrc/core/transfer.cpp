#include "core/transfer.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/launch.h"

namespace smelt {
namespace {

constexpr size_t kAlignment = 64;
size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

Readout::~Readout() {
  if (!memory_) return;
  try {
    arrived_.wait();
  } catch (const Error&) {  // the device is gone, and writes no more
  }
  backend(device_.kind).module->release_pinned(memory_);
}

void Readout::reserve(const std::vector<Tensor>& tensors) {
  const Backend& b = backend(device_);
  size_t bytes = 0;
  for (const Tensor& x : tensors) bytes += aligned(static_cast<size_t>(x.nbytes()));
  if (bytes <= bytes_) return;
  arrived_.wait();  // a copy may still be on its way into the memory
  if (memory_) b.module->release_pinned(memory_);
  bytes_ = 0;
  memory_ = b.module->allocate_pinned(bytes);
  if (!memory_) fail(ErrorKind::memory, "read-out", "cannot allocate ", bytes, " bytes of pinned memory of the host");
  bytes_ = bytes;
}

void Readout::start(const std::vector<Tensor>& tensors) {
  const OpScope scope("read-out");
  reserve(tensors);
  arrived_.wait();
  taken_ = tensors;
  char* to = static_cast<char*>(memory_);
  for (const Tensor& x : tensors) {
    backend(device_).read_out(device_, to, x.data(), static_cast<size_t>(x.nbytes()));
    to += aligned(static_cast<size_t>(x.nbytes()));
  }
  arrived_.record();
}

std::vector<Tensor> Readout::values() {
  {
    const WithoutInterpreterLock unlocked(true);
    arrived_.wait();
  }
  std::vector<Tensor> values;
  const char* from = static_cast<const char*>(memory_);
  for (const Tensor& x : taken_) {
    Tensor y = Tensor(make_ref<TensorImpl>(Storage::allocate(static_cast<size_t>(x.nbytes()), Device{}), 0, x.shape(), x.dtype()));
    std::memcpy(y.data(), from, static_cast<size_t>(x.nbytes()));
    y.impl()->transposed = x.transposed();
    from += aligned(static_cast<size_t>(x.nbytes()));
    values.push_back(std::move(y));
  }
  taken_.clear();
  return values;
}

// A slot that was read long ago, if there is one: waiting for it costs nothing. None where all are in somebody's hands.
Uploader::Slot* Uploader::slot_for(size_t bytes) {
  Slot* found = nullptr;
  size_t of_size = 0;
  for (const auto& slot : slots_) {
    if (slot->memory->bytes() != bytes) continue;
    ++of_size;
    if (slot->free && !found) found = slot.get();
  }
  for (const auto& slot : slots_) {  // those that somebody held when the last tensor was uploaded
    if (slot->free || slot->memory->use_count() > 1) continue;
    slot->read.record();
    slot->free = true;
    if (!found && of_size >= kSlots && slot->memory->bytes() == bytes) found = slot.get();
  }
  if (found || of_size >= kSlots) return found;
  if (slots_.size() >= 4 * kSlots) std::erase_if(slots_, [](const auto& slot) { return slot->free; });
  if (slots_.size() >= 4 * kSlots) return nullptr;
  auto fresh = std::make_unique<Slot>(device_);
  fresh->memory = Storage::allocate(bytes, device_);
  fresh->read.record();  // kernels may still be at work in memory that was handed out again
  return slots_.emplace_back(std::move(fresh)).get();
}

Tensor Uploader::upload(const Tensor& x) {
  const OpScope scope("upload");
  const auto bytes = static_cast<size_t>(x.nbytes());
  Slot* const slot = slot_for(bytes);
  // From here on others see that it is held.
  const Tensor y(make_ref<TensorImpl>(slot ? slot->memory : Storage::allocate(bytes, device_), 0, x.shape(), x.dtype()));
  std::unique_ptr<Event> own;
  if (!slot) {
    own = std::make_unique<Event>(device_);
    own->record();
  }
  Event& event = slot ? slot->read : *own;
  if (slot) slot->free = false;
  event.hold_back(StreamKind::copy);
  {
    const WithoutInterpreterLock unlocked(bytes > (size_t{1} << 20));
    backend(device_).upload(device_, y.data(), x.data(), bytes);
  }
  event.record(StreamKind::copy);
  event.hold_back(StreamKind::compute);
  return y;
}

}  // namespace smelt
