// The CPU's threads. One pool a process; a parallel region is cut into chunks that are claimed from an atomic counter.
// The caller works too and never waits for a helper that has not begun, so a busy machine costs little; helpers stay
// awake for some 200 us and then sleep. A region inside a region, or beside another thread's region, runs on its caller alone.
#pragma once
#include <cstdint>

namespace smelt {

int num_threads();
void set_num_threads(int n);  // ValueError unless 1 <= n <= 256
int default_num_threads();    // SMELT_NUM_THREADS, else the affinity mask and the cgroup's CPU quota

// Runs body(arg, chunk, thread) for every chunk in [0, chunks); thread is in [0, threads) and no two bodies with one
// thread number run at once. The result must not depend on which thread runs a chunk.
void parallel(int threads, int64_t chunks, void (*body)(void* arg, int64_t chunk, int thread), void* arg);

}  // namespace smelt
