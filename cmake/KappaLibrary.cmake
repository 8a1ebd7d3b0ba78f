# The library, one object library per instruction set for the fast kernels, and the program.
file(GLOB_RECURSE KAPPA_SOURCES CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/*.c)
set(KAPPA_CLI_SOURCES ${KAPPA_SOURCES})
set(KAPPA_ISA_SOURCES ${KAPPA_SOURCES})
list(FILTER KAPPA_CLI_SOURCES INCLUDE REGEX "/src/cli/")
list(FILTER KAPPA_ISA_SOURCES INCLUDE REGEX "/src/backend/cpu/isa/")
list(FILTER KAPPA_SOURCES EXCLUDE REGEX "/src/(cli|backend/cpu/isa)/")
if(KAPPA_HAS_CUDA)
  list(FILTER KAPPA_SOURCES EXCLUDE REGEX "/src/backend/cuda/absent.c")
else()
  list(FILTER KAPPA_SOURCES EXCLUDE REGEX "/src/backend/cuda/table.c")
endif()

# The PyTorch code that exports come with is part of the library.
set(KAPPA_MODELING ${CMAKE_SOURCE_DIR}/src/interchange/modeling)
file(READ ${KAPPA_MODELING}/modeling_kappa.py KAPPA_MODELING_BYTES HEX)
string(REGEX REPLACE "(..)" "0x\\1," KAPPA_MODELING_BYTES "${KAPPA_MODELING_BYTES}")
configure_file(${KAPPA_MODELING}/modeling.c.in ${CMAKE_BINARY_DIR}/modeling_kappa.c @ONLY)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${KAPPA_MODELING}/modeling_kappa.py)
list(APPEND KAPPA_SOURCES ${CMAKE_BINARY_DIR}/modeling_kappa.c)

add_library(kappa STATIC ${KAPPA_SOURCES})
add_library(kappa::kappa ALIAS kappa)
set_target_properties(kappa PROPERTIES POSITION_INDEPENDENT_CODE ON)
target_include_directories(kappa
  PUBLIC $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>
  PRIVATE ${CMAKE_SOURCE_DIR}/src)
target_link_libraries(kappa
  PRIVATE $<BUILD_INTERFACE:kappa_flags> kappa::blas OpenMP::OpenMP_C PkgConfig::JANSSON
          PkgConfig::YAML PkgConfig::CURL PkgConfig::NETTLE PkgConfig::PCRE2 PkgConfig::ARCHIVE Threads::Threads m)

# The same kernel sources are compiled once per instruction set; the processor's best is picked at run time.
# Fuzzing looks at readers of files, which have no kernels: one level will do there.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" AND NOT KAPPA_FUZZ)
  set(KAPPA_ISAS "sse\;-march=x86-64-v2" "avx2\;-march=x86-64-v3" "avx512\;-march=x86-64-v4 -mprefer-vector-width=512")
  target_compile_definitions(kappa PRIVATE KP_ISA_X86=1)
else()
  set(KAPPA_ISAS "plain\;")
endif()
# Row programs in lanes become vector instructions whole or not at all.  Partial redundancy elimination would
# put branches of truth values into the loops, and the polynomials have up to 18 terms to unroll.
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
  set_source_files_properties(${CMAKE_SOURCE_DIR}/src/backend/cpu/isa/lanes_hyperbolic.c
    ${CMAKE_SOURCE_DIR}/src/backend/cpu/isa/lanes_spherical.c
    PROPERTIES COMPILE_OPTIONS "-fno-tree-pre;--param=max-completely-peel-times=32")
endif()
if(KAPPA_HAS_CUDA)
  target_sources(kappa PRIVATE $<TARGET_OBJECTS:kappa_cuda>)
  target_link_libraries(kappa PRIVATE CUDA::cudart_static CUDA::cublasLt stdc++)
endif()
foreach(entry IN LISTS KAPPA_ISAS)
  list(GET entry 0 isa)
  list(GET entry 1 flags)
  separate_arguments(flags)
  if(KAPPA_ISA_SOURCES)
    add_library(kappa_${isa} OBJECT ${KAPPA_ISA_SOURCES})
    set_target_properties(kappa_${isa} PROPERTIES POSITION_INDEPENDENT_CODE ON)
    target_include_directories(kappa_${isa} PRIVATE ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/include)
    target_compile_options(kappa_${isa} PRIVATE ${flags})
    target_compile_definitions(kappa_${isa} PRIVATE KP_ISA=${isa})
    target_link_libraries(kappa_${isa} PRIVATE kappa_flags kappa::blas OpenMP::OpenMP_C)
    target_sources(kappa PRIVATE $<TARGET_OBJECTS:kappa_${isa}>)
  endif()
endforeach()

if(KAPPA_CLI_SOURCES)
  add_executable(kappa_program ${KAPPA_CLI_SOURCES})
  set_target_properties(kappa_program PROPERTIES OUTPUT_NAME kappa)
  target_compile_definitions(kappa_program PRIVATE KP_VERSION="${PROJECT_VERSION}")
  target_include_directories(kappa_program PRIVATE ${CMAKE_SOURCE_DIR}/src)
  target_link_libraries(kappa_program PRIVATE kappa_flags kappa OpenMP::OpenMP_C PkgConfig::JANSSON)
endif()
