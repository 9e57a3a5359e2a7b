// CUDA devices as the core sees them: what _cuda.so gives through its one symbol.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "core/device_module.h"
#include "cuda/families.h"
#include "cuda/launch.h"

namespace smelt {
namespace {
__global__ void any_kernel() {}  // whether this build has code for a GPU
}  // namespace
}  // namespace smelt

namespace smelt::cuda {

static thread_local std::string t_error;

bool succeeded(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return true;
  t_error = std::string(call) + ": " + cudaGetErrorString(error);
  cudaGetLastError();  // what can be recovered from must not be found again by the next launch
  return false;
}

namespace {

constexpr int kLeastCapability = 80;
DeviceModule g_module;

// Pinned memory through which bytes of the host leave, in two halves: while one is being copied, the other is filled.
class Staging {
 public:
  // Takes the bytes; they are on their way to `to` when it returns.
  bool send(char* to, const char* from, size_t bytes, cudaStream_t stream) {
    const std::lock_guard lock(mutex_);
    if (!memory_ && !begin()) return false;
    while (bytes) {
      if (used_ == kHalf && !turn(stream)) return false;
      const size_t part = std::min(bytes, kHalf - used_);
      char* const place = memory_ + half_ * kHalf + used_;
      std::memcpy(place, from, part);
      if (!succeeded(cudaMemcpyAsync(to, place, part, cudaMemcpyHostToDevice, stream), "cudaMemcpyAsync")) return false;
      used_ = std::min(kHalf, (used_ + part + 255) / 256 * 256);
      from += part;
      to += part;
      bytes -= part;
    }
    return true;
  }

 private:
  static constexpr size_t kHalf = size_t{8} << 20;
  bool begin() {
    void* p = nullptr;
    for (cudaEvent_t& e : left_)
      if (!e && !succeeded(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), "cudaEventCreateWithFlags")) return false;
    if (!succeeded(cudaHostAlloc(&p, 2 * kHalf, cudaHostAllocPortable), "cudaHostAlloc")) return false;
    memory_ = static_cast<char*>(p);
    return true;
  }
  // To the other half, once what was in it has left.
  bool turn(cudaStream_t stream) {
    if (!succeeded(cudaEventRecord(left_[half_], stream), "cudaEventRecord")) return false;
    half_ = 1 - half_;
    used_ = 0;
    return succeeded(cudaEventSynchronize(left_[half_]), "cudaEventSynchronize");
  }

