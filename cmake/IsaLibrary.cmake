# One OBJECT library per instruction set: the same kernel sources, compiled once with each set's flags.
# A library's code may run only on a CPU that has its instructions, so nothing in it may be shared with
# another one: kernels stand in an anonymous namespace and tests/test_symbols.py looks for leaks.
include_guard()

function(smelt_isa_library isa)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "" "" "FLAGS;SOURCES;INCLUDES")
  set(target smelt_cpu_${isa})
  add_library(${target} OBJECT ${ARG_SOURCES})
  target_link_libraries(${target} PRIVATE smelt_options)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/csrc ${PROJECT_SOURCE_DIR}/csrc/cpu/isa/${isa}
    ${ARG_INCLUDES})
  target_compile_definitions(${target} PRIVATE SMELT_ISA=${isa})
  target_compile_options(${target} PRIVATE -O3 ${ARG_FLAGS} -fno-exceptions -fno-rtti -fno-asynchronous-unwind-tables
    $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized;-Wno-uninitialized>)  # gcc 12 warns of its own AVX-512 header
  if(SMELT_SANITIZE MATCHES address AND CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    # Kernels are nearly all memory accesses: checks by calls and traps without a text make them compile three times as fast.
    # A null pointer and the end of an object are found by AddressSanitizer, too.
    target_compile_options(${target} PRIVATE -fno-sanitize=null,object-size -fsanitize-undefined-trap-on-error
      --param=asan-instrumentation-with-call-threshold=0)
  endif()
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON INTERPROCEDURAL_OPTIMIZATION OFF)
endfunction()
