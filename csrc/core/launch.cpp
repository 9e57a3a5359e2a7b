#include "core/launch.h"

#include <atomic>
#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <utility>

#include "core/float_environment.h"
#include "core/recording.h"
#include "core/thread_pool.h"
#include "cpu/cpu_info.h"

namespace smelt {
namespace {

thread_local const char* t_op = "smelt";
thread_local std::string t_forced;
thread_local LaunchObserver* t_observer = nullptr;
thread_local bool t_dry = false;
thread_local std::vector<std::string> t_notes;

// Above this much estimated work other Python threads may run meanwhile; below, handing the lock back costs more.
constexpr double kReleaseNs = 100e3;

Isa initial_isa() {
  const char* text = std::getenv("SMELT_MAX_ISA");
  return text && *text ? std::min(parse_isa(text), cpu::detected_isa()) : cpu::detected_isa();
}

Isa& isa_setting() {
  static Isa isa = initial_isa();
  return isa;
}

bool allowed(const Candidate& c) { return c.isa <= isa_setting(); }

[[noreturn]] void no_kernel(int slot, const void* args, Device device) {
  std::string impl;
  if (!t_forced.empty()) {
    std::string others;
    for (const Candidate& c : backend(device).table.candidates(slot))
      if (allowed(c) && (!c.supports || c.supports(args, device))) others += cat(others.empty() ? "" : ", ", c.name);
    impl = cat(" with impl='", t_forced, "'; ", others.empty() ? "no other takes them" : "these take them: ", others);
  }
  fail(ErrorKind::runtime, t_op, "no ", backend(device.kind).name, " kernel for these arguments in slot '",
       slot_info(slot).name, "'", impl);
}

// Lengths are counts of keys, which may be all of them; the others are positions.
std::string range_of(std::string_view what, int64_t low, int64_t high) {
  if (what == "lengths") return cat("from ", low, " to ", high - 1, " (the keys)");
  return cat("in [", low, ", ", high, ")");
}

}  // namespace

void raise(Status status, int slot, const void* args, const Context& context) {
  const auto [position, value] = context.detail;
  if (status == Status::index_out_of_range && slot == slot_of<CheckIndexArgs>) {
    const auto& a = *static_cast<const CheckIndexArgs*>(args);
    fail(ErrorKind::index, t_op, a.what, " must be ", range_of(a.what, a.low, a.high), ", got ", value, " at position ",
         position);
  }
  if (status == Status::index_out_of_range)
    fail(ErrorKind::index, t_op, "index ", value, " at position ", position, " is out of range");
  const DeviceModule* module = backend(context.device).module;
  fail(ErrorKind::runtime, t_op, "kernel of slot '", slot_info(slot).name, "' failed", module ? ": " : "", module ? module->error() : "");
}

namespace {
struct Check {
  const char *op, *what;
  int64_t low, high;
  bool operator==(const Check&) const = default;
};
std::mutex g_checks_mutex;
std::vector<Check> g_checks;
}  // namespace

int64_t fault_ticket(const char* what, int64_t low, int64_t high) {
  const std::lock_guard lock(g_checks_mutex);
  const Check check{t_op, what, low, high};
  auto found = std::find(g_checks.begin(), g_checks.end(), check);
  if (found == g_checks.end()) found = g_checks.insert(found, check);
  return found - g_checks.begin() + 1;
}

void raise_fault(const DeviceFault& fault) {
  const std::lock_guard lock(g_checks_mutex);
  if (fault.ticket < 1 || fault.ticket > static_cast<int64_t>(g_checks.size()))
    fail(ErrorKind::runtime, current_op(), "the device reported a fault without a name, ", fault.ticket);
  const Check& c = g_checks[static_cast<size_t>(fault.ticket - 1)];
  fail(ErrorKind::index, c.op, c.what, " must be ", range_of(c.what, c.low, c.high), ", got ", fault.value, " at position ",
       fault.position);
}

bool fits_impl(std::string_view name, std::string_view impl) {
  return name.starts_with(impl) || (name.ends_with(impl) && name[name.size() - impl.size() - 1] == '_');
}

const Candidate* find_candidate(int slot, const void* args, Device device) {
  const std::span<const Candidate> candidates = backend(device).table.candidates(slot);
  bool named = false;  // a slot without the name chooses as ever
  if (!t_forced.empty()) [[unlikely]] {
    for (const Candidate& c : candidates) {
      if (t_forced == c.name) return allowed(c) && (!c.supports || c.supports(args, device)) ? &c : nullptr;
      named = named || fits_impl(c.name, t_forced);
    }
  }
  for (const Candidate& c : candidates)
    if (allowed(c) && (!named || fits_impl(c.name, t_forced)) && (!c.supports || c.supports(args, device))) return &c;
  return nullptr;
}

Context device_context(Device device) {
  Context context;
  context.device = device;
  context.threads = num_threads();
  context.parallel = parallel;
  if (const DeviceModule* module = backend(device).module) {
    context.stream = module->stream(device.index, StreamKind::compute);
    context.fault = module->fault(device.index);
    context.tf32 = tf32();
  }
  return context;
}

void launch(int slot, const void* args, Device device) {
  if (t_dry) return;
  const Candidate* c = find_candidate(slot, args, device);
  if (!c) no_kernel(slot, args, device);
  if (t_observer) t_observer->launched(slot, args, device, *c);
  if (Recording* recording = recording::current()) [[unlikely]] {
    recording->launched(slot, args, device, *c);
    if (recording->walking()) return;
  }

  Context context = device_context(device);
  const size_t bytes = c->workspace ? c->workspace(args, context.threads) : 0;
  if (bytes) context.workspace = allocate(device, bytes);
  Status status;
  {
    // Elsewhere than on the CPU a launch only hands the work over.
    WithoutInterpreterLock unlocked(device.kind == DeviceKind::cpu && slot_info(slot).ns(args) > kReleaseNs);
    FloatEnvironment environment;
    status = c->run(args, context);
  }
  if (t_observer) t_observer->finished();
  if (bytes) release(device, context.workspace, bytes);
  if (status != Status::ok) raise(status, slot, args, context);
}

const char* current_op() { return t_op; }
OpScope::OpScope(const char* op) : previous_(t_op) { t_op = op; }
OpScope::~OpScope() { t_op = previous_; }

void force_impl(const std::string& name) { t_forced = name; }
const std::string& forced_impl() { return t_forced; }

static std::atomic<bool> g_tf32{false};
bool tf32() { return g_tf32; }
void set_tf32(bool on) { g_tf32 = on; }

Isa max_isa() { return isa_setting(); }

void set_max_isa(Isa isa) {
  require(isa <= cpu::detected_isa(), "set_max_isa", "this CPU has instruction sets up to '",
          isa_name(cpu::detected_isa()), "', got '", isa_name(isa), "'");
  isa_setting() = isa;
}

const char* isa_name(Isa isa) {
  static const char* const kNames[] = {"portable", "avx2", "avx512", "avx512bf16", "amx"};
  return kNames[static_cast<int>(isa)];
}

Isa parse_isa(const std::string& name) {
  for (Isa isa : {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512bf16, Isa::amx})
    if (name == isa_name(isa)) return isa;
  fail(ErrorKind::value, "SMELT_MAX_ISA", "must be portable, avx2, avx512, avx512bf16 or amx, got '", name, "'");
}

LaunchObserver*& launch_observer() { return t_observer; }

InterpreterLock& interpreter_lock() {
  static InterpreterLock lock;
  return lock;
}

WithoutInterpreterLock::WithoutInterpreterLock(bool release) {
  if (release && interpreter_lock().release) state_ = interpreter_lock().release();
}
WithoutInterpreterLock::~WithoutInterpreterLock() {
  if (state_) interpreter_lock().acquire(state_);
}

namespace dry_run {
bool active() { return t_dry; }
void set_active(bool on) { t_dry = on; }
void note(const std::string& message) { t_notes.push_back(message); }
std::vector<std::string> take_notes() { return std::exchange(t_notes, {}); }
}  // namespace dry_run

}  // namespace smelt
