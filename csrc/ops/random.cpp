// Random tensors and dropout. Each call takes the counters after those of the calls before it, as a constant relative to the
// offset in memory; a step's end moves the offset on, so a step's calls have the same constants every time.
#include <mutex>

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
  Ref<Storage> memory;
  uint64_t seeding = 0;
  uint64_t drawn = 0;  // since the offset was moved

  GeneratorState& state() {  // with the sequence's mutex
    if (!memory) {
      const bool dry = dry_run::active();
      dry_run::set_active(false);
      const recording::Paused paused;
      memory = Storage::allocate(sizeof(GeneratorState), Device{});
      dry_run::set_active(dry);
    }
    auto& state = *reinterpret_cast<GeneratorState*>(memory->data());
    if (seeding != sequence().seeding) {
      state = {sequence().seed, sequence().next};
      seeding = sequence().seeding;
      drawn = 0;
    }
    return state;
  }
};
thread_local ThreadGenerator t_generator;

GeneratorState* thread_state() {
  const std::lock_guard lock(sequence().mutex);
  return &t_generator.state();
}

void take_counters(RefCounted*, int64_t count) {
  const std::lock_guard lock(sequence().mutex);
  sequence().next += static_cast<uint64_t>(count);
  t_generator.drawn += static_cast<uint64_t>(count);
}

// Reserves the counters for n elements; gives the generator's memory and the call's constant.
std::pair<GeneratorState*, uint64_t> reserve(int64_t n) {
  GeneratorState* const state = thread_state();
  uint64_t counter = 0;
  {
    const std::lock_guard lock(sequence().mutex);
    counter = sequence().next - state->offset;
  }
  const int64_t count = (n + 3) / 4;
  if (Recording* r = recording::current()) {
    const HostCheck same_thread = [](RefCounted* memory, int64_t) { return memory == t_generator.memory.get(); };
    r->guard(same_thread, t_generator.memory.get(), 0);
    r->host(take_counters, nullptr, count, false);
  }
  if (!dry_run::active() && !recording::walking()) take_counters(nullptr, count);
  return {state, counter};
}

struct DropoutNode final : Node {
  DropoutNode(double probability, uint64_t position) : Node("dropout"), p(probability), absolute(position) {}
  void backward(GradContext& g) override {
    const Tensor dy = g.dy();
    const GradTarget dx = g.target(0);
    GeneratorState* const state = thread_state();
    launch(DropoutArgs{.generator = state, .x = dy.data(), .y = dx.tensor.data(), .n = dy.numel(),
                       .counter = absolute - state->offset, .p = p, .dtype = dy.dtype(), .accumulate = dx.accumulate},
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
    t_generator.state().offset = sequence().next;
    t_generator.drawn = 0;
  };
  recording::perform(advance, nullptr);
}

Tensor random(const Shape& shape, RandomKind kind, Scalar a, Scalar b, DType dtype, Device device) {
  OpScope scope("random");
  Tensor y = empty(shape, dtype, Device{});  // drawn on the CPU and copied, so that every device gets the same
  const auto [state, counter] = reserve(y.numel());
  launch(RandomArgs{.generator = state, .y = y.data(), .n = y.numel(), .counter = counter, .a = a, .b = b,
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
  const auto [state, counter] = reserve(x.numel());
  launch(DropoutArgs{.generator = state, .x = x.data(), .y = y.data(), .n = x.numel(), .counter = counter, .p = p,
                     .dtype = x.dtype(), .accumulate = false},
         x.device());
  if (needs_grad(x)) attach(make_ref<DropoutNode>(p, state->offset + counter), {&x}, {&y});
  return y;
}

}  // namespace smelt
