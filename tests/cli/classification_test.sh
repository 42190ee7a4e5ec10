#!/bin/sh
# Classification on a tiny random BERT: train, go on, predict, embed, and the errors that a person makes.
set -eu
. "${GRAFT_SOURCE_DIR:?}/tests/cli/common.sh"
check() { # FILE EXPRESSION of d, the JSON object in the file
  python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); assert eval(sys.argv[2]), (sys.argv[2], d)' "$1" "$2" ||
    fail "not true in $1: $2"
}

python3 "${GRAFT_SOURCE_DIR:?}/tests/tiny_model.py" model bert
python3 - <<'PYTHON'
import csv, json, random
rng = random.Random(2)
words = {"good": ["sun", "cake", "light"], "bad, so bad": ["rain", "mud", "dark"], "fair": ["road", "wall", "box"]}
rows = []
for i in range(120):
    label = list(words)[i % 3]
    rows.append((" ".join(rng.choice(words[label]) for _ in range(3 + i % 5)) + ', "x"', label))
with open("data.csv", "w", newline="") as out:
    csv.writer(out).writerows([("sentence", "class"), *rows])
with open("data.jsonl", "w") as out:
    for text, label in rows:
        out.write(json.dumps({"sentence": text, "class": label}) + "\n")
with open("data.tsv", "w") as out:
    for text, label in rows:
        out.write(text + "\t" + label + "\n")
with open("test.csv", "w", newline="") as out:
    csv.writer(out).writerows([("sentence", "class"), *rows[:30]])
PYTHON
columns="--text-column sentence --label-column class"
settings="--task classification --model model --batch-size 8 --epochs 6 --learning-rate 1e-2 --seed 3"

