#include "core/profile.h"

#include <chrono>

namespace smelt {
namespace {

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

CallSite& call_site() {
  thread_local CallSite site;
  return site;
}

void Profiler::launched(int slot, const void* args, Device, const Candidate& candidate) {
  const Work work = slot_info(slot).work(args);
  const int64_t now = now_ns();  // the end too, for a call that fails before it runs
  events.push_back({candidate.name, current_op(), call_site(), now, now, work});
}

void Profiler::finished() {
  events.back().end_ns = now_ns();
}

}  // namespace smelt
