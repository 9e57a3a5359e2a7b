// The one way from an op to a kernel: every call is (slot, plain-data arguments, device).
#pragma once
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/error.h"

namespace smelt {

// Chooses the first candidate that supports the arguments and runs it. In check mode nothing runs.
void launch(int slot, const void* args, Device device);
template <class Args>
void launch(const Args& args, Device device) {
  launch(slot_of<Args>, &args, device);
}
// What every kernel of a device gets, but for its workspace.
Context device_context(Device device);
// Whether some candidate would run these arguments; an op without one uses its composition.
template <class Args>
bool supported(const Args& args, Device device);
const Candidate* find_candidate(int slot, const void* args, Device device);
template <class Args>
bool supported(const Args& args, Device device) {
  return find_candidate(slot_of<Args>, &args, device) != nullptr;
}
// A check on a device that runs behind the host: the number by which its fault is known later, and the error that it becomes.
int64_t fault_ticket(const char* what, int64_t low, int64_t high);
[[noreturn]] void raise_fault(const DeviceFault& fault);
[[noreturn]] void raise(Status status, int slot, const void* args, const Context& context);

// The op at work on this thread, for messages of the layers below.
const char* current_op();
class OpScope {
 public:
  explicit OpScope(const char* op);
  ~OpScope();
  OpScope(const OpScope&) = delete;
  OpScope& operator=(const OpScope&) = delete;

 private:
  const char* previous_;
};

// Restricts this thread's choice to a candidate by its full name, or to those whose name begins or ends so ("avx2", "direct").
// Slots in which nothing has the name choose as ever. Empty: no restriction.
void force_impl(const std::string& name);
bool fits_impl(std::string_view name, std::string_view impl);
const std::string& forced_impl();
// Whether float32 products on a GPU may round their operands to TF32 (10 bits of mantissa). The CPU's are always exact.
bool tf32();
void set_tf32(bool on);
// The highest instruction set in use: the CPU's, lowered by SMELT_MAX_ISA or set_max_isa().
Isa max_isa();
void set_max_isa(Isa isa);  // ValueError above what the CPU has
const char* isa_name(Isa isa);
Isa parse_isa(const std::string& name);

// Sees every launch of the thread that installed it.
class LaunchObserver {
 public:
  virtual ~LaunchObserver() = default;
  virtual void launched(int slot, const void* args, Device device, const Candidate& candidate) = 0;
  virtual void finished() {}
};
LaunchObserver*& launch_observer();

// The Python interpreter's lock, seen from code that knows no Python: set once by the bindings.
struct InterpreterLock {
  void* (*release)() = nullptr;          // null when this thread does not hold it
  void (*acquire)(void* state) = nullptr;
  void (*check_signals)() = nullptr;     // runs handlers of signals that have come, and raises what they raise
};
InterpreterLock& interpreter_lock();
class WithoutInterpreterLock {
 public:
  explicit WithoutInterpreterLock(bool release);
  ~WithoutInterpreterLock();
  WithoutInterpreterLock(const WithoutInterpreterLock&) = delete;
  WithoutInterpreterLock& operator=(const WithoutInterpreterLock&) = delete;

 private:
  void* state_ = nullptr;
};

// Check mode: ops run their shape rules on tensors without memory.
namespace dry_run {
bool active();
void set_active(bool on);
void note(const std::string& message);
std::vector<std::string> take_notes();

// Runs the requirements of an op. In check mode a failure is noted and false comes back, so that the op can return
// the shape that its weight implies and the walk goes on; otherwise the error passes through.
template <class F>
bool holds(F&& requirements) {
  if (!active()) [[likely]] {
    requirements();
    return true;
  }
  try {
    requirements();
    return true;
  } catch (const Error& error) {
    note(error.what());
    return false;
  }
}
}  // namespace dry_run

}  // namespace smelt
