#!/bin/sh
# A statically typed adapter costs no indirection: the object code of its forward pass calls by name only, and
# no erased type (AnyLinear, LinearPart) is in it. The tape's recorded operations are virtual and not looked at.
# Always with g++: it keeps the release of shared pointers, which is indirect, out of line.
set -eu
command -v objdump >/dev/null 2>&1 || { echo "skipped: no objdump"; exit 77; }
command -v g++ >/dev/null 2>&1 || { echo "skipped: no g++"; exit 77; }
[ "$(uname -m)" = x86_64 ] || { echo "skipped: reads x86-64 code"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
eigen=$(sed -n 's/^Eigen3_DIR:PATH=//p' "${GRAFT_BUILD_DIR:?}/CMakeCache.txt")
eigen=${eigen%/share/eigen3/cmake}/include/eigen3
g++ -std=c++20 -O2 -DGRAFT_KERNELS_COMPILED -I "$GRAFT_SOURCE_DIR/include" -isystem "$eigen" \
  -c "$GRAFT_SOURCE_DIR/tests/concepts/direct_calls.cpp" -o "$folder/object"
objdump -dCr --no-show-raw-insn "$folder/object" >"$folder/code"
if grep -qE 'AnyLinear|LinearPart' "$folder/code"; then
  echo "failed: an erased type in the code of a static one"
  exit 1
fi
awk '
  /^[0-9a-f]+ <.*>:$/ {
    name = $0
    sub(/^[0-9a-f]+ </, "", name)
    watched = name ~ /^(graft::.* )?(static_forward|graft::v[0-9_]+::(BasicLoRA<float>::apply|Adapted<|linear(_low_rank)?<))/ &&
              name !~ /\{lambda/
    functions += watched
  }
  watched && /(call|jmp) +\*/ { print "failed: an indirect call in " name; print; bad = 1 }
  END {
    if (functions < 2) { print "failed: the forward passes are not in the code"; exit 1 }
    if (!bad) print "ok: " functions " functions, direct calls only"
    exit bad
  }' "$folder/code"
