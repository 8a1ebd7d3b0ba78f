# Every tests/**/test_*.c is one cmocka program and every tests/project/test_*.sh one script; ctest runs each.
#
# Labels, by the name of the test:
#   long           takes more than some ten seconds
#   release-only   not run under the sanitizers: what it looks at is the same there, or too slow
set(KAPPA_TESTS_LONG test_bad_input test_learning_rates test_lora test_operator_backends test_operator_gradients
  test_operator_hostile test_optimizer test_properties test_resume)
set(KAPPA_TESTS_RELEASE_ONLY test_learning_rates)

# Threads that wait must not spin: several tests share the cores.  Under the sanitizers an allocation that is
# too large fails as it does without them, so that the library's own report of it is tested.
set(KAPPA_TEST_ENVIRONMENT OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive
  ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1)

function(kappa_describe_test name)
  set(labels ${ARGN})
  set(timeout 300)
  if(name IN_LIST KAPPA_TESTS_LONG)
    list(APPEND labels long)
    set(timeout 900)
    set_tests_properties(${name} PROPERTIES COST 100) # first, so that none runs alone at the end
  endif()
  if(name IN_LIST KAPPA_TESTS_RELEASE_ONLY)
    list(APPEND labels release-only)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${timeout} LABELS "${labels}")
  set_property(TEST ${name} APPEND PROPERTY ENVIRONMENT ${KAPPA_TEST_ENVIRONMENT})
endfunction()

pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
file(GLOB_RECURSE KAPPA_TESTS CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/test_*.c)
file(GLOB KAPPA_TEST_SUPPORT CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/support/*.c)
add_library(kappa_test_support STATIC EXCLUDE_FROM_ALL ${KAPPA_TEST_SUPPORT})
target_include_directories(kappa_test_support PUBLIC ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/tests)
target_link_libraries(kappa_test_support PRIVATE kappa_flags PUBLIC kappa PkgConfig::CMOCKA PkgConfig::JANSSON)
target_compile_definitions(kappa_test_support PRIVATE KP_TEST_DIRECTORY="${CMAKE_SOURCE_DIR}/tests"
  KP_PROGRAM="${CMAKE_BINARY_DIR}/kappa")
add_dependencies(kappa_test_support kappa_program)
# Tests that need a GPU: built where the toolkit is, run by scripts/test-gpu.
set(KAPPA_GPU_TESTS ${KAPPA_TESTS})
list(FILTER KAPPA_GPU_TESTS INCLUDE REGEX "/tests/gpu/")
list(FILTER KAPPA_TESTS EXCLUDE REGEX "/tests/gpu/")
function(kappa_add_test_program name source)
  add_executable(${name} ${source})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/tests)
  target_link_libraries(${name} PRIVATE kappa_flags kappa_test_support kappa PkgConfig::CMOCKA OpenMP::OpenMP_C PkgConfig::JANSSON m)
  target_compile_definitions(${name} PRIVATE KP_TEST_DIRECTORY="${CMAKE_SOURCE_DIR}/tests"
    KP_PROGRAM="${CMAKE_BINARY_DIR}/kappa")
endfunction()
file(GLOB KAPPA_GPU_TIMERS CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/gpu/time_*.c)
if(KAPPA_HAS_CUDA)
  add_custom_target(gpu_tests)
  foreach(source IN LISTS KAPPA_GPU_TESTS KAPPA_GPU_TIMERS)
    get_filename_component(name ${source} NAME_WE)
    kappa_add_test_program(${name} ${source})
    add_dependencies(gpu_tests ${name})
  endforeach()
else()
  add_custom_target(gpu_tests
    COMMAND ${CMAKE_COMMAND} -E echo "the CUDA toolkit, 12.4 or later, was not found: configure.log says more"
    COMMAND ${CMAKE_COMMAND} -E false)
endif()
foreach(source IN LISTS KAPPA_TESTS)
  get_filename_component(name ${source} NAME_WE)
  kappa_add_test_program(${name} ${source})
  add_test(NAME ${name} COMMAND ${name})
  kappa_describe_test(${name})
endforeach()

# Scripts look at the tree or at an installation, not at the code as it runs.
file(GLOB KAPPA_TEST_SCRIPTS CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/project/test_*.sh)
foreach(source IN LISTS KAPPA_TEST_SCRIPTS)
  get_filename_component(name ${source} NAME_WE)
  add_test(NAME ${name} COMMAND sh ${source})
  set_property(TEST ${name} PROPERTY ENVIRONMENT
    "KAPPA_SOURCE=${CMAKE_SOURCE_DIR};KAPPA_BUILD=${CMAKE_BINARY_DIR};CC=${CMAKE_C_COMPILER}")
  set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77)
  kappa_describe_test(${name} release-only)
endforeach()
