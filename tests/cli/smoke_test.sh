#!/bin/sh
# A whole round on a tiny random model: fine-tune, save, evaluate, generate, and the ways to fail.
set -eu
. "${GRAFT_SOURCE_DIR:?}/tests/cli/common.sh"
# number KEY FILE: a value of a JSON object.
number() { python3 -c 'import json, sys; print(json.load(open(sys.argv[2]))[sys.argv[1]])' "$1" "$2"; }
less() { python3 -c 'import sys; sys.exit(not float(sys.argv[1]) < float(sys.argv[2]))' "$1" "$2"; }

python3 "${GRAFT_SOURCE_DIR:?}/tests/tiny_model.py" model
for i in $(seq 60); do echo "The seventh cat of number $i sat on the mat and looked at the moon."; done >text.txt

"$graft" finetune --model model --data text.txt --output adapter --rank 4 --steps 30 --batch-size 4 \
  --sequence-length 32 --learning-rate 1e-2 --held-out 0.1 --seed 3 --report report.html --json >finetune.json
less "$(number perplexity_after finetune.json)" "$(number perplexity_before finetune.json)" ||
  fail "training did not lower the held-out perplexity: $(cat finetune.json)"
[ -s adapter/adapter_model.safetensors ] && [ -s adapter/adapter_config.json ] || fail "no adapter was saved"
grep -q "</html>" report.html || fail "the report is not whole"
grep -q -e 'src="http' -e 'href="http' report.html && fail "the report needs the network"

"$graft" evaluate --model model --data text.txt --adapter adapter --sequence-length 32 --json >evaluate.json
python3 - evaluate.json <<'PYTHON'
import json, sys
text = json.dumps(json.load(open(sys.argv[1])))
assert "perplexity" in text, text
PYTHON
"$graft" generate --model model --adapter adapter --prompt "The seventh" --max-tokens 8 --temperature 0 >one.txt
"$graft" generate --model model --adapter adapter --prompt "The seventh" --max-tokens 8 --temperature 0 >two.txt
cmp one.txt two.txt || fail "greedy generation differs between two runs"

# The same run again gives the same adapter, on one thread too.
"$graft" finetune --model model --data text.txt --output again --rank 4 --steps 30 --batch-size 4 \
  --sequence-length 32 --learning-rate 1e-2 --held-out 0.1 --seed 3 --threads 1 --json >again.json
cmp adapter/adapter_model.safetensors again/adapter_model.safetensors ||
  fail "the same seed gave another adapter on one thread"

# A limit of memory costs time alone: blocks are recomputed, and one that cannot be kept is refused.
python3 "${GRAFT_SOURCE_DIR:?}/tests/tiny_model.py" deep llama 8
predicted() { sed -n 's/.*about \([0-9]*\) MiB more in training.*/\1/p' "$1"; }
"$graft" finetune --model deep --data text.txt --output plain --rank 4 --steps 2 --batch-size 8 \
  --sequence-length 256 --held-out 0.1 --seed 3 >plain.log 2>&1
"$graft" finetune --model deep --data text.txt --output limited --rank 4 --steps 2 --batch-size 8 \
  --sequence-length 256 --held-out 0.1 --seed 3 --memory-limit $(($(predicted plain.log) - 1)) >limited.log 2>&1
grep -q 'of [0-9]* blocks recomputed' limited.log || fail "the limit recomputed nothing: $(cat limited.log)"
cmp plain/adapter_model.safetensors limited/adapter_model.safetensors || fail "recomputed blocks changed the adapter"
# Blocks below the first that is trained keep nothing, and less is predicted.
"$graft" finetune --model deep --data text.txt --output late --rank 4 --steps 1 --batch-size 8 --layers 6-7 \
  --sequence-length 256 --held-out 0.1 --seed 3 >late.log 2>&1
[ $((2 * $(predicted late.log))) -lt "$(predicted plain.log)" ] || fail "as much for two blocks: $(cat late.log)"
expect 2 'blocks recomputed' "$graft" finetune --model deep --data text.txt --output none --memory-limit 0.01

# The adapter twice with weights that cancel is the frozen model; as a LoRA again it is itself.
"$graft" combine --model model --adapter one=adapter,two=again --weights 1,-1 --output nothing >/dev/null
"$graft" combine --model model --adapter one=adapter,two=again --weights 0.25,0.75 --output same --rank 4 \
  --json >combine.json
[ "$(number rank combine.json)" = 4 ] || fail "combine --rank was not heeded: $(cat combine.json)"
for prompt in "The seventh" "looked at"; do
  "$graft" generate --model model --prompt "$prompt" --max-tokens 8 --temperature 0 >plain.txt
  "$graft" generate --model model --adapter nothing --prompt "$prompt" --max-tokens 8 --temperature 0 >zero.txt
  cmp plain.txt zero.txt || fail "weights that cancel changed the model"
  "$graft" generate --model model --adapter adapter --prompt "$prompt" --max-tokens 8 --temperature 0 >plain.txt
  "$graft" generate --model model --adapter same --prompt "$prompt" --max-tokens 8 --temperature 0 >zero.txt
  cmp plain.txt zero.txt || fail "the weighted mean of one adapter is another one"
