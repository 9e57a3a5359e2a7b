#include "core/event.h"

#include "core/error.h"

namespace smelt {

Event::Event(Device device) : device_(device), module_(backend(device).module) {
  if (!module_) fail(ErrorKind::value, "Event", "must be of a GPU, got ", device);
  event_ = module_->make_event(device.index);
  if (!event_) fail_with_reason();
}
Event::~Event() { module_->release_event(event_); }

void Event::fail_with_reason() const { fail(ErrorKind::runtime, "Event", device_, " reported: ", module_->error()); }

void Event::record(StreamKind on) {
  if (!module_->record_event(device_.index, on, event_)) fail_with_reason();
  recorded_ = true;
}

void Event::hold_back(StreamKind stream) const {
  if (recorded_ && !module_->stream_wait(device_.index, stream, event_)) fail_with_reason();
}

bool Event::is_done() const {
  bool done = false;
  if (!module_->event_done(event_, &done)) fail_with_reason();
  return done;
}

void Event::wait() const {
  if (!module_->wait_event(event_)) fail_with_reason();
}

double Event::seconds_until(const Event& later) const {
  if (device_ != later.device_) fail(ErrorKind::value, "Event", "both must be of one device, got ", device_, " and ", later.device_);
  if (!recorded_ || !later.recorded_) fail(ErrorKind::value, "Event", "both must have been recorded");
  wait();
  later.wait();
  double seconds = 0;
  if (!module_->event_seconds(event_, later.event_, &seconds)) fail_with_reason();
  return seconds;
}

uintptr_t stream_handle(Device device, StreamKind kind) {
  return reinterpret_cast<uintptr_t>(backend(device).module->stream(device.index, kind));
}

void synchronize_stream(Device device, StreamKind kind) {
  const Backend& b = backend(device);
  if (!b.module->synchronize(device.index, kind)) b.fail_in();
  if (kind == StreamKind::compute) b.raise_fault(device);
}

}  // namespace smelt
