# The libraries that kappa builds on; docs/dependencies.md says why each was chosen.
# Read by the build and, installed beside it, by the CMake package for programs that use kappa.
find_package(PkgConfig REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS C)
find_package(Threads REQUIRED)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)
pkg_check_modules(YAML REQUIRED IMPORTED_TARGET yaml-0.1)
pkg_check_modules(CURL REQUIRED IMPORTED_TARGET libcurl)
pkg_check_modules(NETTLE REQUIRED IMPORTED_TARGET nettle)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(ARCHIVE REQUIRED IMPORTED_TARGET libarchive)

# OpenBLAS must be its OpenMP build: with the pthread build two thread pools fight for the cores.
find_library(OPENBLAS_LIBRARY NAMES openblas
  PATHS /usr/lib/${CMAKE_LIBRARY_ARCHITECTURE}/openblas-openmp NO_DEFAULT_PATH)
find_library(OPENBLAS_LIBRARY NAMES openblas REQUIRED)
find_path(OPENBLAS_INCLUDE cblas.h
  PATHS /usr/include/${CMAKE_LIBRARY_ARCHITECTURE}/openblas-openmp NO_DEFAULT_PATH)
find_path(OPENBLAS_INCLUDE cblas.h PATH_SUFFIXES openblas REQUIRED)
get_filename_component(OPENBLAS_DIRECTORY ${OPENBLAS_LIBRARY} DIRECTORY)
add_library(kappa::blas INTERFACE IMPORTED)
target_include_directories(kappa::blas SYSTEM INTERFACE ${OPENBLAS_INCLUDE})
target_link_libraries(kappa::blas INTERFACE ${OPENBLAS_LIBRARY})
target_link_options(kappa::blas INTERFACE -Wl,-rpath,${OPENBLAS_DIRECTORY})

# oneDNN's sgemm, where it is there: faster than OpenBLAS on most shapes (docs/dependencies.md).
option(KAPPA_ONEDNN "Matrix products by oneDNN when it is found" ON)
find_library(ONEDNN_LIBRARY NAMES dnnl)
find_path(ONEDNN_INCLUDE oneapi/dnnl/dnnl.h)
if(KAPPA_ONEDNN AND ONEDNN_LIBRARY AND ONEDNN_INCLUDE)
  target_include_directories(kappa::blas SYSTEM INTERFACE ${ONEDNN_INCLUDE})
  target_link_libraries(kappa::blas INTERFACE ${ONEDNN_LIBRARY})
  target_compile_definitions(kappa::blas INTERFACE KP_ONEDNN=1)
endif()
