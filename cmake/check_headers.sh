#!/bin/sh
# Every public header compiles as the only include of a file, without a warning, under the first compiler; under the
# others all of them together, as users of the headers alone and of the compiled kernels. Files in impl/ are not public.
# Usage: sh cmake/check_headers.sh COMPILER...
set -u
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
flags="-std=c++20 -fsyntax-only -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -Iinclude $(pkg-config --cflags-only-I eigen3 | sed 's/-I/-isystem /g')"
find include/graft -name '*.hpp' | sort >"$folder/headers"
if ! echo '#include <xtensor/xtensor.hpp>' | g++ -std=c++20 -fsyntax-only -x c++ - 2>/dev/null; then
  echo "xtensor is not installed: its header is left out"
  grep -v interop/xtensor "$folder/headers" >"$folder/some" && mv "$folder/some" "$folder/headers"
fi
grep -v -e /impl/ -e /distributed/ -e /cuda/ "$folder/headers" >"$folder/some" && mv "$folder/some" "$folder/headers"
status=0
alone=$1
shift
export alone flags folder
# shellcheck disable=SC2016 # expanded by the inner shell
if xargs -P "$(nproc)" -n 1 sh -c '
    header=$(echo "$1" | sed "s,^include/,,")
    source=$(mktemp "$folder/XXXXXX.cpp")
    printf "#include \"%s\"\n#include \"%s\"\n" "$header" "$header" >"$source"
    if ! $alone $flags -DGRAFT_KERNELS_COMPILED "$source" >"$source.log" 2>&1; then
      echo "== $header ($alone)"
      head -n 30 "$source.log"
      exit 1
    fi' sh <"$folder/headers"; then
  echo "$alone: $(wc -l <"$folder/headers") headers compile alone"
else
  status=1
fi
sed 's,^include/\(.*\)$,#include "\1",' "$folder/headers" >"$folder/all.cpp"
for compiler in "$alone" "$@"; do
  for kernels in "" -DGRAFT_KERNELS_COMPILED; do
    # shellcheck disable=SC2086 # words are meant to split
    if $compiler $flags $kernels "$folder/all.cpp" >"$folder/log" 2>&1; then
      echo "$compiler $kernels: all headers compile together"
    else
      echo "== all headers ($compiler $kernels)"
      head -n 30 "$folder/log"
      status=1
    fi
  done
done
exit $status