done
# A negative weight takes away what an adapter learnt.
"$graft" combine --model model --adapter adapter --weights -1 --output minus >/dev/null
"$graft" combine --model model --adapter one=adapter,two=minus --output none_left >/dev/null
"$graft" generate --model model --prompt "The seventh" --max-tokens 8 --temperature 0 >plain.txt
"$graft" generate --model model --adapter none_left --prompt "The seventh" --max-tokens 8 --temperature 0 >zero.txt
cmp plain.txt zero.txt || fail "an adapter and its negation changed the model"
# Every mode, with the weights that are usual for it.
both="combine --model model --adapter one=adapter,two=again"
for mode in cat linear svd "ties --density 0.5" "ties_svd --density 0.5" "dare_linear --density 0.5" \
  "dare_linear_svd --density 0.5" "dare_ties --density 0.5" "dare_ties_svd --density 0.5" \
  "magnitude_prune --density 0.5" "magnitude_prune_svd --density 0.5" "breadcrumbs --density 0.25" \
  "breadcrumbs --granularity tensor" breadcrumbs_svd compeft compeft_svd; do
  rm -rf mode
  # shellcheck disable=SC2086 # words are meant to split
  "$graft" $both --mode $mode --output mode --json >mode.json || fail "combine --mode $mode"
  [ -s mode/adapter_model.safetensors ] || fail "combine --mode $mode wrote no adapter"
  case $mode in
    breadcrumbs*) grep -q '"weight": 0.3' mode.json || fail "weights of breadcrumbs: $(cat mode.json)" ;;
    *) grep -q '"weight": 1.0' mode.json || fail "weights of $mode: $(cat mode.json)" ;;
  esac
done
# shellcheck disable=SC2086
{
  expect 2 "keeps none of the 4 entries in a row of B" "$graft" $both --mode breadcrumbs --output none
  expect 2 "mode ties: needs --density" "$graft" $both --mode ties --output none
  expect 2 "remove: goes with --mode breadcrumbs, breadcrumbs_svd, not ties" "$graft" $both --mode ties --remove 0.1 \
    --output none
  expect 2 "energy: goes with --mode exact, not cat" "$graft" $both --mode cat --energy 0.9 --output none
}
"$graft" convert --model model --input adapter --output lora --energy 0.999 >/dev/null
[ -s lora/adapter_model.safetensors ] || fail "convert --energy wrote no adapter"
expect 2 'exists already' "$graft" combine --model model --adapter adapter --output same
expect 2 weights "$graft" combine --model model --adapter adapter --weights 1,2 --output none

# Trained rows of the table that both stacks of T5 and its head share: the file has one tensor for them.
python3 - <<'PYTHON'
import json, os, pathlib, shutil, struct
case = pathlib.Path(os.environ["GRAFT_SOURCE_DIR"], "tests/cases/model/t5/base")
os.makedirs("t5")
os.makedirs("rows")
shutil.copy(case / "model.safetensors", "t5")
config = json.load(open(case / "config.json"))
del config["scale_decoder_outputs"]
json.dump(config, open("t5/config.json", "w"))
json.dump({"peft_type": "TRAINABLE_TOKENS", "target_modules": ["shared"], "token_indices": [5]},
          open("rows/adapter_config.json", "w"))
name, values = "base_model.model.shared.trainable_tokens_delta", struct.pack("<32f", *range(32))
header = json.dumps({name: {"dtype": "F32", "shape": [1, 32], "data_offsets": [0, len(values)]}}).encode()
pathlib.Path("rows/adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + values)
PYTHON
"$graft" merge --model t5 --adapter rows --output t5_merged >/dev/null
python3 - <<'PYTHON'
import json, struct
config = json.load(open("t5_merged/config.json"))
assert not config["tie_word_embeddings"] and config["scale_decoder_outputs"], config
data = open("t5_merged/model.safetensors", "rb").read()
size = struct.unpack("<Q", data[:8])[0]
header = json.loads(data[8:8 + size])
assert not [name for name in header if "embed_tokens" in name], header
for name in ("shared.weight", "lm_head.weight"):
    begin = 8 + size + header[name]["data_offsets"][0] + 5 * 32 * 4
    assert struct.unpack("<32f", data[begin:begin + 128]) == tuple(range(32)), name
PYTHON
"$graft" methods --peft --json >parity.json
python3 - parity.json <<'PYTHON'
import json, sys
table = json.load(open(sys.argv[1]))
lora = next(t for t in table["tuners"] if t["peft_type"] == "LORA")
assert len(table["tuners"]) == 45 and lora["present"] and all(lora["abilities"][k] for k in (
    "linear", "conv", "embedding", "merge", "unmerge", "disable", "several", "rows", "weighted", "quantised")), lora
PYTHON

expect 0 finetune "$graft" --help
expect 0 LORA "$graft" methods
expect 2 no_such_model "$graft" finetune --model no_such_model --data text.txt --output none
expect 2 no_such.txt "$graft" finetune --model model --data no_such.txt --output none
expect 2 no_such_module "$graft" finetune --model model --data text.txt --output none --target-modules no_such_module
expect 2 no-such-flag "$graft" finetune --model model --data text.txt --output none --no-such-flag
printf '{"messages":[{"role":"user","content":"hi"}]}\n{"messages": oops\n' >broken.jsonl
expect 2 'broken.jsonl:2' "$graft" finetune --model model --data broken.jsonl --output none
[ ! -e none ] || fail "a refused command left a folder behind"
echo "ok"
