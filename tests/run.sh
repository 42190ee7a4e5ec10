#!/bin/sh
# Installs what is missing (Debian 12), builds and runs all tests: the unit tests with clang under the address and
# undefined-behaviour sanitizers (preset asan), everything else, and the unit tests of the core again, as GCC makes
# them for users (preset release).
# Usage: sh tests/run.sh [argument of ctest]...
set -eu
cd "$(dirname "$0")/.."
. cmake/setup.sh

# shellcheck disable=SC2086 # words are meant to split
graft_install $GRAFT_TEST_PACKAGES
trap wait EXIT
{ # While the tests are built.
  graft_fetch_model || graft_say "Going on without the model: tests that need it say that they are skipped."
  graft_fetch_minilm || graft_say "Going on without the sentence encoder: tests that need it say that they are skipped."
} &
graft_fetch_barkeep || graft_say "Going on without barkeep: progress is printed as plain lines."

cmake --preset release -DGRAFT_BUILD_TESTS=ON -DGRAFT_BUILD_BENCH=ON -DGRAFT_BARKEEP_DIR="$GRAFT_BARKEEP_DIR" \
  -DGRAFT_TEST_GROUPS="base;kernels;tensor;quant"
cmake --build --preset release
cmake --preset asan
cmake --build --preset asan --target unit_tests
wait
failed=0
ctest --preset release -j "$(nproc)" "$@" || failed=1
ctest --preset asan -L unit -j "$(nproc)" --timeout 900 "$@" || failed=1
exit $failed
