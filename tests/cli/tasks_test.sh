#!/bin/sh
# Tasks with labels beside the classification of texts by encoders: by decoders and T5, numbers, tags of words, images;
# their heads merged into a model that needs no adapter.
set -eu
. "${GRAFT_SOURCE_DIR:?}/tests/cli/common.sh"
check() { # FILE EXPRESSION of d, the JSON object in the file
  python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); assert eval(sys.argv[2]), (sys.argv[2], d)' "$1" "$2" ||
    fail "not true in $1: $2"
}
same_labels() { # FILE FILE ROWS: what predict wrote twice
  python3 - "$@" <<'PYTHON'
import csv, sys
a, b = (list(csv.DictReader(open(name))) for name in sys.argv[1:3])
assert len(a) == len(b) == int(sys.argv[3]) and all(x["label"] == y["label"] for x, y in zip(a, b))
assert all(abs(float(x["probability"]) - float(y["probability"])) < 2e-4 for x, y in zip(a, b))
PYTHON
}

python3 "${GRAFT_SOURCE_DIR:?}/tests/tiny_model.py" model bert
python3 "$GRAFT_SOURCE_DIR/tests/tiny_model.py" eyes vit
python3 "$GRAFT_SOURCE_DIR/tests/tiny_model.py" decoder
python3 "$GRAFT_SOURCE_DIR/tests/tiny_gguf.py" decoder decoder.gguf
python3 "$GRAFT_SOURCE_DIR/tests/tiny_model.py" pair t5
python3 - <<'PYTHON'
import csv, json, pathlib, random
config = pathlib.Path("decoder/config.json")  # a base model: nothing says what its head is for
config.write_text(config.read_text().replace("LlamaForCausalLM", "LlamaModel"))
rng = random.Random(4)
values = {"sun": 1.0, "cake": 0.5, "rain": -1.0, "mud": -0.5}
with open("numbers.csv", "w", newline="") as out:
    rows = csv.writer(out)
    rows.writerow(("text", "label"))
    for i in range(120):
        words = [rng.choice(list(values)) for _ in range(3)]
        rows.writerow((" ".join(words), round(sum(values[w] for w in words) / 3, 3)))
with open("weather.csv", "w", newline="") as out:
    rows = csv.writer(out)
    rows.writerow(("text", "label"))
    for i in range(60):
        rows.writerow(("a " * (i % 3) + rng.choice(["sun", "cake"] if i % 2 else ["rain", "mud"]), "good" if i % 2 else "bad"))
names, things = ["anna", "peter", "maria"], ["sun", "rain", "road", "cake"]
with open("tags.jsonl", "w") as lines, open("tags.conll", "w") as columns:
    for i in range(90):
        words = [rng.choice(names + things) for _ in range(2 + i % 5)]
        tags = ["B-PER" if w in names else "O" for w in words]
        lines.write(json.dumps({"tokens": words, "tags": tags}) + "\n")
        columns.write("".join(f"{w} x {t}\n" for w, t in zip(words, tags)) + "\n")
with open("images.csv", "w", newline="") as out:
    rows = csv.writer(out)
    rows.writerow([f"p{i}" for i in range(64)] + ["label"])
    for i in range(120):
        side = "left" if i % 2 else "right"
        rows.writerow([(rng.randint(10, 16) if (j % 8 < 4) == (side == "left") else rng.randint(0, 4)) for j in range(64)] + [side])
PYTHON
settings="--batch-size 8 --epochs 8 --learning-rate 1e-2 --seed 3 --held-out 0.2 --check-merge --json"
gentle="--learning-rate 2e-3 --epochs 20"