  std::mutex mutex_;
  char* memory_ = nullptr;
  size_t half_ = 0, used_ = 0;
  cudaEvent_t left_[2] = {};
};

struct Stream {
  cudaStream_t stream = nullptr;
  Staging staging;
};
struct OpenDevice {
  Stream streams[2];             // by StreamKind
  DeviceFault* fault = nullptr;  // in memory of the host that the device writes to
};
std::vector<OpenDevice*> g_devices;  // never destroyed: no CUDA call comes from a static destructor
Stream& stream_of(int device, StreamKind kind) { return g_devices[static_cast<size_t>(device)]->streams[static_cast<int>(kind)]; }

bool info(int device, DeviceInfo* info) {
  cudaDeviceProp p;
  size_t free_bytes = 0, bytes = 0;
  if (!succeeded(cudaGetDeviceProperties(&p, device), "cudaGetDeviceProperties") ||
      !succeeded(cudaSetDevice(device), "cudaSetDevice") || !succeeded(cudaMemGetInfo(&free_bytes, &bytes), "cudaMemGetInfo"))
    return false;
  std::snprintf(info->name, sizeof info->name, "%s", p.name);
  info->compute_capability = p.major * 10 + p.minor;
  info->multiprocessors = p.multiProcessorCount;
  info->memory = static_cast<int64_t>(bytes);
  info->free_memory = static_cast<int64_t>(free_bytes);
  return true;
}

void* allocate(int device, size_t bytes) {
  void* p = nullptr;
  if (!succeeded(cudaSetDevice(device), "cudaSetDevice") || !succeeded(cudaMalloc(&p, bytes), "cudaMalloc")) return nullptr;
  return p;
}
void release(int device, void* p, size_t) {
  cudaSetDevice(device);
  cudaFree(p);  // waits for the device, so nothing uses the memory any more
}

void* stream(int device, StreamKind kind) {
  cudaSetDevice(device);
  return stream_of(device, kind).stream;
}

bool synchronize(int device, StreamKind kind) {
  return succeeded(cudaStreamSynchronize(static_cast<cudaStream_t>(stream(device, kind))), "cudaStreamSynchronize");
}

bool copy(int device, StreamKind on, void* to, const void* from, size_t bytes, CopyKind kind) {
  const auto s = static_cast<cudaStream_t>(stream(device, on));
  if (kind == CopyKind::from_host)
    return stream_of(device, on).staging.send(static_cast<char*>(to), static_cast<const char*>(from), bytes, s);
  const cudaMemcpyKind direction = kind == CopyKind::within ? cudaMemcpyDeviceToDevice : cudaMemcpyDeviceToHost;
  if (!succeeded(cudaMemcpyAsync(to, from, bytes, direction, s), "cudaMemcpyAsync")) return false;
  return kind != CopyKind::to_host || synchronize(device, on);
}

void* allocate_pinned(size_t bytes) {
  void* p = nullptr;
  return succeeded(cudaHostAlloc(&p, bytes, cudaHostAllocPortable), "cudaHostAlloc") ? p : nullptr;
}
void release_pinned(void* p) { succeeded(cudaFreeHost(p), "cudaFreeHost"); }

void* make_event(int device) {
  cudaEvent_t e = nullptr;
  if (!succeeded(cudaSetDevice(device), "cudaSetDevice") || !succeeded(cudaEventCreate(&e), "cudaEventCreate")) return nullptr;
  return e;
}
void release_event(void* event) { succeeded(cudaEventDestroy(static_cast<cudaEvent_t>(event)), "cudaEventDestroy"); }
bool record_event(int device, StreamKind on, void* event) {
  const auto s = static_cast<cudaStream_t>(stream(device, on));
  return succeeded(cudaEventRecord(static_cast<cudaEvent_t>(event), s), "cudaEventRecord");
}
bool stream_wait(int device, StreamKind kind, void* event) {
  const auto s = static_cast<cudaStream_t>(stream(device, kind));
  return succeeded(cudaStreamWaitEvent(s, static_cast<cudaEvent_t>(event), 0), "cudaStreamWaitEvent");
}
bool event_done(void* event, bool* done) {
  const cudaError_t found = cudaEventQuery(static_cast<cudaEvent_t>(event));
  *done = found == cudaSuccess;
  if (found != cudaErrorNotReady) return succeeded(found, "cudaEventQuery");
  cudaGetLastError();  // no error, and no launch may find it
  return true;
}
bool wait_event(void* event) { return succeeded(cudaEventSynchronize(static_cast<cudaEvent_t>(event)), "cudaEventSynchronize"); }
bool event_seconds(void* begin, void* end, double* seconds) {
  float milliseconds = 0;
  const auto first = static_cast<cudaEvent_t>(begin), last = static_cast<cudaEvent_t>(end);
  if (!succeeded(cudaEventElapsedTime(&milliseconds, first, last), "cudaEventElapsedTime")) return false;
  *seconds = 1e-3 * milliseconds;
  return true;
}

bool begin_graph(int device, void** stream) {
  cudaStream_t s = nullptr;
  if (!succeeded(cudaSetDevice(device), "cudaSetDevice") ||
      !succeeded(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "cudaStreamCreateWithFlags"))
    return false;
  *stream = s;
  if (succeeded(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture")) return true;
  cudaStreamDestroy(s);
  return false;
}
void* end_graph(int, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  if (succeeded(cudaStreamEndCapture(s, &graph), "cudaStreamEndCapture") &&
      !succeeded(cudaGraphInstantiate(&ready, graph, 0), "cudaGraphInstantiate"))
    ready = nullptr;
  if (graph) cudaGraphDestroy(graph);
  cudaStreamDestroy(s);
  return ready;
}
bool launch_graph(int device, void* graph) {
  const auto s = static_cast<cudaStream_t>(stream(device, StreamKind::compute));
  return succeeded(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), s), "cudaGraphLaunch");
}
void release_graph(void* graph) { succeeded(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)), "cudaGraphExecDestroy"); }

