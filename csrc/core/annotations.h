// Marks of functions that kernels of every backend share.
#pragma once

#ifdef __CUDACC__
#define SMELT_HOST_DEVICE __host__ __device__
#else
#define SMELT_HOST_DEVICE
#endif
#define SMELT_INLINE SMELT_HOST_DEVICE __attribute__((always_inline)) inline
