#!/bin/sh
# Accuracies of graft and of Hugging Face PEFT, method by method, from the same initial adapter on the same batches of film
# reviews (MiniLM): FOLDER/accuracy.md (a table) and FOLDER/accuracy.json. The same command goes on after an interruption.
# PyTorch, transformers and PEFT are installed into a folder that is removed at the end.
# Usage: bench/accuracy.sh FOLDER [--methods LIST] [--epochs E] [--max-steps N] [--seed N] [--threads N]   (accuracy.py --help)
# GRAFT_COMPARE_PYTHON: an interpreter that has torch, transformers and peft already, or `none`. GRAFT_SKIP_INSTALL=1 installs
# nothing. GRAFT_ENCODER: another BERT's folder (model_type bert: RoBERTa and DistilBERT name their modules and heads otherwise);
# GRAFT_LABELLED: another folder with train.csv and test.csv.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:?usage: bench/accuracy.sh FOLDER [--methods LIST] [--epochs E] [--max-steps N] [--seed N] [--threads N]}
shift
absolute() { case $1 in "" | none | /*) printf %s "$1" ;; *) printf %s "$PWD/$1" ;; esac; }
folder=$(absolute "$folder") GRAFT_BIN=$(absolute "${GRAFT_BIN:-}") GRAFT_ENCODER=$(absolute "${GRAFT_ENCODER:-}")
GRAFT_LABELLED=$(absolute "${GRAFT_LABELLED:-}")
cd "$here"
. cmake/setup.sh
bin=${GRAFT_BIN:-$here/build/release/bin}
[ -x "$bin/graft" ] ||
  graft_fail "bench/accuracy.sh: $bin/graft is not there; build it with: cmake --build --preset release --target graft"

model=${GRAFT_ENCODER:-$GRAFT_MINILM} reviews=${GRAFT_LABELLED:-$GRAFT_REVIEWS}
[ -n "${GRAFT_ENCODER:-}" ] || graft_fetch_minilm || graft_fail "The model could not be fetched."
[ -n "${GRAFT_LABELLED:-}" ] || graft_fetch_reviews || graft_fail "The reviews could not be fetched."

python=${GRAFT_COMPARE_PYTHON:-} why=
if [ -z "$python" ]; then
  if [ "${GRAFT_SKIP_INSTALL:-0}" = 1 ]; then
    python=none why="nothing is installed with GRAFT_SKIP_INSTALL=1"
  else
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    graft_say "Installing into a throw-away environment: torch transformers peft"
    python=$scratch/torch/bin/python
    {
      (graft_install python3-venv) && python3 -m venv "$scratch/torch" &&
        "$scratch/torch/bin/pip" install --quiet torch transformers peft
    } >"$scratch/log" 2>&1 || python=none why="could not be installed: $(tail -n 1 "$scratch/log" | cut -c1-200)"
  fi
fi
set -- "$folder" "$@" --bin "$bin" --model "$model" --train "$reviews/train.csv" --test "$reviews/test.csv"
if [ "$python" = none ]; then
  set -- "$@" --missing "$why"
else
  set -- "$@" --python "$python"
fi
python3 bench/accuracy.py "$@"
