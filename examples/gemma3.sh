#!/bin/sh
# From a bare Debian 12 to a fine-tuned Gemma 3 270M: installs what is missing, fetches the model in its Q4_K_M blocks
# and a public-domain text, builds the program graft, trains LoRA adapters, continues a prompt with and without them.
# Gemma is provided under and subject to the Gemma Terms of Use, ai.google.dev/gemma/terms.
# Usage: sh examples/gemma3.sh [FOLDER]     (default: graft-gemma3 in the repository)
set -eu
cd "$(dirname "$0")/.."
. cmake/setup.sh
folder=${1:-graft-gemma3}

# shellcheck disable=SC2086 # words are meant to split
graft_install $GRAFT_BUILD_PACKAGES $GRAFT_FETCH_PACKAGES gnuplot-nox bible-kjv
graft_fetch_gemma3 || graft_fail "The model could not be fetched."
graft_fetch_barkeep || graft_say "Going on without barkeep: progress is printed as plain lines."
graft_build_program

mkdir -p "$folder"
graft_kjv_text >"$folder/text.txt"

build/release/bin/graft finetune \
  --model "$GRAFT_GEMMA3" --data "$folder/text.txt" --output "$folder/adapter" \
  --method lora --rank 8 --alpha 16 --target-modules all-linear \
  --steps 60 --batch-size 4 --sequence-length 128 \
  --learning-rate 5e-4 --scheduler cosine --warmup-steps 5 \
  --held-out 0.002 --eval-interval 20 --seed 1 --report "$folder/report.html"

for adapter in "" "--adapter $folder/adapter"; do
  graft_say
  graft_say "graft generate ${adapter:-(without the adapter)}:"
  # shellcheck disable=SC2086 # two words or none
  build/release/bin/graft generate --model "$GRAFT_GEMMA3" $adapter --prompt "And it came to pass" \
    --max-tokens 32 --temperature 0
done
