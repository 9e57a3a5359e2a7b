#include "core/storage.h"

#include <cstring>

#include "core/backend.h"
#include "core/error.h"
#include "core/launch.h"

namespace smelt {

Ref<Storage> Storage::allocate(size_t bytes, Device device) {
  Ref<Storage> storage(new Storage);
  storage->bytes_ = bytes;
  storage->device_ = device;
  if (dry_run::active()) return storage;
  storage->data_ = static_cast<char*>(backend(device).allocator->allocate(bytes));
  storage->owned_ = true;
  if (!storage->data_) {
    storage->owned_ = false;
    fail(ErrorKind::memory, current_op(), "cannot allocate ", bytes, " bytes on ", device);
  }
  return storage;
}

Ref<Storage> Storage::wrap(void* data, size_t bytes, Device device, std::function<void()> done) {
  Ref<Storage> storage(new Storage);
  storage->data_ = static_cast<char*>(data);
  storage->bytes_ = bytes;
  storage->device_ = device;
  storage->done_ = std::move(done);
  return storage;
}

Storage::~Storage() { give_back(); }

void Storage::give_back() {
  if (owned_) backend(device_).allocator->release(data_, bytes_);
  if (done_) done_();
  owned_ = false;
  done_ = nullptr;
}

std::pair<Ref<Storage>, size_t> Storage::mirror() {
  Storage& whole = base_ ? *base_ : *this;
  if (!whole.mirror_) whole.mirror_ = allocate(whole.bytes_ / 2, device_);
  whole.mirror_used_.store(true);
  return {whole.mirror_, static_cast<size_t>(data_ - whole.data_) / 2};
}

void Storage::move_into(const Ref<Storage>& base, size_t offset) {
  char* target = base->data() + offset;
  backend(device_).copy(target, data_, bytes_);
  const uint64_t version = this->version();
  give_back();
  data_ = target;
  base_ = base;
  mirror_used_.store(false);
  mirror_ = nullptr;
  mirror_version_.store(kNever);
  version_.store(version + 1 - base->version());  // the sum counts on, modulo 2^64
}

void Storage::move_out() {
  const uint64_t version = this->version();
  auto* own = static_cast<char*>(backend(device_).allocator->allocate(bytes_));
  if (!own) fail(ErrorKind::memory, current_op(), "cannot allocate ", bytes_, " bytes on ", device_);
  backend(device_).copy(own, data_, bytes_);
  data_ = own;
  owned_ = true;
  base_ = nullptr;
  mirror_version_.store(kNever);
  version_.store(version + 1);
}

}  // namespace smelt
