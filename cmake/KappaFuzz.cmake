# Fuzzing with libFuzzer, in a build folder of its own:
#
#   CC=clang cmake -S . -B build/fuzz -G Ninja -DCMAKE_BUILD_TYPE=Debug -DKAPPA_FUZZ=ON
#   ninja -C build/fuzz fuzzers && ctest --test-dir build/fuzz -L fuzz
#
# The whole library is instrumented.  Every tests/fuzz/fuzz_NAME.c becomes a program and a test that
# runs a fixed number of cases from a fixed seed, starting from the files in tests/fuzz/corpus/NAME
# and with the words of tests/fuzz/NAME.dict, where they exist.  To search longer, run the program
# with a folder for what it finds: build/fuzz/fuzz_NAME found/ tests/fuzz/corpus/NAME
if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
  message(FATAL_ERROR "KAPPA_FUZZ needs clang: configure with CC=clang")
endif()
set(KAPPA_FUZZ_RUNS 20000 CACHE STRING "Cases that ctest runs for each fuzz target")

# The sanitizers are KappaFlags' own.
target_compile_options(kappa_flags INTERFACE -fsanitize=fuzzer-no-link)

add_custom_target(fuzzers)
file(GLOB KAPPA_FUZZ_TARGETS CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_*.c)
foreach(source IN LISTS KAPPA_FUZZ_TARGETS)
  get_filename_component(target ${source} NAME_WE)
  string(REPLACE "fuzz_" "" name ${target})
  add_executable(${target} EXCLUDE_FROM_ALL ${source})
  target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR}/src)
  target_link_libraries(${target} PRIVATE kappa_flags kappa OpenMP::OpenMP_C PkgConfig::JANSSON m)
  target_link_options(${target} PRIVATE -fsanitize=fuzzer)
  add_dependencies(fuzzers ${target})

  set(arguments -runs=${KAPPA_FUZZ_RUNS} -max_len=4096 -seed=1 -timeout=10 -print_final_stats=1)
  file(GLOB seeds CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus/${name}/*)
  if(seeds)
    # Named one by one: libFuzzer would write its finds into a corpus folder.
    string(REPLACE ";" "," seeds "${seeds}")
    list(APPEND arguments -seed_inputs=${seeds})
  endif()
  if(EXISTS ${CMAKE_SOURCE_DIR}/tests/fuzz/${name}.dict)
    list(APPEND arguments -dict=${CMAKE_SOURCE_DIR}/tests/fuzz/${name}.dict)
  endif()
  add_test(NAME ${target} COMMAND ${target} ${arguments})
  set_tests_properties(${target} PROPERTIES LABELS fuzz TIMEOUT 300
    ENVIRONMENT "OMP_NUM_THREADS=2;OMP_WAIT_POLICY=passive")
endforeach()
