#!/bin/sh
# Deliberate mistakes must not compile, and the compiler must say so briefly and name the concept (or the
# member) that the first line of the file expects. The stack of includes is not counted: it depends on where
# headers lie. Every compiler that is there is tried.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
eigen=$(sed -n 's/^Eigen3_DIR:PATH=//p' "${GRAFT_BUILD_DIR:?}/CMakeCache.txt")
eigen=${eigen%/share/eigen3/cmake}/include/eigen3
failed=0
tried="<>"
for compiler in "${CXX:-c++}" g++ clang++-16; do
  version=$("$compiler" --version 2>/dev/null | sed -n '1s/^[^ ]* //p')
  case "$tried" in *"<$version>"*) continue ;; esac # g++ under another name, or missing
  tried="$tried<$version>"
  for file in "$GRAFT_SOURCE_DIR"/tests/concepts/mistakes/*.cpp; do
    expected=$(sed -n '1s/^.*Expected: //p' "$file")
    name=$(basename "$file" .cpp)
    if LC_ALL=C "$compiler" -std=c++20 -fsyntax-only -I "$GRAFT_SOURCE_DIR/include" -isystem "$eigen" "$file" \
      2>"$folder/all"; then
      echo "failed: $compiler compiles $name"
      failed=1
      continue
    fi
    grep -v -e '^In file included from' -e '^  *from ' "$folder/all" >"$folder/lines"
    lines=$(wc -l <"$folder/lines")
    if [ "$lines" -lt 15 ] && grep -q "$expected" "$folder/lines"; then
      echo "ok: $compiler, $name: $lines lines"
    else
      echo "failed: $compiler, $name: $lines lines, expected less than 15 and $expected:"
      cat "$folder/all"
      failed=1
    fi
  done
done
exit $failed
