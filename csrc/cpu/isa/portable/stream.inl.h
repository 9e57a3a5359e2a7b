// Where no store passes the caches by, plain ones.
#pragma once

namespace smelt {
namespace {

inline void stream_line(void* to, const void* from) { __builtin_memcpy(to, from, 64); }
inline void end_stream() {}

}  // namespace
}  // namespace smelt
