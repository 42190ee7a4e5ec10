#!/bin/sh
# Masked language models: an encoder learns the texts of a domain, goes on after a stop, guesses mask tokens; its
# head in a model that needs no adapter, and its adapter in the encoder without a head.
set -eu
. "${GRAFT_SOURCE_DIR:?}/tests/cli/common.sh"
check() { # FILE EXPRESSION of d, the JSON object in the file
  python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); assert eval(sys.argv[2]), (sys.argv[2], d)' "$1" "$2" ||
    fail "not true in $1: $2"
}

python3 "$GRAFT_SOURCE_DIR/tests/tiny_model.py" model bert
python3 "$GRAFT_SOURCE_DIR/tests/tiny_model.py" decoder
python3 - <<'PYTHON'
import csv, random
rng = random.Random(2)
lines = ["the sun and the rain" if rng.random() < 0.5 else "a road in the rain and a cake" for _ in range(160)]
open("lines.txt", "w").write("".join(line + "\n" for line in lines))
with open("lines.csv", "w", newline="") as out:
    rows = csv.writer(out)
    rows.writerow(("said", "n"))
    rows.writerows((line, i) for i, line in enumerate(lines))
PYTHON
run="finetune --task masked-language --model model --sequence-length 24 --batch-size 8 --learning-rate 1e-2 --seed 3"
run="$run --held-out 0.2 --mask-rate 0.3 --json"

