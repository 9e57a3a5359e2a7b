// What ran when: every kernel of one thread with its time, its work and the layer it was called for.
#pragma once
#include <string>
#include <vector>

#include "core/launch.h"

namespace smelt {

// Where a call comes from, noted by whoever knows: a number that the layer chose, and whether it is its backward. Nodes of
// the tape keep the number, so that their backward has the layer of their forward.
struct CallSite {
  int layer = 0;
  bool backward = false;
};
CallSite& call_site();

struct KernelEvent {
  const char* kernel;
  std::string op;
  CallSite site;
  int64_t begin_ns, end_ns;  // of a steady clock
  Work work;
};

class Profiler final : public LaunchObserver {
 public:
  void launched(int slot, const void* args, Device device, const Candidate& candidate) override;
  void finished() override;
  std::vector<KernelEvent> events;
};

}  // namespace smelt
