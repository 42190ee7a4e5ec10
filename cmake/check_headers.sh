#!/bin/sh
# Every public header compiles as the only include of a file, without a warning. Files in impl/ are not public.
# Clang sees them as users of the compiled kernels do, the others as users of the headers alone.
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
for compiler in "$@"; do
  case $compiler in
    *clang*) kernels=-DGRAFT_KERNELS_COMPILED ;;
    *) kernels= ;;
  esac
  export compiler flags folder kernels
  # shellcheck disable=SC2016 # expanded by the inner shell
  if xargs -P "$(nproc)" -n 1 sh -c '
      header=$(echo "$1" | sed "s,^include/,,")
      source=$(mktemp "$folder/XXXXXX.cpp")
      printf "#include \"%s\"\n#include \"%s\"\n" "$header" "$header" >"$source"
      if ! $compiler $flags $kernels "$source" >"$source.log" 2>&1; then
        echo "== $header ($compiler)"
        head -n 30 "$source.log"
        exit 1
      fi' sh <"$folder/headers"; then
    echo "$compiler: $(wc -l <"$folder/headers") headers compile alone"
  else
    status=1
  fi
done
exit $status
