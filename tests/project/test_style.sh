#!/bin/sh
# What the project's text must not have: source files of more than 500 lines, words that mark unfinished work,
# paths of somebody's machine, and, where clang-format 14 is installed, C that is not formatted.
set -eu

limit=500

# In pieces, so that this file does not contain them.
unfinished="TO""DO|FIX""ME|XX""X|HA""CK"
machine="/ho""me/[a-z]|/ro""ot/|/wo""rk/|/Us""ers/|/mn""t/"

# list_files TREE: the files that belong to the project, without reference numbers and corpora.
list_files() {
  if [ -e "$1/.git" ] && git -C "$1" rev-parse >/dev/null 2>&1; then
    git -C "$1" ls-files
  else
    (cd "$1" && find . -type f ! -path './build/*' ! -path './.git/*' | sed 's|^\./||')
  fi | grep -v -E '^tests/(goldens|fuzz/corpus|data/bpe_training)/'
}

# check_style TREE: prints every fault and returns 1 if there is one.
check_style() {
  (
    cd "$1"
    status=0
    long=$(list_files . | grep -E '^src/.*\.(c|h|cu|cuh|def)$' | while read -r file; do
      lines=$(wc -l <"$file")
      [ "$lines" -le "$limit" ] || echo "$file: $lines lines, more than $limit: one concern per file"
    done)
    words=$(list_files . | tr '\n' '\0' | xargs -0 grep -I -n -w -E "$unfinished" /dev/null || true)
    paths=$(list_files . | tr '\n' '\0' | xargs -0 grep -I -n -E "(^|[^A-Za-z0-9_.})-])($machine)" /dev/null || true)
    if [ -n "$long" ]; then echo "$long" && status=1; fi
    if [ -n "$words" ]; then echo "a word for unfinished work:" && echo "$words" && status=1; fi
    if [ -n "$paths" ]; then echo "a path of one machine:" && echo "$paths" && status=1; fi
    exit $status
  )
}

# ---- does the check itself work? ----

temporary=$(mktemp -d /tmp/kappa-style-XXXXXX)
trap 'rm -rf "$temporary"' EXIT
mkdir -p "$temporary/src/core"

# expect_fault WORDS: the tree as it is must be refused with these words; then it is emptied.
expect_fault() {
  if found=$(check_style "$temporary"); then
    echo "the check accepts a tree with the fault: $1"
    exit 1
  fi
  case $found in
    *"$1"*) ;;
    *)
      echo "the check says '$found' instead of '$1'"
      exit 1
      ;;
  esac
  rm -f "$temporary"/src/core/*
}

printf '/* A good file; its toolbox, https://example.org/home/page */\n' >"$temporary/src/core/good.c"
seq "$limit" >"$temporary/src/core/full.c"
check_style "$temporary" || {
  echo "the check refuses a good tree"
  exit 1
}
seq $((limit + 1)) >"$temporary/src/core/long.c"
expect_fault "src/core/long.c: 501 lines"
echo "/* TO""DO: finish */" >"$temporary/src/core/a.c"
expect_fault "src/core/a.c:1"
echo "open(\"/ho""me/somebody/file\");" >"$temporary/src/core/a.c"
expect_fault "a path of one machine"

# ---- the tree ----

source=${KAPPA_SOURCE:-$(dirname "$0")/../..}
status=0
check_style "$source" || status=1

formatted=0
"$source/scripts/format" --check >"$temporary/format.log" 2>&1 || formatted=$?
case $formatted in
  0) ;;
  77) echo "not checked: $(cat "$temporary/format.log")" ;;
  *)
    echo "not formatted (make format):"
    grep 'error:' "$temporary/format.log" | cut -d: -f1 | sort | uniq -c
    status=1
    ;;
esac
exit $status
