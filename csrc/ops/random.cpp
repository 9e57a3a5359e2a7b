// Random tensors and dropout. Each call takes the counters after those of the calls before it; a step's end adds what
// the step has drawn to the generator's offset in memory, so a step's calls have the same constants every time.
#include <mutex>

#include "ops/common.h"

namespace smelt {
namespace {

struct Generator {
  std::mutex mutex;
  Ref<Storage> memory;
  uint64_t drawn = 0;  // counters taken since the last advance

  GeneratorState* state() {
    if (!memory) {
      const bool dry = dry_run::active();
      dry_run::set_active(false);
      const recording::Paused paused;
      memory = Storage::allocate(sizeof(GeneratorState), Device{});
      dry_run::set_active(dry);
      *reinterpret_cast<GeneratorState*>(memory->data()) = {0, 0};
    }
    return reinterpret_cast<GeneratorState*>(memory->data());
  }
};

Generator& generator() {
  static Generator* const g = new Generator;
  return *g;
}

void take_counters(int64_t count) {
  const std::lock_guard lock(generator().mutex);
  generator().drawn += static_cast<uint64_t>(count);
}

// Reserves the counters for n elements; gives the generator's memory and the call's constant.
std::pair<GeneratorState*, uint64_t> reserve(int64_t n) {
  Generator& g = generator();
  std::lock_guard lock(g.mutex);
  GeneratorState* state = g.state();
  const uint64_t counter = g.drawn;
  const int64_t count = (n + 3) / 4;
  recording::host([](RefCounted*, int64_t drawn) { take_counters(drawn); }, nullptr, count);
  if (!dry_run::active() && !recording::walking()) g.drawn += static_cast<uint64_t>(count);
  return {state, counter};
}

struct DropoutNode final : Node {
  DropoutNode(double probability, uint64_t position) : Node("dropout"), p(probability), absolute(position) {}
  void backward(GradContext& g) override {
    const Tensor dy = g.dy();
    const GradTarget dx = g.target(0);
    GeneratorState* state = generator().state();
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
  Generator& g = generator();
  std::lock_guard lock(g.mutex);
  const GeneratorState state = *g.state();
  return {state.seed, state.offset + g.drawn};
}

void set_generator_state(GeneratorState state) {
  recording::refuse("it seeds the random generator");
  Generator& g = generator();
  std::lock_guard lock(g.mutex);
  *g.state() = state;
  g.drawn = 0;
}

void discard_random() {
  const std::lock_guard lock(generator().mutex);
  generator().drawn = 0;
}

void advance_generator() {
  const HostWork advance = [](RefCounted*, int64_t) {
    Generator& g = generator();
    std::lock_guard lock(g.mutex);
    g.state()->offset += g.drawn;
    g.drawn = 0;
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
