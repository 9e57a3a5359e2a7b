// How sums down the rows are cut: into chunks whose sums are put together in order.
#pragma once
#include "cpu/kernels/common.inl.h"

namespace smelt {
namespace {

constexpr int64_t kMaxChunks = 64;

// Rows that one chunk has: by shape alone.
inline int64_t chunk_rows(int64_t rows) { return max_of(int64_t{64}, ceil_div(rows, kMaxChunks)); }
inline int64_t chunk_count(int64_t rows) { return max_of(int64_t{1}, ceil_div(rows, chunk_rows(rows))); }

}  // namespace
}  // namespace smelt
