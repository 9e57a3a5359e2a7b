// What this CPU can run. Compiled without any instruction-set flag.
#pragma once
#include <string>

#include "core/table.h"

namespace smelt::cpu {

Isa detected_isa();           // the highest that CPU and operating system allow
std::string model_name();
std::string features();       // space-separated names of the features that kernels look at
std::string isa_note();       // a sentence where the system withholds what the CPU has; else empty

}  // namespace smelt::cpu
