// Tensors on their way between the host and a device that computes meanwhile.
#pragma once
#include <cstddef>
#include <memory>
#include <vector>

#include "core/event.h"
#include "core/tensor.h"

namespace smelt {

// Values of a device's tensors, brought to the host behind the kernels that make them. Used again and again: its memory stays.
// What kernels have found wrong is not looked at: others may be at work by then.
class Readout {
 public:
  explicit Readout(Device device) : device_(device), arrived_(device) {}
  ~Readout();
  Readout(const Readout&) = delete;
  Readout& operator=(const Readout&) = delete;

  // Room for tensors of these shapes and dtypes; then start() cannot fail for want of it.
  void reserve(const std::vector<Tensor>& tensors);
  // Begins to copy the tensors; what was there before is gone.
  void start(const std::vector<Tensor>& tensors);
  // Waits, and gives them as tensors of the CPU.
  std::vector<Tensor> values();

 private:
  const Device device_;
  Event arrived_;
  void* memory_ = nullptr;  // pinned
  size_t bytes_ = 0;
  std::vector<Tensor> taken_;  // shapes and dtypes, and the memory until it was read
};

// Brings tensors to a device on its copy stream, while kernels run. Each goes into memory that no step in progress reads.
class Uploader {
 public:
  explicit Uploader(Device device) : device_(device) {}

  // The tensor on the device, in place for every kernel launched from now on.
  Tensor upload(const Tensor& x);

 private:
  struct Slot {
    explicit Slot(Device device) : read(device) {}
    Ref<Storage> memory;
    Event read;         // the last kernel that could read it
    bool free = false;  // nobody holds it, and `read` was recorded since
  };
  Slot* slot_for(size_t bytes);

  static constexpr size_t kSlots = 8;  // of one size: where these are in somebody's hands, a tensor gets memory for itself
  const Device device_;
  std::vector<std::unique_ptr<Slot>> slots_;
};

}  // namespace smelt
