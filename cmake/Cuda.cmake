# Whether GPU kernels are built (SMELT_BUILD_CUDA), and for which targets.
set(SMELT_CUDA AUTO CACHE STRING "Kernels for NVIDIA GPUs, as a library beside the core: ON, OFF, or AUTO, where nvcc is found")
set(SMELT_CUDA_ARCHITECTURES "80-real;90-real;100-real;120-real;120-virtual" CACHE STRING "GPU targets, as CMake names them")
if(NOT SMELT_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "SMELT_CUDA must be ON, OFF or AUTO, got '${SMELT_CUDA}'")
endif()

set(CMAKE_CUDA_ARCHITECTURES ${SMELT_CUDA_ARCHITECTURES})  # before CMake looks for the compiler
# CMake 3.25 does not know that this compiler has C++20.
if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()
if(CCACHE AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()

set(SMELT_BUILD_CUDA ${SMELT_CUDA})
if(SMELT_CUDA STREQUAL "AUTO")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(SMELT_BUILD_CUDA ON)
  else()
    set(SMELT_BUILD_CUDA OFF)
    message(STATUS "smelt: no CUDA compiler (nvcc) was found: this build has no kernels for GPUs")
  endif()
endif()
