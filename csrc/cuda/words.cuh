// Every instruction that kernels use beyond plain C++, by a name of its own: the only place with PTX. The emulator has the
// same words in cuda_emu/words.h.
#pragma once
#include <cstdint>

#include "core/float16.h"

#ifdef SMELT_EMU
#include "cuda_emu/words.h"
#define SMELT_UNROLL
#else
#define SMELT_UNROLL _Pragma("unroll")  // what follows indexes registers: a loop that stays one would put them into memory

#define SMELT_WORD __device__ __forceinline__
// An array that the threads of a block share; nothing is known of its content.
#define SMELT_SHARED(T, name, count) __shared__ T name[count]

namespace smelt::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;

// 16 bytes, the widest access of a thread.
struct alignas(16) Bytes16 {
  uint32_t word[4];
};

SMELT_WORD int lane() { return static_cast<int>(threadIdx.x & 31); }

// ----------------------------------------------------------------------------------------------- threads of a block

SMELT_WORD void sync_threads() { __syncthreads(); }
SMELT_WORD void sync_warp(unsigned mask = kAllLanes) { __syncwarp(mask); }
template <class T>
SMELT_WORD T shuffle(T v, int from, unsigned mask = kAllLanes) {
  return __shfl_sync(mask, v, from);
}
template <class T>
SMELT_WORD T shuffle_xor(T v, int distance, unsigned mask = kAllLanes) {
  return __shfl_xor_sync(mask, v, distance);
}
template <class T>
SMELT_WORD T shuffle_up(T v, int distance, unsigned mask = kAllLanes) {
  return __shfl_up_sync(mask, v, distance);
}
SMELT_WORD int count_bits(unsigned bits) { return __popc(bits); }
SMELT_WORD unsigned ballot(bool on, unsigned mask = kAllLanes) { return __ballot_sync(mask, on); }

template <class T>
SMELT_WORD T* dynamic_shared() {
  extern __shared__ __align__(128) unsigned char smelt_dynamic_shared[];
  return reinterpret_cast<T*>(smelt_dynamic_shared);
}

// What was written before is seen by the host before what is written after.
SMELT_WORD void fence_system() { __threadfence_system(); }

// -------------------------------------------------------------------------------------------------------- accesses

SMELT_WORD Bytes16 load16(const void* p) {
  const uint4 v = *static_cast<const uint4*>(p);
  return {{v.x, v.y, v.z, v.w}};
}
SMELT_WORD void store16(void* p, Bytes16 b) { *static_cast<uint4*>(p) = make_uint4(b.word[0], b.word[1], b.word[2], b.word[3]); }

SMELT_WORD unsigned shared_address(const void* p) { return static_cast<unsigned>(__cvta_generic_to_shared(p)); }

// Copies `bytes` (0 to 16) of 16 to shared memory and zeros the rest; visible to this thread after cp_async_wait.
SMELT_WORD void cp_async16(void* to_shared, const void* from, int bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to_shared)), "l"(from), "r"(bytes) : "memory");
}
SMELT_WORD void cp_async4(void* to_shared, const void* from, int bytes = 4) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to_shared)), "l"(from), "r"(bytes) : "memory");
}
SMELT_WORD void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most `kInFlight` of this thread's groups are under way.
template <int kInFlight>
SMELT_WORD void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kInFlight) : "memory");
}

// Of integers alone: sums of floats would depend on the order of arrival.
SMELT_WORD int atomic_add(int* p, int v) { return atomicAdd(p, v); }
SMELT_WORD unsigned long long atomic_min(unsigned long long* p, unsigned long long v) { return atomicMin(p, v); }

// ------------------------------------------------------------------------------------------------- matrix products

// Four 8x8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8.
SMELT_WORD void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
SMELT_WORD void ldmatrix_x4_transposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// d += a b with a (16, 16), b (16, 8), d (16, 8), in the fragments of PTX ISA 9.7.14.
SMELT_WORD void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], bfloat16) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
SMELT_WORD void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], float16) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// d += a b with a (16, 8), b (8, 8) in tf32, which float stands for.
SMELT_WORD void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], float) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
SMELT_WORD uint32_t to_tf32(float f) {
  uint32_t r;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(f));
  return r;
}

// --------------------------------------------------------------------------------------- barriers in shared memory (sm_90)

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
SMELT_WORD void mbarrier_init(uint64_t* barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count) : "memory");
}
SMELT_WORD void mbarrier_arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// Arrives, and lets the phase wait for so many bytes of bulk copies too.
SMELT_WORD void mbarrier_arrive_expect(uint64_t* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
// Waits for the end of the phase with this parity.
SMELT_WORD void mbarrier_wait(uint64_t* barrier, int parity) {
  asm volatile(
      "{\n.reg .pred done;\nagain:\n"
      "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}
// A multiple of 16 bytes, both addresses multiples of 16; counts at the barrier when it has arrived.
SMELT_WORD void bulk_copy(void* to_shared, const void* from, int bytes, uint64_t* barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(to_shared)),
               "l"(from), "r"(bytes), "r"(shared_address(barrier))
               : "memory");
}
#endif

}  // namespace smelt::cuda

#endif  // SMELT_EMU
