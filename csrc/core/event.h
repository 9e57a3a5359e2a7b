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

  void record();
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

}  // namespace smelt
