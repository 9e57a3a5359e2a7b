// Random tensors and dropout. Each call takes the counters after those of the calls before it, as a constant relative to the
// offset in memory; a step's end moves the offset on, so a step's calls have the same constants every time.
#include <mutex>
#include <vector>

#include "ops/common.h"

namespace smelt {
namespace {

// One sequence of counters for all threads.
struct Sequence {
  std::mutex mutex;
  uint64_t seed = 0, next = 0;
  uint64_t seeding = 1;  // counts how often it was set
};
Sequence& sequence() {
  static Sequence* const s = new Sequence;
  return *s;
}

// What the kernels of one thread read: the step of another thread must not move the offset under them.
struct ThreadGenerator {
  GeneratorState now{};
  std::vector<Ref<Storage>> memories;  // `now` on each device that has drawn
  uint64_t seeding = 0;
  uint64_t drawn = 0;  // since the offset was moved

  // All of these with the sequence's mutex.
  void set(GeneratorState state) {
    drawn = 0;
    if (state.seed == now.seed && state.offset == now.offset) return;  // every device has it
    now = state;
    for (const Ref<Storage>& memory : memories) write(*memory);
  }
  void write(Storage& memory) const {
    const recording::Paused paused;
    backend(memory.device()).from_host(memory.device(), memory.data(), &now, sizeof now);
  }
  void follow_seed() {
    if (seeding == sequence().seeding) return;
    set({sequence().seed, sequence().next});
    seeding = sequence().seeding;
  }
  Storage& on(Device device) {
    follow_seed();
    for (const Ref<Storage>& memory : memories)
      if (memory->device() == device) return *memory;
    const bool dry = dry_run::active();
    dry_run::set_active(false);
    const recording::Paused paused;
    memories.push_back(Storage::allocate(sizeof(GeneratorState), device));
    write(*memories.back());
    dry_run::set_active(dry);
    return *memories.back();
  }
};
thread_local ThreadGenerator t_generator;

GeneratorState* thread_state(Device device) {
  const std::lock_guard lock(sequence().mutex);
  return reinterpret_cast<GeneratorState*>(t_generator.on(device).data());
}

void take_counters(RefCounted*, int64_t count) {
  const std::lock_guard lock(sequence().mutex);
  sequence().next += static_cast<uint64_t>(count);
  t_generator.drawn += static_cast<uint64_t>(count);
}

// Counters for the elements of one call.
struct Reserved {
  GeneratorState* state;  // in the device's memory
  uint64_t counter;       // the call's constant
  uint64_t absolute() const { return t_generator.now.offset + counter; }
};
Reserved reserve(int64_t n, Device device) {
  Reserved r{thread_state(device), 0};
  Storage* memory = nullptr;
  {
    const std::lock_guard lock(sequence().mutex);
    r.counter = sequence().next - t_generator.now.offset;
    memory = &t_generator.on(device);
  }
  const int64_t count = (n + 3) / 4;
  if (Recording* recording = recording::current()) {
    const HostCheck same_thread = [](RefCounted* wanted, int64_t) {
      for (const Ref<Storage>& one : t_generator.memories)
        if (one.get() == wanted) return true;
      return false;
    };
    recording->guard(same_thread, memory, 0);
    recording->host(take_counters, nullptr, count, false);
  }
  if (!dry_run::active() && !recording::walking()) take_counters(nullptr, count);
  return r;
}

struct DropoutNode final : Node {
  DropoutNode(double probability, uint64_t position) : Node("dropout"), p(probability), absolute(position) {}
  void backward(GradContext& g) override {
    const Tensor dy = g.dy();
    const GradTarget dx = g.target(0);
    launch(DropoutArgs{.generator = thread_state(dy.device()), .x = dy.data(), .y = dx.tensor.data(), .n = dy.numel(),
                       .counter = absolute - t_generator.now.offset, .p = p, .dtype = dy.dtype(), .accumulate = dx.accumulate},
           dy.device());
  }
  double p;
  uint64_t absolute;  // the generator may have advanced since: modulo 2^64 the difference still leads there
};

}  // namespace

void manual_seed(uint64_t seed) { set_generator_state({seed, 0}); }

GeneratorState generator_state() {
  recording::read_value();
  const std::lock_guard lock(sequence().mutex);
  return {sequence().seed, sequence().next};
}

void set_generator_state(GeneratorState state) {
  recording::refuse("it seeds the random generator");
  Sequence& s = sequence();
  const std::lock_guard lock(s.mutex);
  s.seed = state.seed;
  s.next = state.offset;
  ++s.seeding;
}

void discard_random() {
  const std::lock_guard lock(sequence().mutex);
  sequence().next -= t_generator.drawn;
  t_generator.drawn = 0;
}

void advance_generator() {
  const HostWork advance = [](RefCounted*, int64_t) {
    const std::lock_guard lock(sequence().mutex);
    t_generator.follow_seed();
    t_generator.set({t_generator.now.seed, sequence().next});
  };
  const auto& memories = t_generator.memories;
  recording::perform(advance, nullptr, 0, true, memories);
}

Tensor random(const Shape& shape, RandomKind kind, Scalar a, Scalar b, DType dtype, Device device) {
  OpScope scope("random");
  Tensor y = empty(shape, dtype, Device{});  // drawn on the CPU and copied, so that every device gets the same
  const Reserved r = reserve(y.numel(), Device{});
  launch(RandomArgs{.generator = r.state, .y = y.data(), .n = y.numel(), .counter = r.counter, .a = a, .b = b,
                    .dtype = dtype, .kind = kind},
         Device{});
  return to_device(y, device);
}

Tensor dropout(const Tensor& x_in, double p) {
  OpScope scope("dropout");
  const Tensor x = dense(x_in);
  require_floating("dropout", "input", x);
  require(p >= 0 && p < 1, "dropout", "p must be in [0, 1), got ", p);
  Tensor y = empty(x.shape(), x.dtype(), x.device());
  const Reserved r = reserve(x.numel(), x.device());
  launch(DropoutArgs{.generator = r.state, .x = x.data(), .y = y.data(), .n = x.numel(), .counter = r.counter, .p = p,
                     .dtype = x.dtype(), .accumulate = false},
         x.device());
  if (needs_grad(x)) attach(make_ref<DropoutNode>(p, r.absolute()), {&x}, {&y});
  return y;
}

}  // namespace smelt