# shellcheck disable=SC2086 # words are meant to split
{
  # A bare encoder gets a head, which is trained whole and goes into the adapter.
  "$graft" $run --data lines.txt --documents line --no-packing --epochs 10 --check-merge --output one \
    --sample-prompt 'the [MASK] and the rain' >one.json
  check one.json 'd["perplexity_after"] < 0.2 * d["perplexity_before"] and d["accuracy_after"] > 0.5'
  check one.json 'abs(d["held_out"]["loss"] - __import__("math").log(d["perplexity_after"])) < 1e-6'
  check one.json 'd["merge_max_rel"] < 1e-4 and d["sample_before"] != d["sample_after"]'
  check one/adapter_config.json 'd.get("task_type") is None'
  check one/adapter_config.json \
    'd["modules_to_save"] == ["cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"]'
  check one/labels.json 'd["task"] == "masked-language"'
  "$graft" ${run% --json} --data lines.txt --output said --steps 1 >said.txt
  grep -q "head       begins at random.*cls.predictions.transform.dense, cls.predictions.transform.LayerNorm" said.txt ||
    { cat said.txt; fail "no word on the head that was drawn"; }
  grep -q "held-out loss" said.txt || { cat said.txt; fail "no held-out loss"; }

  # The same texts from a column make the same adapter; a run that was stopped the same as one that was not.
  "$graft" $run --data lines.csv --text-column said --no-packing --epochs 10 --output column >/dev/null
  cmp one/adapter_model.safetensors column/adapter_model.safetensors || fail "a column gave another adapter"
  "$graft" $run --data lines.txt --steps 12 --output whole >/dev/null
  "$graft" $run --data lines.txt --steps 12 --time-limit 0.000001 --output parts >/dev/null
  [ -d parts/checkpoints ] || fail "the run was not stopped"
  "$graft" finetune --resume --output parts --time-limit 0 --json >/dev/null
  cmp whole/adapter_model.safetensors parts/adapter_model.safetensors || fail "a resumed run hid other tokens"

  # Guesses, the best first; the same from the merged folder, which needs no adapter.
  printf '[MASK] sun and [MASK] rain\na road in [MASK] rain and a cake\n' >new.txt
  "$graft" predict --model model --adapter one --data new.txt --top 3 >new.csv
  python3 - <<'PYTHON'
import csv
rows = list(csv.DictReader(open("new.csv")))
assert len(rows) == 9 and [r["mask"] for r in rows] == ["1"] * 3 + ["2"] * 3 + ["1"] * 3, rows
for i in range(0, 9, 3):
    p = [float(r["probability"]) for r in rows[i:i + 3]]
    assert p == sorted(p, reverse=True) and 0 < sum(p) <= 1, rows
assert all(r["token"] == "the" and float(r["probability"]) > 0.3 for r in rows[::3]), rows
PYTHON
  "$graft" merge --model model --adapter one --output merged >/dev/null
  check merged/config.json 'd["architectures"] == ["BertForMaskedLM"] and "id2label" not in d'
  "$graft" predict --model merged --data new.txt --top 3 --json >merged.jsonl
  python3 - <<'PYTHON'
import csv, json
rows = list(csv.DictReader(open("new.csv")))
guesses = [g for line in open("merged.jsonl") for mask in json.loads(line)["masks"] for g in mask]
assert [g["token"] for g in guesses] == [r["token"] for r in rows]
assert all(abs(g["probability"] - float(r["probability"])) < 2e-4 for g, r in zip(guesses, rows))
PYTHON
  # The rows that were held out, hidden as finetune hid them, give what it measured, before and after; so does the
  # merged folder.
  judge="evaluate --documents line --no-packing --sequence-length 24 --held-out 0.2 --seed 3 --mask-rate 0.3 --json"
  "$graft" $judge --model model --adapter one --data lines.txt --batch-size 5 --losses >judged.json
  "$graft" $judge --model model --adapter one --data lines.csv --text-column said >column.json
  "$graft" $judge --model merged --data lines.txt >merged.json
  "$graft" ${judge% --json} --model model --adapter one --data lines.txt --mask-rate 0.6 >judged.txt
  python3 - <<'PYTHON'
import json
tuned, judged, column, merged = (json.load(open(f"{name}.json")) for name in ("one", "judged", "column", "merged"))
def near(a, b):
    assert abs(a - b) < 1e-4 * abs(b), (a, b)
assert judged["rows"] == 32 and 0 < judged["base"]["tokens"] < 200, judged
near(judged["base"]["perplexity"], tuned["perplexity_before"])
for found in (judged["adapted"], column["adapted"], merged["base"]):
    near(found["loss"], tuned["held_out"]["loss"])
    assert found["token_accuracy"] == tuned["held_out"]["accuracy"], found
assert len(judged["adapted"]["losses"]) == judged["adapted"]["tokens"] == column["adapted"]["tokens"]
near(sum(judged["adapted"]["losses"]) / judged["adapted"]["tokens"], tuned["held_out"]["loss"])
PYTHON
  grep -q "160 sequences.*60.0 % to guess" judged.txt || { cat judged.txt; fail "no word on the data"; }
  grep -q "^head       begins at random" judged.txt || { cat judged.txt; fail "no word on the head that was drawn"; }
  grep -q "^adapted    perplexity.*token accuracy" judged.txt || { cat judged.txt; fail "no perplexity"; }
  # A model with a head keeps it; nothing but the adapter is stored.
  "$graft" $run --data lines.txt --steps 2 --model merged --output again >again.json
  check again/adapter_config.json 'not d.get("modules_to_save")'
  # The encoder below the head takes the adapter.
  "$graft" embed --model model --adapter one --data lines.txt --output vectors.csv
  "$graft" embed --model model --data lines.txt --output plain.csv
  ! cmp -s vectors.csv plain.csv || fail "the adapter changes no vector"
  "$graft" embed --model merged --data lines.txt --output merged.csv
  python3 - <<'PYTHON'
a, b = ([[float(v) for v in line.split(",")] for line in open(name)] for name in ("vectors.csv", "merged.csv"))
assert all(abs(x - y) < 1e-4 for r, s in zip(a, b) for x, y in zip(r, s))
PYTHON

  # An adapter that was trained on the encoder alone (AutoModel in PEFT: no name of a head in front, and the pooler)
  # is merged into the masked language model, and runs below its head.
  "$graft" $run --data lines.txt --steps 8 --model merged --target-modules query,value --output below >/dev/null
  python3 - <<'PYTHON'
import json, pathlib, struct
def read(path):
    raw = pathlib.Path(path).read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8:8 + size]), raw[8 + size:]
