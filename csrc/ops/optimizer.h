// Optimizers over flat buffers: parameters, gradients and state of one (optimizer, dtype) lie in one buffer each, so a
// step is one kernel call a dtype whatever the number of tensors, and zero_grad() costs O(1).
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "core/kernels.h"
#include "tape/leaf.h"

namespace smelt {

enum class OptimizerKind { sgd, adam, adamw };

class Optimizer final : public RefCounted {
 public:
  struct Group {
    double lr = 0, weight_decay = 0, eps = 0, beta1 = 0, beta2 = 0;
  };

  Optimizer(OptimizerKind kind, bool momentum, bool nesterov);
  ~Optimizer() override;

  // ValueError names the parameter when it belongs to an optimizer already or is on another device.
  void add_group(const Group& group, const std::vector<std::pair<std::string, Tensor>>& parameters);
  Group& group(int index);
  int group_count() const { return static_cast<int>(groups_.size()); }

  // Lets go of the parameters: they keep their values, and another optimizer may take them.
  void let_go();

  // One update from the filled gradients; RuntimeError when none is. clip_norm <= 0: no clipping. With a loss that is not
  // finite neither this step nor any later one changes anything, until retract().
  void step(double clip_norm, const Tensor& loss = {});
  // Forgets the steps that were not taken, because the loss of the first of them was not finite or an index was wrong.
  void retract();
  int64_t given_steps() const { return steps_; }  // to the device
  // (5) int64 in the step block, after the steps given so far: skipped steps, the first that failed, and its fault.
  Tensor status();
  // What the steps of which `loss` was not finite have written to `x` is undone by writing `before` back.
  void restore_if_failed(const Tensor& x, const Tensor& before);
  void zero_grad() { clock_->clear(); }

  // Moves the parameters into flat buffers, now instead of at the first step.
  void pack();
  // Counts how often the buffers were laid out anew.
  int64_t layout_generation() const { return layout_generation_; }

  int64_t steps() const;  // that were taken; on a GPU this waits
  void set_steps(int64_t steps) { steps_ = steps; }
  int64_t skipped();
  void set_skipped(int64_t skipped);
  double last_norm();  // of the last clipped step; NaN before

  // State tensors by name and parameter, in the order of registration; views of the flat buffers.
  std::vector<const char*> state_names() const;
  int parameter_count() const { return static_cast<int>(entries_.size()); }
  const std::string& parameter_name(int index) const { return entries_[index].name; }
  Tensor parameter(int index) const { return entries_[index].tensor; }
  Tensor state(int index, int which);

 private:
  struct Entry {
    std::string name;
    Tensor tensor;
    int group = 0;
    int flat = -1;       // which buffer holds it, -1 outside
    int segment = -1;    // its number there
    Tensor state[2];     // views while packed, own memory while outside (a frozen parameter keeps its state)
  };
  struct Flat {
    DType dtype;
    int64_t size = 0;  // elements
    Tensor param, grad, state[2];
    std::vector<Segment> segments;
    mutable std::vector<Segment> written;  // in segment_memory
    std::vector<int> entries;
    std::vector<Storage*> mirrored;  // parameters whose mirror held before the update and holds again after it
    Ref<Storage> segment_memory;
    int64_t active() const;  // elements of the active segments
    void write_segments() const;
  };

  bool layout_is_current() const;
  std::vector<Flat> lay_out(std::vector<std::pair<int, int>>& places, Device device) const;
  void place(Entry& entry, Flat& flat);
  void remove(Entry& entry);
  // A recorded step does not keep its optimizer alive: letting go of the parameters ends the recording.
  void perform(HostWork work, int64_t value = 0, std::span<const Ref<Storage>> writes = {}) {
    recording::perform(work, this, value, false, writes);
  }
  // What a step does on the host, in this order among its kernels.
  void begin();
  void write_block();
  void clip(double clip_norm);
  void update(int64_t flat);
  void before_update(Flat& flat, bool mirror);
  void after_update(Flat& flat);
  int64_t failed_step() const;
  StepBlock* block() { return reinterpret_cast<StepBlock*>(block_memory_->data()); }

  OptimizerKind kind_;
  bool momentum_, nesterov_;
  Ref<GradClock> clock_;
  std::vector<Group> groups_;
  std::vector<Entry> entries_;
  std::vector<Flat> flats_;
  Ref<Storage> block_memory_, norm_memory_;  // norm: one sum a flat buffer, then the norm itself
  int64_t steps_ = 0, layout_generation_ = 0;
  int64_t skipped_ = 0;  // before there is a block
  bool released_ = false;
};

// Moves the memory of these tensors of one device into one piece, a tensor of bytes, where it stays.
Tensor pack_together(const std::vector<Tensor>& tensors);
// The piece that holds the memory of all of them; none where there is no such.
std::optional<Tensor> packed_in(const std::vector<Tensor>& tensors);

}  // namespace smelt
