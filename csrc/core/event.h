// A moment in what a device does.
#pragma once
#include "core/backend.h"

namespace smelt {

class Event {
 public:
  explicit Event(Device device);  // ValueError on the CPU, which is never behind
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(StreamKind on = StreamKind::compute);
  void hold_back(StreamKind stream) const;  // what the stream does later comes after this moment
  bool is_done() const;
  void wait() const;
  // From this moment to a later one of the same device, which is waited for.
  double seconds_until(const Event& later) const;

 private:
  [[noreturn]] void fail_with_reason() const;

  const Device device_;
  const DeviceModule* const module_;
  void* event_ = nullptr;
  bool recorded_ = false;
};

// A device's stream, for other libraries that are given work on it.
uintptr_t stream_handle(Device device, StreamKind kind);
void synchronize_stream(Device device, StreamKind kind);

}  // namespace smelt