DeviceFault* fault(int device) { return g_devices[static_cast<size_t>(device)]->fault; }
bool take_fault(int device, DeviceFault* found) {
  DeviceFault& there = *fault(device);
  if (!there.ticket) return false;
  *found = there;
  there = {};
  return true;
}

const char* error() { return t_error.c_str(); }
void each_kernel(void (*take)(void*, int, const Candidate&), void* to) { register_kernels({take, to}); }

// Empty, or why there is nothing to use.
std::string open() {
  int driver = 0, devices = 0;
  if (cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0 && driver < CUDART_VERSION / 1000 * 1000)
    return "the NVIDIA driver knows CUDA " + std::to_string(driver / 1000) + "." + std::to_string(driver % 1000 / 10) +
           ", this build needs a driver for CUDA " + std::to_string(CUDART_VERSION / 1000);
  const cudaError_t counted = cudaGetDeviceCount(&devices);
  if (counted != cudaErrorNoDevice && !succeeded(counted, "the NVIDIA driver gives no device")) return t_error;
  int usable = 0;
  std::string found;
  cudaFuncAttributes attributes;
  for (; usable < devices; ++usable) {
    int major = 0, minor = 0;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, usable);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, usable);
    const std::string capability = "the GPU has compute capability " + std::to_string(major) + "." + std::to_string(minor);
    if (major * 10 + minor < kLeastCapability) {
      found = capability + ", kernels need 8.0 or more";
    } else if (cudaSetDevice(usable) == cudaSuccess && cudaFuncGetAttributes(&attributes, any_kernel) == cudaErrorNoKernelImageForDevice) {
      cudaGetLastError();
      found = capability + ", for which this build has no kernels";
    } else {
      continue;
    }
    break;
  }
  if (!usable) return found.empty() ? "the NVIDIA driver finds no GPU" : found;
  for (int i = 0; i < usable; ++i) {
    g_devices.push_back(new OpenDevice);
    OpenDevice& d = *g_devices.back();
    void* f = nullptr;
    if (!succeeded(cudaSetDevice(i), "cudaSetDevice") ||
        !succeeded(cudaHostAlloc(&f, sizeof *d.fault, cudaHostAllocPortable | cudaHostAllocMapped), "cudaHostAlloc"))
      return t_error;
    d.fault = new (f) DeviceFault{};
    for (Stream& s : d.streams)
      if (!succeeded(cudaStreamCreateWithFlags(&s.stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags")) return t_error;
  }
  g_module = {.devices = usable,
              .info = info,
              .allocate = allocate,
              .release = release,
              .stream = stream,
              .copy = copy,
              .synchronize = synchronize,
              .allocate_pinned = allocate_pinned,
              .release_pinned = release_pinned,
              .make_event = make_event,
              .release_event = release_event,
              .record_event = record_event,
              .stream_wait = stream_wait,
              .event_done = event_done,
              .wait_event = wait_event,
              .event_seconds = event_seconds,
              .begin_graph = begin_graph,
              .end_graph = end_graph,
              .launch_graph = launch_graph,
              .release_graph = release_graph,
              .fault = fault,
              .take_fault = take_fault,
              .exact = false,
              .error = error,
              .each_kernel = each_kernel};
  return "";
}

}  // namespace
}  // namespace smelt::cuda

extern "C" __attribute__((visibility("default"))) const smelt::DeviceModule* smelt_device_module(const char* abi, const char** why) {
  if (std::strcmp(abi, SMELT_ABI) != 0) {
    *why = "_cuda.so was built from other sources than _core";
    return nullptr;
  }
  static const std::string kWhy = smelt::cuda::open();
  *why = kWhy.c_str();
  return kWhy.empty() ? &smelt::cuda::g_module : nullptr;
}
