#!/bin/sh
# finetune with methods that have modules of their own, inits that look at data, and other optimisers; and what it
# says where a method lacks something.
set -eu
. "${GRAFT_SOURCE_DIR:?}/tests/cli/common.sh"
python3 "${GRAFT_SOURCE_DIR:?}/tests/tiny_model.py" model
for i in $(seq 40); do echo "The seventh cat of number $i sat on the mat and looked at the moon."; done >text.txt
settings="--model model --data text.txt --steps 6 --batch-size 2 --sequence-length 24 --held-out 0 --seed 3 --json"
# tune NAME OPTION...: a run, whose last loss is below its first.
tune() {
  name=$1
  shift
  "$graft" finetune $settings --output "$name" "$@" >"$name.json" || fail "finetune $*: $(cat "$name.json")"
  python3 - "$name.json" "$*" <<'PYTHON'
import json, sys
run = json.load(open(sys.argv[1]))
assert run["complete"] and run["loss_last"] < run["loss_first"], (sys.argv[2], run)
PYTHON
}
# field NAME KEY: of the adapter's configuration.
field() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1] + "/adapter_config.json"))[sys.argv[2]])' "$1" "$2"; }

for method in pfeiffer ln-tuning prompt-tuning prefix-tuning bitfit full shadow; do
  extra=
  [ "$method" = full ] && extra="--target-modules all"
  tune "$method" --method "$method" --learning-rate 1e-2 $extra
done
tune adaption --method adaption_prompt --adapter-layers 1 --virtual-tokens 4 --learning-rate 5e-2
[ "$(field adaption adapter_layers)" = 1 ] && [ "$(field adaption adapter_len)" = 4 ] || fail "adaption prompt's layers"
tune whole --method adaption_prompt --virtual-tokens 4 --learning-rate 5e-2

for init in eva corda lora_ga; do
  tune "$init" --rank 4 --init "$init" --calibration-batches 3 --learning-rate 5e-3
done
[ -s corda/initial/adapter_config.json ] || fail "an init that changes weights kept no adapter of the beginning"
[ ! -e eva/initial ] || fail "EVA changes no weights"
"$graft" convert --input corda --initial corda/initial --output plain >/dev/null || fail "convert --initial"
for prompt in "The seventh" "looked at"; do
  "$graft" generate --model model --adapter plain --prompt "$prompt" --max-tokens 4 --temperature 0 >/dev/null
done

tune fa --rank 4 --optimizer lora-fa --learning-rate 5e-3
tune riemannian --rank 4 --riemannian --learning-rate 5e-3
tune plus --rank 4 --loraplus-ratio 8 --learning-rate 2e-3
tune sgd --rank 4 --optimizer sgd --learning-rate 5e-1
python3 - fa.json plus.json <<'PYTHON'
import json, sys
alone, both = (json.load(open(name))["trainable"] for name in sys.argv[1:])
assert alone < both, (alone, both)
PYTHON

no() { expect 2 "$@"; }
no 'has no such setting' "$graft" finetune $settings --output x --method ia3 --rank 4
no 'has no such setting' "$graft" finetune $settings --output x --method lora --adapter-layers 1
no 'no low-rank factors' "$graft" finetune $settings --output x --method ia3 --optimizer lora-fa
no 'no low-rank factors' "$graft" finetune $settings --output x --method ia3 --riemannian
no 'no factor B' "$graft" finetune $settings --output x --method ia3 --loraplus-ratio 4
no 'which look at data' "$graft" finetune $settings --output x --calibration-batches 4
no 'trains B alone' "$graft" finetune $settings --output x --optimizer lora-fa --riemannian

"$graft" methods --model model --json >methods.json
python3 - methods.json <<'PYTHON'
import json, sys
rows = {m["peft_type"]: m["trained"] for m in json.load(open(sys.argv[1]))}
config = json.load(open("model/config.json"))
width, layers = config["hidden_size"], config["num_hidden_layers"]
heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
head = config.get("head_dim", width // heads)
assert rows["LORA"] == 8 * layers * (2 * width + (heads + kv) * head), rows["LORA"]
assert rows["PROMPT_TUNING"] == 4 * width, rows["PROMPT_TUNING"]
PYTHON
