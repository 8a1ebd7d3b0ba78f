# Compiler flags that every target of the project shares.
add_library(kappa_flags INTERFACE)
target_compile_options(kappa_flags INTERFACE
  -Wall -Wextra -Wshadow -Wundef -Wstrict-prototypes -Wmissing-prototypes -Wwrite-strings
  -Wvla -Wpointer-arith -Wformat=2
  # Neither changes a number; both let loops with sqrt and comparisons become vector code.
  -fno-math-errno -fno-trapping-math)

if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
  target_compile_options(kappa_flags INTERFACE -Wdouble-promotion)
else()
  # Clang's -Wdouble-promotion also objects to NAN and INFINITY, which C defines as float.  A loop that
  # its vectorizer leaves alone is no fault of the source.
  target_compile_options(kappa_flags INTERFACE -Wno-pass-failed)
endif()
if(KAPPA_WERROR)
  target_compile_options(kappa_flags INTERFACE -Werror)
endif()

set(CMAKE_C_FLAGS_RELEASE "-O3")
if(KAPPA_SANITIZE OR KAPPA_FUZZ)
  # A little optimization makes sanitized tests several times faster.
  set(CMAKE_C_FLAGS_DEBUG "-O1 -g")
  target_compile_options(kappa_flags INTERFACE
    -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
    # Guesses lengths from ranges of values, which the sanitizers' own code hides from it.
    $<$<C_COMPILER_ID:GNU>:-Wno-format-truncation>)
  target_link_options(kappa_flags INTERFACE -fsanitize=address,undefined)
  target_compile_definitions(kappa_flags INTERFACE KP_SANITIZE=1)
endif()
