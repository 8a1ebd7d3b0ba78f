# One cmocka program per tests/**/test_*.c; ctest runs each.
pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
file(GLOB_RECURSE KAPPA_TESTS CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/test_*.c)
file(GLOB KAPPA_TEST_SUPPORT CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/support/*.c)
add_library(kappa_test_support STATIC EXCLUDE_FROM_ALL ${KAPPA_TEST_SUPPORT})
target_include_directories(kappa_test_support PUBLIC ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/tests)
target_link_libraries(kappa_test_support PRIVATE kappa_flags PUBLIC kappa PkgConfig::CMOCKA PkgConfig::JANSSON)
target_compile_definitions(kappa_test_support PRIVATE KP_TEST_DIRECTORY="${CMAKE_SOURCE_DIR}/tests"
  KP_PROGRAM="${CMAKE_BINARY_DIR}/kappa")
add_dependencies(kappa_test_support kappa_program)
foreach(source IN LISTS KAPPA_TESTS)
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/tests)
  target_link_libraries(${name} PRIVATE kappa_flags kappa_test_support kappa PkgConfig::CMOCKA OpenMP::OpenMP_C PkgConfig::JANSSON m)
  target_compile_definitions(${name} PRIVATE KP_TEST_DIRECTORY="${CMAKE_SOURCE_DIR}/tests"
    KP_PROGRAM="${CMAKE_BINARY_DIR}/kappa")
  add_test(NAME ${name} COMMAND ${name})
endforeach()
