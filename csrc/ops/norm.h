// What the normalisations share.
#pragma once
#include "ops/autocast.h"
#include "ops/common.h"

namespace smelt {

inline void* data_or_null(const Tensor& x) { return x ? x.data() : nullptr; }

// Parameters and statistics of halves are float32.
inline DType statistics_dtype(const Tensor& x) { return is_half(x.dtype()) ? DType::float32 : x.dtype(); }
inline void check_parameter(const char* op, const char* name, const Tensor& t, const Tensor& x) {
  require_type(t.dtype() == statistics_dtype(x), op, name, " must be ", statistics_dtype(x), " for an input of ", x.dtype(),
               ", got ", t.dtype());
}

}  // namespace smelt
