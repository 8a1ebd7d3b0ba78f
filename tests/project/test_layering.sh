#!/bin/sh
# Fails on an #include that points up: a file of src/ may include its own folder and those that stand below
# it in this order, and public headers (kappa/...), which stand below all and include only each other.
set -eu

order="kappa core geometry backend ops dist data optim models train infer interchange study serve cli"

# check_layers TREE: prints every fault in TREE/src and TREE/include and returns 1 if there is one.
check_layers() {
  (
    cd "$1"
    find src include -type f \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.def' \) | sort |
      xargs awk -v order="$order" '
        BEGIN { count = split(order, names, " "); for (i = 1; i <= count; i++) level[names[i]] = i }
        FNR == 1 {
          split(FILENAME, part, "/")
          layer = part[2]
          if (FILENAME ~ /^src\/backend\/cuda\/optimizer/) layer = "optim" # the optimizer of that device
          if (!(layer in level)) fault("the folder " part[1] "/" layer " has no place in the order of layers")
        }
        /^[ \t]*#[ \t]*include[ \t]*["<]/ {
          match($0, /["<][^">]*/)
          path = substr($0, RSTART + 1, RLENGTH - 1)
          quoted = substr($0, RSTART, 1) == "\""
          target = path
          sub(/\/.*/, "", target)
          if (target in level && index(path, "/") > 0) {
            if (level[target] > level[layer]) fault(layer " may not include " path ", which stands above it")
          } else if (quoted) {
            fault("\"" path "\" is not of the form \"folder/file.h\"")
          }
        }
        function fault(words) { print FILENAME ":" FNR ": " words; bad = 1 }
        END { exit bad }'
  )
}

# ---- does the check itself work? ----

temporary=$(mktemp -d /tmp/kappa-layering-XXXXXX)
trap 'rm -rf "$temporary"' EXIT
mkdir -p "$temporary/src/core" "$temporary/src/models/parts" "$temporary/src/cli" "$temporary/include/kappa"

good_tree() {
  printf '#include <stdio.h>\n#include "kappa/error.h"\n#include "core/a.h"\n' >"$temporary/src/core/a.c"
  printf '#include "models/model.h"\n  #  include "core/a.h"\n' >"$temporary/src/models/parts/part.c"
  printf '#include "models/model.h"\n' >"$temporary/src/cli/main.c"
  printf '#include "kappa/version.h"\n#include <core.h>\n' >"$temporary/include/kappa/error.h"
  rm -rf "$temporary/src/elsewhere"
}

# expect_fault WORDS: the tree as it is must be refused with these words.
expect_fault() {
  if found=$(check_layers "$temporary"); then
    echo "the check accepts a tree in which $1"
    exit 1
  fi
  case $found in
    *"$1"*) ;;
    *)
      echo "the check says '$found' instead of '$1'"
      exit 1
      ;;
  esac
  good_tree
}

good_tree
check_layers "$temporary" || {
  echo "the check refuses a good tree"
  exit 1
}
printf '#include "models/model.h"\n' >"$temporary/src/core/a.c"
expect_fault "core may not include models/model.h"
printf '#include "core/a.h"\n#  include <cli/command.h>\n' >"$temporary/src/models/parts/part.c"
expect_fault "src/models/parts/part.c:2: models may not include cli/command.h"
printf '#include "core/error.h"\n' >"$temporary/include/kappa/error.h"
expect_fault "kappa may not include core/error.h"
printf '#include "part.h"\n' >"$temporary/src/models/parts/part.c"
expect_fault '"part.h" is not of the form'
mkdir "$temporary/src/elsewhere"
printf 'int x;\n' >"$temporary/src/elsewhere/a.c"
expect_fault "src/elsewhere has no place"

# ---- the tree ----

check_layers "${KAPPA_SOURCE:-$(dirname "$0")/../..}"
