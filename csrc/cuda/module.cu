// CUDA devices as the core sees them: what _cuda.so gives through its one symbol. One stream of kernels and copies for each.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "core/device_module.h"
#include "cuda/families.h"
#include "cuda/launch.h"

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
std::vector<cudaStream_t> g_streams;

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

void* stream(int device) {
  cudaSetDevice(device);
  return g_streams[static_cast<size_t>(device)];
}

bool synchronize(int device) { return succeeded(cudaStreamSynchronize(static_cast<cudaStream_t>(stream(device))), "cudaStreamSynchronize"); }

bool copy(int device, void* to, const void* from, size_t bytes, CopyKind kind) {
  constexpr cudaMemcpyKind kKinds[] = {cudaMemcpyDeviceToDevice, cudaMemcpyDeviceToHost, cudaMemcpyHostToDevice};
  const auto s = static_cast<cudaStream_t>(stream(device));
  if (!succeeded(cudaMemcpyAsync(to, from, bytes, kKinds[static_cast<int>(kind)], s), "cudaMemcpyAsync")) return false;
  // Memory of the host may change or end as soon as this returns.
  return kind == CopyKind::within || synchronize(device);
}

void* make_event(int device) {
  cudaEvent_t e = nullptr;
  if (!succeeded(cudaSetDevice(device), "cudaSetDevice") || !succeeded(cudaEventCreate(&e), "cudaEventCreate")) return nullptr;
  return e;
}
void release_event(void* event) { succeeded(cudaEventDestroy(static_cast<cudaEvent_t>(event)), "cudaEventDestroy"); }
bool record_event(int device, void* event) {
  const auto s = static_cast<cudaStream_t>(stream(device));
  return succeeded(cudaEventRecord(static_cast<cudaEvent_t>(event), s), "cudaEventRecord");
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

// In memory of the host that the device writes to.
std::vector<DeviceFault*> g_faults;
DeviceFault* fault(int device) { return g_faults[static_cast<size_t>(device)]; }
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
  if (!succeeded(cudaGetDeviceCount(&devices), "the NVIDIA driver gives no device")) return t_error;
  int usable = 0;
  std::string found;
  for (; usable < devices; ++usable) {
    int major = 0, minor = 0;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, usable);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, usable);
    if (major * 10 + minor >= kLeastCapability) continue;
    found = "the GPU has compute capability " + std::to_string(major) + "." + std::to_string(minor) + ", kernels need 8.0 or more";
    break;
  }
  if (!usable) return found.empty() ? "the NVIDIA driver finds no GPU" : found;
  for (int i = 0; i < usable; ++i) {
    cudaStream_t s = nullptr;
    if (!succeeded(cudaSetDevice(i), "cudaSetDevice") ||
        !succeeded(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "cudaStreamCreateWithFlags"))
      return t_error;
    DeviceFault* f = nullptr;
    if (!succeeded(cudaHostAlloc(&f, sizeof *f, cudaHostAllocPortable | cudaHostAllocMapped), "cudaHostAlloc")) return t_error;
    *f = {};
    g_streams.push_back(s);
    g_faults.push_back(f);
  }
  g_module = {usable,      info,         allocate,   release,    stream,        copy,  synchronize, make_event, release_event,
              record_event, event_done,  wait_event, event_seconds, fault,      take_fault, false, error,     each_kernel};
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
