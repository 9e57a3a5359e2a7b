// Rounding to nearest with subnormals kept while an instance lives, whatever another library has set in this thread.
#pragma once
#ifdef SMELT_X86
#include <xmmintrin.h>
#endif

namespace smelt {

class FloatEnvironment {
 public:
#ifdef SMELT_X86
  FloatEnvironment() : saved_(_mm_getcsr()) {
    if ((saved_ & kControl) != kDefault) _mm_setcsr(kDefault);
  }
  ~FloatEnvironment() {
    if ((saved_ & kControl) != kDefault) _mm_setcsr(saved_);
  }
  FloatEnvironment(const FloatEnvironment&) = delete;
  FloatEnvironment& operator=(const FloatEnvironment&) = delete;

 private:
  static constexpr unsigned kDefault = 0x1f80;  // all exceptions masked
  static constexpr unsigned kControl = 0xffc0;  // without the sticky exception flags
  unsigned saved_;
#endif
};

}  // namespace smelt
