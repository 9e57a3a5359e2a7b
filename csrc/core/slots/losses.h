// Softmax, losses and random numbers.
#pragma once
#include "core/philox.h"
#include "core/slots/slot.h"

namespace smelt {

// ----------------------------------------------------------------------------------------------- softmax and losses

struct SoftmaxArgs {
  SMELT_SLOT(SoftmaxArgs, "softmax");
  const void* x;  // (rows, n)
  void* y;        // (rows, n)
  int64_t rows, n;
  DType dtype;
  bool log;
  Work work() const { return {5.0 * rows * n, 2.0 * dtype_size(dtype) * rows * n}; }
  static constexpr auto buffers() { return std::array{SMELT_IN(SoftmaxArgs, x), SMELT_OUT(SoftmaxArgs, y)}; }
};

struct SoftmaxBackwardArgs {
  SMELT_SLOT(SoftmaxBackwardArgs, "softmax_backward");
  const void* y;   // (rows, n)
  const void* dy;  // (rows, n)
  void* dx;        // (rows, n)
  int64_t rows, n;
  DType dtype;
  bool log;
  bool accumulate;
  Work work() const { return {4.0 * rows * n, 3.0 * dtype_size(dtype) * rows * n}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(SoftmaxBackwardArgs, y), SMELT_IN(SoftmaxBackwardArgs, dy),
                      SMELT_GRAD(SoftmaxBackwardArgs, dx, accumulate)};
  }
};

enum class Reduction : uint8_t { none, mean, sum };

struct CrossEntropyArgs {
  SMELT_SLOT(CrossEntropyArgs, "cross_entropy");
  const void* logits;     // (rows, classes)
  const int64_t* labels;  // (rows), in [0, classes) or ignore_index
  const void* weight;     // (classes) or null; like all results float32 where the logits are halves
  void* loss;             // (rows) for Reduction::none, else (1)
  void* lse;              // (rows, 2) out: the largest logit, and log of the sum of exp(logit - largest)
  void* total_weight;     // (1) out: the divisor of Reduction::mean
  int64_t rows, classes, ignore_index;
  double label_smoothing;
  DType dtype;  // of the logits
  Reduction reduction;
  Work work() const { return {5.0 * rows * classes, 1.0 * dtype_size(dtype) * rows * classes}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(CrossEntropyArgs, logits), SMELT_IN(CrossEntropyArgs, labels),
                      SMELT_IN(CrossEntropyArgs, weight), SMELT_OUT(CrossEntropyArgs, loss),
                      SMELT_OUT(CrossEntropyArgs, lse),   SMELT_OUT(CrossEntropyArgs, total_weight)};
  }
};

struct CrossEntropyBackwardArgs {
  SMELT_SLOT(CrossEntropyBackwardArgs, "cross_entropy_backward");
  const void* logits;        // (rows, classes)
  const int64_t* labels;     // (rows)
  const void* weight;        // (classes) or null
  const void* lse;           // (rows, 2)
  const void* total_weight;  // (1)
  const void* dloss;         // (rows) for Reduction::none, else (1)
  void* dlogits;             // (rows, classes)
  int64_t rows, classes, ignore_index;
  double label_smoothing;
  DType dtype;  // of the logits
  Reduction reduction;
  bool accumulate;
  Work work() const { return {5.0 * rows * classes, 2.0 * dtype_size(dtype) * rows * classes}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(CrossEntropyBackwardArgs, logits),
                      SMELT_IN(CrossEntropyBackwardArgs, labels),
                      SMELT_IN(CrossEntropyBackwardArgs, weight),
                      SMELT_IN(CrossEntropyBackwardArgs, lse),
                      SMELT_IN(CrossEntropyBackwardArgs, total_weight),
                      SMELT_IN(CrossEntropyBackwardArgs, dloss),
                      SMELT_GRAD(CrossEntropyBackwardArgs, dlogits, accumulate)};
  }
};

enum class LossOp : uint8_t { mse, l1, huber, bce_with_logits };

struct LossArgs {
  SMELT_SLOT(LossArgs, "loss");
  const void* x;           // (n) predictions or logits
  const void* target;      // (n)
  const void* pos_weight;  // (period) weight of the positive term, bce_with_logits only, or null
  void* loss;              // (n) for Reduction::none, else (1)
  int64_t n, period;
  double delta;  // huber
  DType dtype;
  LossOp op;
  Reduction reduction;
  Work work() const { return {4.0 * n, 2.0 * dtype_size(dtype) * n}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(LossArgs, x), SMELT_IN(LossArgs, target), SMELT_IN(LossArgs, pos_weight),
                      SMELT_OUT(LossArgs, loss)};
  }
};

struct LossBackwardArgs {
  SMELT_SLOT(LossBackwardArgs, "loss_backward");
  const void* x;           // (n)
  const void* target;      // (n)
  const void* pos_weight;  // (period) or null
  const void* dloss;       // (n) for Reduction::none, else (1)
  void* dx;                // (n)
  int64_t n, period;
  double delta;
  double sign;  // -1 for the gradient of the target, where that is the negative (mse, l1, huber)
  DType dtype;
  LossOp op;
  Reduction reduction;
  bool accumulate;
  Work work() const { return {4.0 * n, 3.0 * dtype_size(dtype) * n}; }
  static constexpr auto buffers() {
    return std::array{SMELT_IN(LossBackwardArgs, x), SMELT_IN(LossBackwardArgs, target),
                      SMELT_IN(LossBackwardArgs, pos_weight), SMELT_IN(LossBackwardArgs, dloss),
                      SMELT_GRAD(LossBackwardArgs, dx, accumulate)};
  }
};

// ---------------------------------------------------------------------------------------------------------- random

enum class RandomKind : uint8_t { uniform, normal, integers, bits };

struct RandomArgs {
  SMELT_SLOT(RandomArgs, "random");
  const GeneratorState* generator;  // (1)
  void* y;                          // (n): floating for uniform [a, b) and normal (mean a, std b), int64 for integers
                                    // [a, b), uint32 stored as int64 for bits
  int64_t n;
  uint64_t counter;  // this call's constant, added to the generator's offset
  Scalar a, b;
  DType dtype;
  RandomKind kind;
  Work work() const { return {0, 1.0 * n * dtype_size(dtype)}; }
  double ns() const { return 2.0 * n; }
  static constexpr auto buffers() {
    return std::array{SMELT_KEPT_IN(RandomArgs, generator), SMELT_OUT(RandomArgs, y)};
  }
};

// Forward and backward alike: the mask is drawn again from the same counters.
struct DropoutArgs {
  SMELT_SLOT(DropoutArgs, "dropout");
  const GeneratorState* generator;  // (1)
  const void* x;                    // (n) input, or dy
  void* y;                          // (n) output, or dx
  int64_t n;
  uint64_t counter;
  double p;  // probability of a zero, in [0, 1)
  DType dtype;
  bool accumulate;
  Work work() const { return {1.0 * n, 2.0 * n * dtype_size(dtype)}; }
  static constexpr auto buffers() {
    return std::array{SMELT_KEPT_IN(DropoutArgs, generator), SMELT_IN(DropoutArgs, x),
                      SMELT_GRAD(DropoutArgs, y, accumulate)};
  }
};

}  // namespace smelt
