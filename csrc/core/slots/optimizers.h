// Optimizers, and what probes the machine.
#pragma once
#include "core/slots/slot.h"

namespace smelt {

// ------------------------------------------------------------------------------------------------------- optimizers

constexpr int kMaxGroups = 60;

// What changes from step to step, in memory of the device, at most 4 KB: kernels read it, so a recorded step needs
// no new arguments. Bias corrections are computed in double on the host.
struct StepBlock {
  struct Group {
    double lr, weight_decay, eps;
    double beta1, beta2;  // SGD: momentum in beta1
    double inverse_bias_correction1, inverse_sqrt_bias_correction2;
    double reserved;
  };
  int64_t step;
  double grad_scale;  // clipping, multiplied into every gradient
  uint64_t skip;      // not 0: this step changes nothing
  Group group[kMaxGroups];
  // What follows is the kernels', from step to step.
  int64_t skipped;  // steps whose norm was not finite
  // The step whose loss was not finite, or that met a fault: nothing changes since then. 0 for none.
  int64_t failed;
  DeviceFault fault;
};
static_assert(sizeof(StepBlock) <= 4096);

// One parameter within a flat buffer.
struct Segment {
  int64_t offset, length;  // in elements; offset is a multiple of 64
  int32_t group;
  int32_t active;  // its gradient is filled
  bool operator==(const Segment&) const = default;
};

struct SumSquaresArgs {  // of the active segments
  SMELT_SLOT(SumSquaresArgs, "sum_squares");
  const void* grad;         // flat
  const Segment* segments;  // (count)
  double* sum;              // (1)
  int64_t count, size;      // segments; elements of the flat buffer
  int64_t active;           // elements of the active segments
  DType dtype;
  Work work() const {
    const double n = static_cast<double>(active);
    return {2 * n, 1.0 * n * dtype_size(dtype)};
  }
  static constexpr auto buffers() {
    return std::array{SMELT_KEPT_IN(SumSquaresArgs, grad), SMELT_KEPT_IN(SumSquaresArgs, segments),
                      BufferField{"sum", offsetof(SumSquaresArgs, sum), Access::out, true, -1}};
  }
};

struct GuardLossArgs {  // a step fails when its loss is not finite or a fault is there, which it takes; skip |= failed
  SMELT_SLOT(GuardLossArgs, "guard_loss");
  const void* loss;  // (1)
  StepBlock* block;  // inout
  DType dtype;
  static constexpr auto buffers() { return std::array{SMELT_IN(GuardLossArgs, loss), SMELT_KEPT_INOUT(GuardLossArgs, block)}; }
};

struct RestoreArgs {  // to = from, where block->failed
  SMELT_SLOT(RestoreArgs, "restore");
  const void* from;        // (bytes)
  void* to;                // (bytes), inout
  const StepBlock* block;
  int64_t bytes;           // a multiple of 16
  static constexpr auto buffers() {
    return std::array{SMELT_IN(RestoreArgs, from), SMELT_KEPT_INOUT(RestoreArgs, to), SMELT_KEPT_IN(RestoreArgs, block)};
  }
};

struct ClipScaleArgs {  // grad_scale = min(1, max_norm / sqrt(sums)); skip |= the norm is not finite
  SMELT_SLOT(ClipScaleArgs, "clip_scale");
  const double* sums;  // (count)
  double* norm;        // (1) out
  StepBlock* block;    // inout
  int64_t count;
  double max_norm;
  static constexpr auto buffers() {
    return std::array{SMELT_KEPT_IN(ClipScaleArgs, sums),
                      BufferField{"norm", offsetof(ClipScaleArgs, norm), Access::out, true, -1},
                      SMELT_KEPT_INOUT(ClipScaleArgs, block)};
  }
};

struct SgdArgs {
  SMELT_SLOT(SgdArgs, "sgd");
  void* param;              // flat, inout
  const void* grad;         // flat
  void* momentum;           // flat, inout, or null
  void* mirror;             // flat bfloat16 copy of float32 param, written with it, or null
  const Segment* segments;  // (count)
  const StepBlock* block;
  int64_t count, size;      // segments; elements of the flat buffers
  int64_t active;           // elements of the active segments
  DType dtype;
  bool nesterov;
  Work work() const {
    const double n = static_cast<double>(active);
    return {4 * n, n * ((momentum ? 5.0 : 3.0) * dtype_size(dtype) + (mirror ? 2 : 0))};
  }
  static constexpr auto buffers() {
    return std::array{SMELT_KEPT_INOUT(SgdArgs, param), SMELT_KEPT_IN(SgdArgs, grad),
                      SMELT_KEPT_INOUT(SgdArgs, momentum), SMELT_KEPT_INOUT(SgdArgs, mirror),
                      SMELT_KEPT_IN(SgdArgs, segments),
                      SMELT_KEPT_IN(SgdArgs, block)};
  }
};

struct AdamArgs {
  SMELT_SLOT(AdamArgs, "adam");
  void* param;              // flat, inout
  const void* grad;         // flat
  void* exp_avg;            // flat, inout
  void* exp_avg_sq;         // flat, inout
  void* mirror;             // flat bfloat16 copy of float32 param, written with it, or null
  const Segment* segments;  // (count)
  const StepBlock* block;
  int64_t count, size;      // segments; elements of the flat buffers
  int64_t active;           // elements of the active segments
  DType dtype;
  bool decoupled;  // AdamW: decay the weight itself, else add it to the gradient
  Work work() const {
    const double n = static_cast<double>(active);
    return {12 * n, n * (7.0 * dtype_size(dtype) + (mirror ? 2 : 0))};
  }
  static constexpr auto buffers() {
    return std::array{SMELT_KEPT_INOUT(AdamArgs, param),      SMELT_KEPT_IN(AdamArgs, grad),
                      SMELT_KEPT_INOUT(AdamArgs, exp_avg),    SMELT_KEPT_INOUT(AdamArgs, exp_avg_sq),
                      SMELT_KEPT_INOUT(AdamArgs, mirror),     SMELT_KEPT_IN(AdamArgs, segments),
                      SMELT_KEPT_IN(AdamArgs, block)};
  }
};

// ----------------------------------------------------------------------------------------------------------- probes

enum class ProbeKind : uint8_t { fma, fma_bf16, read, write, copy, update, copy_cached };  // names: smelt.kernels.probe

// What the machine can do at best, for benchmarks: every thread works on its own share.
struct ProbeArgs {
  SMELT_SLOT(ProbeArgs, "probe");
  float* memory;  // (n), inout
  double* done;   // (1) out: floating-point operations, or bytes moved
  int64_t n;
  int64_t rounds;
  ProbeKind kind;
  static constexpr auto buffers() {
    return std::array{BufferField{"memory", offsetof(ProbeArgs, memory), Access::inout, false, -1},
                      SMELT_OUT(ProbeArgs, done)};
  }
};

}  // namespace smelt
