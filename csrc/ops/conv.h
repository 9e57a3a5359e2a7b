// Shared by convolution and transposed convolution.
#pragma once
#include "ops/ops.h"

namespace smelt {

// Stride, dilation and padding within their ranges.
void require_windows(const char* op, const Conv2dOptions& options);
// No more groups than channels on one side: products with those of the other stay within 64 bits.
void require_groups(const char* op, int64_t groups, int64_t inputs, int64_t outputs);
// Rows or columns that a kernel covers, its gaps included.
int64_t kernel_reach(const char* op, const char* axis, int64_t kernel, int64_t dilation);

}  // namespace smelt
