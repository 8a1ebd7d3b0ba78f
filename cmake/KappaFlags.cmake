# Compiler flags that every target of the project shares.
add_library(kappa_flags INTERFACE)
target_compile_options(kappa_flags INTERFACE
  -Wall -Wextra -Wshadow -Wundef -Wstrict-prototypes -Wmissing-prototypes -Wwrite-strings
  -Wdouble-promotion -Wvla -Wpointer-arith -Wformat=2
  # Kernels rely on IEEE semantics: no contraction surprises between backends, no fast-math.
  -fno-math-errno -fno-trapping-math)
if(KAPPA_WERROR)
  target_compile_options(kappa_flags INTERFACE -Werror)
endif()
if(CMAKE_BUILD_TYPE STREQUAL "Release")
  set(CMAKE_C_FLAGS_RELEASE "-O3")
endif()
if(KAPPA_SANITIZE)
  target_compile_options(kappa_flags INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g)
  target_link_options(kappa_flags INTERFACE -fsanitize=address,undefined)
  target_compile_definitions(kappa_flags INTERFACE KP_SANITIZE=1)
endif()
