#!/bin/sh
# Installs the build into a fresh prefix, moves it, and builds examples/distance with it twice: by CMake's
# find_package and by pkg-config.
set -eu

source=${KAPPA_SOURCE:?the source tree}
build=${KAPPA_BUILD:?its build folder}
compiler=${CC:-cc}

temporary=$(mktemp -d /tmp/kappa-install-XXXXXX)
trap 'rm -rf "$temporary"' EXIT

fail() {
  echo "test_install: $1"
  exit 1
}

# quietly COMMAND: shows its output only when it fails.
quietly() {
  "$@" >"$temporary/log" 2>&1 || {
    cat "$temporary/log"
    fail "failed: $*"
  }
}

# Distances and midpoints computed another way: on the hyperboloid and the sphere in three dimensions.
cat >"$temporary/expected" <<'END'
hyperbolic  kappa -1.0  distance 2.078208  midpoint (0.360285, 0.209160)
flat        kappa  0.0  distance 1.562050  midpoint (0.400000, 0.275000)
spherical   kappa  1.0  distance 1.302989  midpoint (0.425147, 0.315519)
END

# Whether a program looks for its libraries in the folder of the OpenBLAS that the build uses.
looks_for_openblas() {
  folder=$(dirname "$(ldd "$build/kappa" | sed -n 's/^.*libopenblas[^ ]* => \([^ ]*\).*$/\1/p')")
  readelf -d "$1" | grep 'R.*PATH' | grep -q -F "$folder"
}

check_output() {
  "$1" >"$temporary/output" || fail "$1 does not run"
  head -n 1 "$temporary/output" | grep -q -E '^kappa [0-9]+\.[0-9]+\.[0-9]+$' || fail "no version in its first line"
  tail -n +2 "$temporary/output" | diff "$temporary/expected" - || fail "$2: other numbers than expected"
}

# Staged below DESTDIR for one prefix, and then moved to another: nothing may depend on where it was.
quietly env DESTDIR="$temporary/stage" cmake --install "$build" --prefix /opt/first
mv "$temporary/stage/opt/first" "$temporary/kappa"
prefix=$temporary/kappa

for file in lib*/libkappa.a include/kappa/kappa.h lib*/cmake/kappa/kappa-config.cmake lib*/pkgconfig/kappa.pc; do
  found=$(find "$prefix" -path "$prefix/$file" | head -n 1)
  [ -n "$found" ] || fail "$file is not installed"
done
if [ -e "$build/kappa" ]; then
  "$prefix/bin/kappa" --help >/dev/null || fail "the installed program does not run"
  if looks_for_openblas "$build/kappa"; then
    looks_for_openblas "$prefix/bin/kappa" || fail "the installed program does not look for its OpenBLAS"
  fi
fi
if [ -d "$source/configs" ]; then
  [ -d "$prefix/share/kappa/configs" ] || fail "the presets are not installed"
fi
if grep -r -l -F -e "$source/src" -e "$source/include" -e "$build" -e /opt/first --include='*.cmake' --include='*.pc' --include='*.h' "$prefix"; then
  fail "these files name the folder that kappa was built in or installed to"
fi

quietly cmake -S "$source/examples/distance" -B "$temporary/build" -DCMAKE_PREFIX_PATH="$prefix" \
  -DCMAKE_C_COMPILER="$compiler"
quietly cmake --build "$temporary/build"
check_output "$temporary/build/distance" "find_package"

PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name kappa.pc)")
export PKG_CONFIG_PATH
# shellcheck disable=SC2046
quietly "$compiler" "$source/examples/distance/main.c" $(pkg-config --cflags --libs kappa) -o "$temporary/distance"
check_output "$temporary/distance" "pkg-config"