# shellcheck disable=SC2086 # words are meant to split
{
  "$graft" finetune $settings $columns --data data.csv --test-data test.csv --held-out 0.2 --output adapter \
    --report report.html --check-merge --json >result.json
  check result.json 'd["accuracy_after"] > 0.9 and d["accuracy_after"] > d["accuracy_before"]'
  check result.json 'd["test"]["rows"] == 30 and d["test"]["labels"] == ["bad, so bad", "fair", "good"]'
  check result.json 'sum(map(sum, d["test"]["confusion"])) == 30 and 0 < d["test"]["macro_f1"] <= 1'
  check result.json 'd["merge_max_rel"] < 1e-4'
  check adapter/adapter_config.json 'd["task_type"] == "SEQ_CLS" and d["modules_to_save"] == ["classifier"]'
  check adapter/result.json 'len(d["step_ms"]) == d["steps"]'
  grep -q "Confusion matrix, test" report.html || fail "the report has no confusion matrix"
  [ -s adapter/labels.json ] || fail "no labels beside the adapter"

  # The same rows from JSON lines and from TSV without a head give the same adapter.
  "$graft" finetune $settings $columns --data data.jsonl --held-out 0.2 --output lines --json >lines.json
  "$graft" finetune $settings --text-column 1 --label-column 2 --no-header --data data.tsv --held-out 0.2 \
    --output tabs --json >tabs.json
  cmp adapter/adapter_model.safetensors lines/adapter_model.safetensors || fail "JSON lines gave another adapter"
  cmp adapter/adapter_model.safetensors tabs/adapter_model.safetensors || fail "TSV gave another adapter"

  # New lines.
  printf 'sun cake light sun\nrain mud, mud\n' >new.txt
  "$graft" predict --model model --adapter adapter --data new.txt --output new.csv
  python3 - <<'PYTHON'
import csv
rows = list(csv.reader(open("new.csv")))
assert [r[0] for r in rows] == ["label", "good", "bad, so bad"] and rows[2][2] == "rain mud, mud", rows
assert all(0 < float(r[1]) <= 1 for r in rows[1:]), rows
PYTHON
  "$graft" predict --model model --adapter adapter --data - --json <new.txt >new.jsonl
  python3 - <<'PYTHON'
import json
for line in open("new.jsonl"):
    d = json.loads(line)
    assert abs(sum(d["scores"].values()) - 1) < 1e-6 and d["scores"][d["label"]] == max(d["scores"].values()), d
PYTHON
  # The head goes along where adapters become one LoRA.
  "$graft" finetune $settings $columns --data data.csv --held-out 0.2 --seed 5 --max-steps 4 --output early --json >early.json
  "$graft" convert --model model --input adapter --to-lora --output lora >/dev/null
  "$graft" combine --model model --adapter adapter,early --weights 1,0 --output first >/dev/null
  "$graft" combine --model model --adapter adapter,early --weights 0,1 --output second >/dev/null
  for name in early lora first second; do
    "$graft" predict --model model --adapter $name --data new.txt --json >$name.jsonl
  done
  python3 - <<'PYTHON'
import json
def difference(a, b):
    a, b = ([json.loads(line)["scores"] for line in open(f"{name}.jsonl")] for name in (a, b))
    return max(abs(x[c] - y[c]) for x, y in zip(a, b) for c in x)
assert difference("new", "early") > 1e-3
for pair in (("new", "lora"), ("new", "first"), ("early", "second")):
    assert difference(*pair) < 1e-4, (pair, difference(*pair))
PYTHON
  # That of any method whose change of the weights a LoRA can be.
  for method in ia3 dora "oft --set oft_block_size=8"; do
    rm -rf other lora mean whole
    "$graft" finetune $settings $columns --data data.csv --held-out 0.2 --output other --method $method --json \
      >other.json
    "$graft" convert --model model --input other --to-lora --output lora >/dev/null
    "$graft" combine --model model --adapter one=other,two=lora --weights 0.25,0.75 --output mean >/dev/null
    "$graft" merge --model model --adapter other --output whole >/dev/null
    "$graft" predict --model model --adapter other --data new.txt --json >other.jsonl
    "$graft" predict --model model --adapter lora --data new.txt --json >lora.jsonl
    "$graft" predict --model model --adapter mean --data new.txt --json >mean.jsonl
    "$graft" predict --model whole --data new.txt --json >whole.jsonl
    python3 - "$method" <<'PYTHON'
import json, sys
def scores(name):
    return [json.loads(line)["scores"] for line in open(f"{name}.jsonl")]
for name in ("lora", "mean", "whole"):
    for a, b in zip(scores("other"), scores(name)):
        assert a.keys() == b.keys() and all(abs(a[c] - b[c]) < 1e-3 for c in a), (sys.argv[1], name, a, b)
PYTHON
    check lora/adapter_config.json 'd["task_type"] == "SEQ_CLS" and d["modules_to_save"] == ["classifier"]'
  done
  rm -rf other lora mean whole
  "$graft" finetune $settings $columns --data data.csv --max-steps 1 --output norms --method ssf --json >norms.json
  expect 2 "of SSF changes the norm .*, which no LoRA can; merge it into the model instead" "$graft" convert \
    --model model --input norms --to-lora --output none
  "$graft" finetune $settings $columns --data data.csv --max-steps 1 --output bottles --method pfeiffer --json >bottles.json
  expect 2 "of PFEIFFER cannot become a LoRA: .*is not linear" "$graft" convert --model model --input bottles --to-lora \
    --output none
  expect 2 "add up to 2; .*take weights that add up to 1" "$graft" combine --model model --adapter adapter,early \
    --output none
  expect 2 "adapters with a head go with --mode exact" "$graft" combine --model model --adapter adapter,early \
    --weights 0.5,0.5 --mode svd --output none
  # A run that goes wrong says so and leaves nothing half-written.
  expect 1 "step [0-9]*: the .* is .*an activation overflowed" "$graft" finetune $settings $columns --data data.csv \
    --learning-rate 1e30 --output overflow
  [ ! -e overflow/adapter_model.safetensors ] || fail "an adapter of numbers that are not finite was written"

  expect 0 "30 rows" "$graft" predict --model model --adapter adapter --data test.csv $columns --output labels.csv

  # Vectors: one a line, of length 1, the same in every kind of file and with every batch size.
  "$graft" embed --model model --data new.txt >one.csv
  "$graft" embed --model model --data new.txt --batch-size 1 --output two.jsonl
  "$graft" embed --model model --data new.txt --output three.safetensors
  python3 - <<'PYTHON'
import json, struct
one = [[float(v) for v in line.split(",")] for line in open("one.csv")]
two = [json.loads(line) for line in open("two.jsonl")]
raw = open("three.safetensors", "rb").read()
start = 8 + struct.unpack("<Q", raw[:8])[0]
assert json.loads(raw[8:start])["embeddings"]["shape"] == [2, 48]
three = struct.unpack("<96f", raw[start:])
assert len(one) == len(two) == 2 and all(len(v) == 48 for v in one)
assert all(abs(sum(x * x for x in v) - 1) < 1e-5 for v in one)
assert all(abs(x - y) < 1e-5 for a, b in zip(one, two) for x, y in zip(a, b))
assert all(abs(x - y) < 1e-6 for x, y in zip([x for v in one for x in v], three))
PYTHON
  "$graft" embed --model model --data new.txt --pooling cls --no-normalize >cls.csv
  cmp -s one.csv cls.csv && fail "pooling changes nothing"

  # A linear probe and full fine-tuning.
  "$graft" finetune $settings $columns --data data.csv --method full --target-modules classifier --output probe --json >probe.json
  check probe.json 'd["trainable"] == 3 * 48 + 3'
  "$graft" finetune $settings $columns --data data.csv --method full --target-modules all --learning-rate 1e-3 \
    --output whole --json >whole.json
  check whole.json 'd["trainable"] == d["parameters"] / 2 + (3 * 48 + 3) / 2'

  # Errors that a person makes.
  bad="$settings --output none"
  expect 2 "no column 'text'; columns: sentence, class" "$graft" finetune $bad --data data.csv
  expect 2 "label" "$graft" finetune $bad --data data.jsonl --text-column sentence
  printf 'text,label\na,x\nb,x\n' >same.csv
  expect 2 "same.csv: all 2 rows have the label 'x'" "$graft" finetune $bad --data same.csv
  printf 'text,label\na,x\nb\n' >short.csv
  expect 2 "short.csv:3" "$graft" finetune $bad --data short.csv
  printf 'text,label\n"a,x\nb,y\n' >open.csv
  expect 2 "open.csv:2: a quote is opened" "$graft" finetune $bad --data open.csv
  printf 'sentence,class\na,unheard of\n' >strange.csv
  expect 2 "strange.csv:2: the label 'unheard of' is not one of" "$graft" finetune $bad $columns --data data.csv \
    --test-data strange.csv
  python3 -c 'print("text,label\na,x\n" + "sun " * 70 + ",y")' >long.csv
  expect 2 "model has 64 positions, and 1 rows of long.csv" "$graft" finetune $bad --data long.csv
  expect 0 "1 cut to 64" "$graft" finetune $settings --output cut --data long.csv --sequence-length 64
  expect 2 "the head of cut is for other classes than that of adapter" "$graft" combine --model model --adapter adapter,cut \
    --weights 0.5,0.5 --output none
  expect 2 "no_such.csv" "$graft" finetune $bad --data no_such.csv
  python3 "$GRAFT_SOURCE_DIR/tests/tiny_model.py" language
  printf '{"tokens": ["sun"], "tags": ["O"]}\n{"tokens": ["rain"], "tags": ["W"]}\n' >tags.jsonl
  expect 2 "is not supported for this task" "$graft" finetune --task token-classification --model language \
    --data tags.jsonl --output none
  cp -r model other && cp "$GRAFT_SOURCE_DIR/tests/cases/tokenizer/gemma3/tokenizer.json" other/
  expect 2 "belongs to another model" "$graft" finetune $bad $columns --data data.csv --model other
  cp -r model renamed
  expect 0 "was trained on 'model'" "$graft" predict --model renamed --adapter adapter --data new.txt
  expect 2 "give an --adapter\|classes are not known" "$graft" predict --model model --data new.txt
  [ ! -e none ] || fail "a refused command left a folder behind"

  # A loss that is no number: the step, the tensor, the last good checkpoint.
  expect 1 "step .*last good checkpoint\|step .*there is no checkpoint" "$graft" finetune $settings $columns \
    --data data.csv --output nan --learning-rate 1e38 --max-grad-norm 0 --checkpoint-interval 1
}
echo "ok"
