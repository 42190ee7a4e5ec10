#!/bin/sh
# From a bare Debian 12 to a sentiment classifier: installs what is missing, fetches a small sentence encoder and
# sentences of film reviews that people have rated, builds the program graft, trains a LoRA adapter with a
# classification head, and labels new sentences.
# Usage: sh examples/sentiment.sh [FOLDER]     (default: graft-sentiment in the repository)
set -eu
cd "$(dirname "$0")/.."
. cmake/setup.sh
folder=${1:-graft-sentiment}

# shellcheck disable=SC2086 # words are meant to split
graft_install $GRAFT_BUILD_PACKAGES $GRAFT_FETCH_PACKAGES gnuplot-nox
graft_fetch_minilm || graft_fail "The model could not be fetched."
graft_fetch_reviews || graft_fail "The reviews could not be fetched."
graft_fetch_barkeep || graft_say "Going on without barkeep: progress is printed as plain lines."
graft_build_program

build/release/bin/graft finetune --task classification \
  --model "$GRAFT_MINILM" --data "$GRAFT_REVIEWS/train.csv" \
  --held-out-data "$GRAFT_REVIEWS/held-out.csv" --test-data "$GRAFT_REVIEWS/test.csv" \
  --output "$folder/adapter" --overwrite \
  --method lora --rank 8 --alpha 16 --target-modules query,value \
  --epochs 2 --batch-size 32 --sequence-length 128 --learning-rate 1e-3 --scheduler linear \
  --eval-interval 100 --seed 1 --report "$folder/report.html"

graft_say
graft_say "New sentences:"
cat >"$folder/new.txt" <<'TEXT'
A warm, funny film that I would gladly see again.
Two hours of my life that nobody will give back to me.
TEXT
build/release/bin/graft predict --model "$GRAFT_MINILM" --adapter "$folder/adapter" --data "$folder/new.txt"
