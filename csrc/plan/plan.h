// A recorded step made ready to run again: its calls with their arguments, over one piece of memory. On a GPU the kernels
// between two works of the host that they depend on are one graph.
#pragma once
#include <memory>
#include <utility>
#include <vector>

#include "plan/recorder.h"

namespace smelt {

// A piece of a plan's memory, in use from one call to another, both included.
struct PlacedBlock {
  size_t bytes = 0, offset = 0;
  size_t first = 0, last = 0;
};
// Gives blocks their offsets, such that no two that are in use at once overlap; returns the bytes of the whole.
size_t place_blocks(std::vector<PlacedBlock>& blocks);

// Memory that all plans of one step share: they run one after the other. A piece for each device.
class Arena final : public RefCounted {
 public:
  const Ref<Storage>& at_least(size_t bytes, Device device);
  // Gives back what is on GPUs, and what is much, for a step that runs in memory of its own.
  void leave();
  // What such a step has left in the cache goes back if it is much: replays have the arena.
  void settle();

 private:
  static constexpr int64_t kMuch = int64_t{64} << 20;
  std::vector<Ref<Storage>> pieces_;
};

// Whether replays on a GPU launch graphs, or kernel by kernel.
bool use_graphs();
void set_use_graphs(bool on);

// Kernels that a device runs as one.
class DeviceGraph {
 public:
  DeviceGraph(const DeviceModule& module, void* graph) : module_(module), graph_(graph) {}
  ~DeviceGraph() { module_.release_graph(graph_); }
  DeviceGraph(const DeviceGraph&) = delete;
  DeviceGraph& operator=(const DeviceGraph&) = delete;
  bool launch(int device) const { return module_.launch_graph(device, graph_); }

 private:
  const DeviceModule& module_;
  void* graph_;
};

class Plan final : public RefCounted {
 public:
  Plan(RecordedStep step, Ref<Arena> arena);

  // Whether a replay would do now what the step would, with these inputs.
  bool ready(const std::vector<Tensor>& inputs) const;
  // Everything that a replay needs, so that nothing can fail for want of memory once it has begun. Fresh tensors for the first
  // `count` results.
  std::vector<Tensor> prepare(size_t count);
  // Runs a part of the step. Parts run in order, all of them before another plan of the arena does.
  void replay(size_t part, const std::vector<Tensor>& inputs);
  // Puts back what the first part wrote to memory that outlives the step.
  void undo();
  std::vector<Tensor> outputs(const std::vector<Tensor>& inputs);  // fresh copies
  // Copies the first results.
  void copy_outputs(const std::vector<Tensor>& inputs, const std::vector<Tensor>& to) const;
  // The first `count` results where they lie, which the next replay overwrites; copies of those that are inputs or kept.
  std::vector<Tensor> views(const std::vector<Tensor>& inputs, size_t count);

  size_t memory() const { return bytes_; }
  const std::vector<PlacedBlock>& blocks() const { return blocks_; }
  const RecordedStep& step() const { return step_; }
  std::vector<const char*> kernels() const;
  int threads() const { return threads_; }
  Device device() const { return step_.device; }
  size_t graphs() const;  // that a replay launches; 0 on the CPU

 private:
  struct Patch {  // a pointer within the arguments
    char* field;
    Place place;
  };
  struct Backup {
    Ref<Storage> storage;
    size_t block;
  };

  // Kernels that can be launched at once: the works of the host before them come first, those after them last.
  struct Section {
    size_t part;
    std::vector<size_t> before, kernels, after;  // calls
    std::unique_ptr<DeviceGraph> graph;
  };

  bool on_cpu() const { return step_.device.kind == DeviceKind::cpu; }
  void find_sections();
  bool reads_or_writes(size_t call, const std::vector<size_t>& works) const;
  void make_graph(Section& section);
  void run_on_device(size_t part, const std::vector<Tensor>& inputs);
  void run_kernel(size_t call, Context& context);
  void find_lifetimes();
  void add_workspaces();
  void add_backups();
  void settle();
  size_t part_begin(size_t part) const { return part ? step_.cuts[part - 1] : 0; }
  size_t part_end(size_t part) const { return part < step_.cuts.size() ? step_.cuts[part] : step_.calls.size(); }

  RecordedStep step_;
  Ref<Arena> arena_;
  int threads_;
  std::vector<std::max_align_t> args_;  // as the kernels get them, pointers in place
  std::vector<void*> workspaces_;       // of each call
  std::vector<size_t> workspace_block_;  // of each call, or none
  std::vector<Patch> in_arena_, in_inputs_;
  std::vector<size_t> input_block_;  // on a GPU: where a copy of each input lies
  std::vector<Section> sections_;    // on a GPU
  std::vector<PlacedBlock> blocks_;
  std::vector<Backup> backups_;
  std::vector<double> part_ns_;
  size_t bytes_ = 0;
  char* base_ = nullptr;  // of the arena when pointers were set
};

}  // namespace smelt
