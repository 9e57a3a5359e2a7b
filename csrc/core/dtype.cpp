#include "core/dtype.h"

#include <algorithm>

namespace smelt {

const char* dtype_name(DType dtype) {
  static const char* const kNames[] = {"float32", "float64", "bfloat16", "float16",     "int64",
                                       "int32",   "uint8",   "bool",     "int8",        "int16",
                                       "uint16",  "uint32",  "float8_e4m3", "float8_e5m2"};
  return kNames[static_cast<int>(dtype)];
}

DType promote(DType a, DType b) {
  if (a == b) return a;
  const bool halves = (a == DType::bfloat16 && b == DType::float16) || (a == DType::float16 && b == DType::bfloat16);
  if (halves) return DType::float32;  // neither holds the other
  constexpr int kRank[] = {/*float32*/ 6, /*float64*/ 7, /*bfloat16*/ 4, /*float16*/ 5,
                           /*int64*/ 3,   /*int32*/ 2,   /*uint8*/ 1,    /*bool*/ 0};
  return kRank[static_cast<int>(a)] > kRank[static_cast<int>(b)] ? a : b;
}

}  // namespace smelt