# shellcheck disable=SC2086 # words are meant to split
{
  # A number that belongs to a text.
  "$graft" finetune --task regression --model model --data numbers.csv --output number $settings >number.json
  check number.json 'd["held_out"]["pearson"] > 0.9 and d["held_out"]["mean_squared_error"] < 0.2'
  check number.json 'd["merge_max_rel"] < 1e-4'
  check number/labels.json 'd["task"] == "regression" and d["labels"] == []'
  printf 'sun sun sun\nrain rain rain\n' >new.txt
  "$graft" predict --model model --adapter number --data new.txt >new.csv
  python3 -c 'import csv; r = list(csv.DictReader(open("new.csv"))); assert float(r[0]["value"]) > 0.3 > -0.3 > float(r[1]["value"]), r'
  printf 'text,label\na,high\n' >words.csv
  expect 2 "words.csv:2: the target 'high' is not a finite number" "$graft" finetune --task regression --model model \
    --data words.csv --output none

  # The head goes into the model: nothing but the folder is needed, and Python's names are in it.
  "$graft" merge --model model --adapter number --output whole >/dev/null
  "$graft" predict --model whole --data new.txt >whole.csv
  python3 - <<'PYTHON'
import csv
a, b = ([float(r["value"]) for r in csv.DictReader(open(name))] for name in ("new.csv", "whole.csv"))
assert all(abs(x - y) < 1e-4 for x, y in zip(a, b)), (a, b)
PYTHON
  check whole/config.json 'd["architectures"] == ["BertForSequenceClassification"] and d["problem_type"] == "regression"'

  # A decoder says it by its last token. Python wants to know which tokens are padding.
  "$graft" finetune --task classification --model decoder --data weather.csv --output said $settings >said.json
  check said.json 'd["accuracy_after"] > 0.9 and d["merge_max_rel"] < 1e-4'
  check said/adapter_config.json 'd["task_type"] == "SEQ_CLS" and d["modules_to_save"] == ["score"]'
  "$graft" merge --model decoder --adapter said --output saying >/dev/null
  check saying/config.json 'd["architectures"] == ["LlamaForSequenceClassification"] and d["pad_token_id"] == 2'
  "$graft" predict --model decoder --adapter said --data weather.csv --label-column label >said.csv
  "$graft" predict --model saying --data weather.csv --label-column label >saying.csv
  same_labels said.csv saying.csv 60
  expect 2 "'LlamaModel' is not supported" "$graft" generate --model decoder --prompt a

  # The same decoder in a GGUF file, which cannot hold the head.
  "$graft" predict --model decoder.gguf --adapter said --data weather.csv --label-column label >packed.csv
  same_labels said.csv packed.csv 60
  "$graft" finetune --task classification --model decoder.gguf --data weather.csv --output told $settings >told.json
  check told.json 'd["accuracy_after"] > 0.9 and d["merge_max_rel"] < 1e-4'
  check told/adapter_config.json 'd["modules_to_save"] == ["score"]'
  "$graft" merge --model decoder.gguf --adapter told --output telling >/dev/null
  check telling/config.json 'd["architectures"] == ["LlamaForSequenceClassification"] and d["pad_token_id"] == 2'
  check telling/config.json 'd["id2label"] == {"0": "bad", "1": "good"}'
  "$graft" predict --model decoder.gguf --adapter told --data weather.csv >told.csv
  "$graft" predict --model telling --data weather.csv >telling.csv
  same_labels told.csv telling.csv 60
  expect 2 "a head for labels is written as a folder" "$graft" merge --model decoder.gguf --adapter told --output none.gguf
  expect 2 "a GGUF file has none; give an --adapter" "$graft" predict --model decoder.gguf --data weather.csv
  expect 2 "GGUF file is not supported for this task; bert" "$graft" finetune --task token-classification \
    --model decoder.gguf --data tags.jsonl --output none

  # T5 says it by what its decoder makes of the end of a text, or of each token by its encoder alone.
  "$graft" finetune --task classification --model pair --data weather.csv --output read $settings >read.json
  check read.json 'd["accuracy_after"] > 0.9 and d["merge_max_rel"] < 1e-4'
  check read/adapter_config.json 'd["modules_to_save"] == ["classification_head"]'
  "$graft" merge --model pair --adapter read --output reading >/dev/null
  check reading/config.json 'd["architectures"] == ["T5ForSequenceClassification"]'
  "$graft" predict --model pair --adapter read --data weather.csv >read.csv
  "$graft" predict --model reading --data weather.csv >reading.csv
  same_labels read.csv reading.csv 60
  "$graft" finetune --task token-classification --model pair --data tags.jsonl --output marks $settings >marks.json
  check marks.json 'd["accuracy_after"] > 0.8 > d["accuracy_before"] and d["merge_max_rel"] < 1e-3'
  check marks/adapter_config.json 'd["modules_to_save"] == ["classifier"]'
  "$graft" merge --model pair --adapter marks --output marking >/dev/null
  "$graft" predict --model pair --adapter marks --data tags.jsonl >marks.tsv
  "$graft" predict --model marking --data tags.jsonl >marking.tsv
  cmp marks.tsv marking.tsv || fail "T5 with its head merged gives other tags"
  python3 - <<'PYTHON'
import json, struct
for folder, head in (("reading", "classification_head.out_proj"), ("marking", "classifier")):
    data = open(folder + "/model.safetensors", "rb").read()
    names = json.loads(data[8:8 + struct.unpack("<Q", data[:8])[0]])
    assert head + ".weight" in names and "transformer.shared.weight" in names and "lm_head.weight" not in names, names
    assert any("decoder" in name for name in names) == (folder == "reading"), names
PYTHON

  # A tag for every word; the same from both kinds of files.
  "$graft" finetune --task token-classification --model model --data tags.jsonl --output tags $settings $gentle >tags.json
  check tags.json 'd["held_out"]["accuracy"] > 0.95 and d["held_out"]["entities"]["f1"] > 0.9'
  check tags.json 'd["held_out"]["rows"] > d["held_out"]["entities"]["truth"] > 0'
  check tags/adapter_config.json 'd["task_type"] == "TOKEN_CLS" and d["modules_to_save"] == ["classifier"]'
  "$graft" finetune --task token-classification --model model --data tags.conll --output columns $settings $gentle >columns.json
  cmp tags/adapter_model.safetensors columns/adapter_model.safetensors || fail "CoNLL columns gave another adapter"
  printf 'peter rain anna\n' >words.txt
  "$graft" predict --model model --adapter tags --data words.txt >words.tsv
  [ "$(cut -f2 words.tsv | tr '\n' ' ')" = "B-PER O B-PER  " ] || { cat words.tsv; fail "other tags expected"; }
  "$graft" merge --model model --adapter tags --output tagger >/dev/null
  "$graft" predict --model tagger --data words.txt --json >words.jsonl
  check words.jsonl 'd == {"tokens": ["peter", "rain", "anna"], "tags": ["B-PER", "O", "B-PER"]}'
  expect 0 "accuracy" "$graft" predict --model tagger --data tags.jsonl --label-column tags --output labelled.tsv

  # Images.
  "$graft" finetune --task image-classification --model eyes --data images.csv --output seen $settings $gentle >seen.json
  check seen.json 'd["held_out"]["accuracy"] > 0.9 and d["held_out"]["labels"] == ["left", "right"]'
  "$graft" merge --model eyes --adapter seen --output seeing >/dev/null
  "$graft" predict --model eyes --adapter seen --data images.csv --label-column label >one.csv
  "$graft" predict --model seeing --data images.csv --label-column label >two.csv
  same_labels one.csv two.csv 120
  check seeing/config.json 'd["architectures"] == ["ViTForImageClassification"] and d["id2label"] == {"0": "left", "1": "right"}'
  expect 2 "63 pixel columns; the model takes 1 x 8 x 8 = 64" sh -c \
    "cut -d, -f2- images.csv >few.csv; '$graft' finetune --task image-classification --model eyes --data few.csv --output none"
  expect 2 "is not supported for this task; vit is" "$graft" finetune --task image-classification --model model \
    --data images.csv --output none
  [ ! -e none ] || fail "a refused command left a folder behind"
}
echo "ok"
