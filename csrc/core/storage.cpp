#include "core/storage.h"

#include <cstring>

#include "core/backend.h"
#include "core/error.h"
#include "core/launch.h"

namespace smelt {
namespace {

// Addresses beyond those of any process.
std::atomic<uintptr_t> g_placeholder{uintptr_t{1} << 56};

}  // namespace

Ref<Storage> Storage::allocate(size_t bytes, Device device) {
  Ref<Storage> storage(new Storage);
  storage->bytes_ = bytes;
  storage->device_ = device;
  if (dry_run::active()) return storage;
  Recording* const recording = recording::current();
  if (recording && recording->walking()) {
    storage = placeholder(bytes, device);
    recording->allocated(*storage);
    return storage;
  }
  storage->data_ = static_cast<char*>(smelt::allocate(device, bytes));
  storage->owned_ = true;
  if (recording) recording->allocated(*storage);
  return storage;
}

Ref<Storage> Storage::placeholder(size_t bytes, Device device) {
  Ref<Storage> storage(new Storage);
  storage->bytes_ = bytes;
  storage->device_ = device;
  storage->owned_ = storage->placeholder_ = true;
  storage->data_ = reinterpret_cast<char*>(g_placeholder.fetch_add((bytes + 4096) / 64 * 64));
  return storage;
}

Ref<Storage> Storage::wrap(void* data, size_t bytes, Device device, std::function<void()> done) {
  recording::refuse("it takes in memory from outside, such as a NumPy array, that is not one of its arguments");
  Ref<Storage> storage(new Storage);
  storage->data_ = static_cast<char*>(data);
  storage->bytes_ = bytes;
  storage->device_ = device;
  storage->done_ = std::move(done);
  return storage;
}

Storage::~Storage() {
  if (Recording* r = recording::current()) r->freed(*this);
  give_back();
}

bool Storage::bump_is_recorded(Recording& r) {
  if (r.owns(*this)) return false;
  r.host([](RefCounted* object, int64_t) { static_cast<Storage*>(object)->bump_version(); }, this, 0, true);
  return r.walking();
}

void Storage::give_back() {
  if (owned_ && !placeholder_) smelt::release(device_, data_, bytes_);
  if (done_) done_();
  owned_ = false;
  done_ = nullptr;
}

std::pair<Ref<Storage>, size_t> Storage::mirror() {
  Storage& whole = base_ ? *base_ : *this;
  recording::host([](RefCounted* object, int64_t) { static_cast<Storage*>(object)->mirror(); }, &whole);
  if (!whole.mirror_) {
    const recording::Paused paused;
    whole.mirror_ = allocate(whole.bytes_ / 2, device_);
  }
  whole.mirror_used_.store(true);
  return {whole.mirror_, static_cast<size_t>(data_ - whole.data_) / 2};
}

void Storage::move_into(const Ref<Storage>& base, size_t offset) {
  if (recorded()) recording::change_layout();
  char* target = base->data() + offset;
  backend(device_).copy(device_, target, data_, bytes_);
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
  if (recorded()) recording::change_layout();
  const uint64_t version = this->version();
  auto* own = static_cast<char*>(smelt::allocate(device_, bytes_));
  backend(device_).copy(device_, own, data_, bytes_);
  data_ = own;
  owned_ = true;
  base_ = nullptr;
  mirror_version_.store(kNever);
  version_.store(version + 1);
}

}  // namespace smelt