header, data = read("below/adapter_model.safetensors")
bare = {key.replace("base_model.model.bert.", "base_model.model."): value for key, value in header.items()
        if key != "__metadata__"}
assert len(bare) == 8 and all(".model.encoder." in key for key in bare), bare
for part, shape in (("A", [16, 48]), ("B", [48, 16])):
    bare[f"base_model.model.pooler.dense.lora_{part}.weight"] = {
        "dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + 4 * 16 * 48]}
    data += bytes(4 * 16 * 48)
text = json.dumps(bare).encode()
pathlib.Path("bare").mkdir()
pathlib.Path("bare/adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
pathlib.Path("bare/adapter_config.json").write_bytes(pathlib.Path("below/adapter_config.json").read_bytes())
PYTHON
  for name in below bare; do
    "$graft" embed --model merged --adapter $name --data lines.txt --output $name.csv 2>$name.log
    "$graft" merge --model merged --adapter $name --output of_$name >/dev/null 2>>$name.log
  done
  cmp below.csv bare.csv || fail "other vectors below the head"
  cmp -s below.csv merged.csv && fail "the adapter changes no vector"
  grep -q "2 tensors of the pooler are left out" bare.log || { cat bare.log; fail "no word on the pooler"; }
  cmp of_below/model.safetensors of_bare/model.safetensors || fail "another model"
  check of_bare/config.json 'd["architectures"] == ["BertForMaskedLM"]'
  "$graft" predict --model merged --adapter below --data new.txt --output below.csv
  "$graft" predict --model of_bare --data new.txt --output bare.csv
  cut -d, -f1,2,4 below.csv >one.csv
  cut -d, -f1,2,4 bare.csv | cmp - one.csv || fail "the merged model guesses other tokens"
  expect 2 "trained on the model without a head: graft merge and graft embed take it" "$graft" predict --model merged \
    --adapter bare --data new.txt

  expect 2 "mask-rate: 1; expected" "$graft" $run --data lines.txt --output none --mask-rate 1
  expect 2 "mask-rate: 0; expected" "$graft" $run --data lines.txt --output none --mask-rate 0
  expect 2 "mask-rate: goes with --task masked-language" "$graft" finetune --task language --model decoder \
    --data lines.txt --output none --mask-rate 0.2
  expect 2 "architecture 'llama' is not supported for this task" "$graft" $run --data lines.txt --output none \
    --model decoder
  printf 'the sun\n\nthe rain\n' >gap.txt
  expect 2 "gap.txt:2: the text is empty" "$graft" $run --data gap.txt --output none --documents line --no-packing
  printf 'the sun\n' >plain.txt
  expect 2 "text 1: no .MASK. to guess in 'the sun'" "$graft" predict --model merged --data plain.txt
  expect 2 "the classes are not known" "$graft" predict --model model --data new.txt
  cp -r model without
  sed -i 's/"\[MASK\]"/"[HIDE]"/g' without/tokenizer.json
  expect 2 "the tokenizer has no mask token" "$graft" $run --data lines.txt --output none --model without
  expect 2 "and the model has 64 positions" "$graft" $run --data lines.txt --output none --sequence-length 65
  expect 2 "architecture bert is no language model" "$graft" evaluate --model model --data lines.txt
  expect 2 "mask-rate.*go with masked language models" "$graft" evaluate --model decoder --data lines.txt --mask-rate 0.2
  expect 2 "mask-rate: 2; expected" "$graft" evaluate --model merged --data lines.txt --sequence-length 24 --mask-rate 2
  printf 'text,label\nthe sun,a\nthe rain,b\nthe sun,a\nthe rain,b\n' >labelled.csv
  "$graft" finetune --task classification --model model --data labelled.csv --sequence-length 16 --held-out 0.5 \
    --output labels --json >/dev/null
  expect 2 "the head is for classification; graft predict with --label-column judges it" "$graft" evaluate \
    --model model --adapter labels --data lines.txt
  [ ! -e none ] || fail "a refused command left a folder behind"
}
echo "ok"
