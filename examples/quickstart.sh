#!/bin/sh
# From a bare Debian 12 to a fine-tuned language model: installs what is missing, fetches a small model and a
# public-domain text, builds the program graft, trains LoRA adapters on the 4-bit model, shows what changed.
# Usage: sh examples/quickstart.sh [FOLDER]     (default: graft-quickstart in the repository)
set -eu
cd "$(dirname "$0")/.."
. cmake/setup.sh
folder=${1:-graft-quickstart}

# shellcheck disable=SC2086 # words are meant to split
graft_install $GRAFT_BUILD_PACKAGES $GRAFT_FETCH_PACKAGES gnuplot-nox bible-kjv
graft_fetch_model || graft_fail "The model could not be fetched."
graft_fetch_barkeep || graft_say "Going on without barkeep: progress is printed as plain lines."
graft_build_program

mkdir -p "$folder"
graft_kjv_text >"$folder/text.txt"

build/release/bin/graft finetune \
  --model "$GRAFT_MODEL" --data "$folder/text.txt" --output "$folder/adapter" \
  --method lora --rank 16 --alpha 32 --target-modules all-linear \
  --steps 100 --batch-size 4 --sequence-length 256 \
  --learning-rate 5e-4 --scheduler cosine --warmup-steps 5 \
  --held-out 0.008 --eval-interval 25 --seed 1 \
  --sample-prompt "In the beginning" --report "$folder/report.html"

graft_say
graft_say "Ask it for more:"
graft_say "  build/release/bin/graft generate --model $GRAFT_MODEL --adapter $folder/adapter --prompt 'And it came to pass'"
