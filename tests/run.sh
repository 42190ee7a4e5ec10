#!/bin/sh
# Installs what is missing (Debian 12), builds the preset release and runs all tests.
# Usage: sh tests/run.sh [argument of ctest]...
set -eu
cd "$(dirname "$0")/.."
. cmake/setup.sh

# shellcheck disable=SC2086 # words are meant to split
graft_install $GRAFT_BUILD_PACKAGES $GRAFT_FETCH_PACKAGES catch2 libbenchmark-dev libxtensor-dev gnuplot-nox \
  bible-kjv
graft_fetch_model || graft_say "Going on without the model: tests that need it say that they are skipped."
graft_fetch_minilm || graft_say "Going on without the sentence encoder: tests that need it say that they are skipped."
graft_fetch_barkeep || graft_say "Going on without barkeep: progress is printed as plain lines."

cmake --preset release -DGRAFT_BUILD_TESTS=ON -DGRAFT_BUILD_BENCH=ON -DGRAFT_BARKEEP_DIR="$GRAFT_BARKEEP_DIR"
cmake --build --preset release
ctest --preset release -j "$(nproc)" "$@"
