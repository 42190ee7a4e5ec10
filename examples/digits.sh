#!/bin/sh
# Methods side by side on images: a small random vision transformer learns the handwritten digits 0 to 4 with all its
# weights, is frozen, and then each method adapts it to the digits 5 to 9 under the same budget.
# Usage: sh examples/digits.sh [FOLDER] [METHODS]     (default: graft-digits in the repository, and a few methods)
set -eu
cd "$(dirname "$0")/.."
. cmake/setup.sh
folder=${1:-graft-digits}
methods=${2:-lora,dora,adalora,vera,oft,ia3,ssf,bitfit,loha,houlsby,prefix_tuning,probe,full}

# shellcheck disable=SC2086 # words are meant to split
graft_install $GRAFT_BUILD_PACKAGES python3 gnuplot-nox
graft_fetch_barkeep || graft_say "Going on without barkeep: progress is printed as plain lines."
graft_build_program

mkdir -p "$folder"
# 64 pixels and the digit a line; two of three of the larger digits are for training.
awk -F, '$65 < 5' examples/data/digits.csv >"$folder/low.csv"
awk -F, '$65 >= 5 && ++n % 3' examples/data/digits.csv >"$folder/train.csv"
awk -F, '$65 >= 5 && ++n % 3 == 0' examples/data/digits.csv >"$folder/test.csv"
python3 tests/tiny_model.py "$folder/random" vit

table="--task image-classification --no-header --label-column 65 --batch-size 32"
# shellcheck disable=SC2086 # words are meant to split
{
  [ -d "$folder/base" ] || {
    build/release/bin/graft finetune $table --model "$folder/random" --data "$folder/low.csv" --output "$folder/pretrained" \
      --overwrite --method full --target-modules all --epochs 120 --learning-rate 2e-3 --held-out 0.1 --seed 1
    build/release/bin/graft merge --model "$folder/random" --adapter "$folder/pretrained" --output "$folder/base"
  }
  build/release/bin/graft compare $table --model "$folder/base" --data "$folder/train.csv" --test-data "$folder/test.csv" \
    --methods "$methods" --seeds 3 --epochs 60 --learning-rates 2e-3,1e-2 --full-learning-rates 5e-4,2e-3 --held-out 0.15 --threads 1 \
    --output "$folder/comparison"
}
