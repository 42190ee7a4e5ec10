#!/bin/sh
# Mistakes that people make with data, models and adapters: each is said in words, for every kind of task.
set -eu
. "${GRAFT_SOURCE_DIR:?}/tests/cli/common.sh"

tiny() { python3 "$GRAFT_SOURCE_DIR/tests/tiny_model.py" "$@"; }
tiny model bert
tiny deeper bert 3
tiny decoder
printf 'text,label\nthe sun,a\nthe rain,b\nsun and sun,a\nrain and rain,b\n' >texts.csv
printf 'text,label\nthe sun,0.5\nthe rain,-1\nsun and sun,0.25\nrain and rain,2\n' >numbers.csv
printf '{"tokens": ["the", "sun"], "tags": ["O", "B"]}\n{"tokens": ["rain"], "tags": ["B"]}\n' >words.jsonl
printf 'the sun and the rain\na road in the rain\n' >lines.txt
python3 -c 'print("text,label\nthe sun,a\n" + "rain " * 40 + ",b")' >long.csv

# One adapter of each kind of task.
tune="finetune --model model --sequence-length 16 --batch-size 2 --held-out 0.5 --steps 1 --json"
# shellcheck disable=SC2086 # words are meant to split
{
  "$graft" $tune --task classification --data texts.csv --output texts >/dev/null
  "$graft" $tune --task regression --data numbers.csv --output numbers >/dev/null
  "$graft" $tune --task token-classification --data words.jsonl --output words >/dev/null
  "$graft" $tune --task masked-language --data lines.txt --documents line --no-packing --output lines >/dev/null
  printf 'the [MASK] and the rain\n' >masks.txt

  # An adapter of another model: what does not fit, both models, in every command.
  both="trained on 'model', this model is 'deeper' (bert, 3 layers of width 48)"
  expect 2 "12 missing: .*layer.2.*; the adapter was $both" "$graft" predict --model deeper --adapter texts --data texts.csv
  expect 2 "the adapter was $both" "$graft" predict --model deeper --adapter numbers --data numbers.csv
  expect 2 "the adapter was $both" "$graft" predict --model deeper --adapter words --data words.jsonl
  expect 2 "the adapter was $both" "$graft" predict --model deeper --adapter lines --data masks.txt
  expect 2 "the adapter was $both" "$graft" embed --model deeper --adapter lines --data lines.txt
  expect 2 "the adapter was $both" "$graft" evaluate --model deeper --adapter lines --data lines.txt --sequence-length 16
  expect 2 "the adapter was $both" "$graft" merge --model deeper --adapter texts --output none
  expect 2 "match none of .*trained on 'model', this model is 'decoder' (llama, 2 layers" "$graft" generate \
    --model decoder --adapter texts --prompt the
  # A file of something else.
  cp -r texts foreign
  python3 - <<'PYTHON'
import json, struct
path = "foreign/adapter_model.safetensors"
raw = open(path, "rb").read()
size = struct.unpack("<Q", raw[:8])[0]
header = json.loads(raw[8:8 + size])
key = next(k for k in header if "lora_B" in k)
header["lora_B"] = header.pop(key)
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
open(path, "wb").write(struct.pack("<Q", len(text)) + text + raw[8 + size:])
PYTHON
  expect 2 "foreign/adapter_model.safetensors: .*1 unexpected: lora_B" "$graft" predict --model model --adapter foreign \
    --data texts.csv
  # Shapes fit, names do not: a warning, also for the class that PEFT notes.
  cp -r model twin && cp -r texts noted
  expect 0 "warning: texts was trained on 'model', not on 'twin'" "$graft" predict --model twin --adapter texts \
    --data texts.csv
  python3 - <<'PYTHON'
import json
path = "noted/adapter_config.json"
config = json.load(open(path))
config["auto_mapping"] = {"base_model_class": "RobertaModel", "parent_library": "x"}
json.dump(config, open(path, "w"))
PYTHON
  expect 0 "warning: noted was trained on 'roberta', not on 'bert'" "$graft" predict --model model --adapter noted \
    --data texts.csv
  expect 2 "nowhere: no such adapter folder" "$graft" predict --model model --adapter nowhere --data texts.csv

  # A tokenizer that is smaller than the model's vocabulary.
  cp -r model spoken && cp decoder/tokenizer.json spoken/
  expect 0 "300 tokens, the model 420: it may belong to another model" "$graft" embed --model spoken --data lines.txt \
    --output vectors.csv

  # Values that are not finite, in an adapter and in a model.
  python3 - <<'PYTHON'
import json, pathlib, shutil, struct

def spoil(folder, name, word):
    path = pathlib.Path(folder) / name
    raw = bytearray(path.read_bytes())
    start = 8 + struct.unpack("<Q", raw[:8])[0]
    tensor = next(k for k in sorted(json.loads(raw[8:start])) if word in k)
    at = start + json.loads(raw[8:start])[tensor]["data_offsets"][0]
    raw[at:at + 4] = struct.pack("<f", float("nan"))
    path.write_bytes(raw)

for adapter in ("texts", "lines"):
    shutil.copytree(adapter, "broken_" + adapter)
    spoil("broken_" + adapter, "adapter_model.safetensors", "lora_B")
shutil.copytree("model", "broken")
spoil("broken", "model.safetensors", "layer.1.output.dense.weight")
PYTHON
  expect 2 "lora_B.weight' has values that are not finite" "$graft" predict --model model --adapter broken_texts \
    --data texts.csv
  expect 2 "lora_B.weight' has values that are not finite" "$graft" merge --model model --adapter broken_texts --output none
  expect 2 "lora_B.weight' has values that are not finite" "$graft" embed --model model --adapter broken_lines \
    --data lines.txt
  blame="not finite; first tensor that is not finite: frozen .*encoder.layer.1.output.dense.weight"
  expect 1 "$blame" "$graft" predict --model broken --adapter texts --data texts.csv
  expect 1 "$blame" "$graft" predict --model broken --adapter numbers --data numbers.csv
  expect 1 "$blame" "$graft" predict --model broken --adapter words --data words.jsonl
  expect 1 "$blame" "$graft" predict --model broken --adapter lines --data masks.txt
  expect 1 "$blame" "$graft" embed --model broken --data lines.txt
  expect 1 "$blame" "$graft" evaluate --model broken --adapter lines --data lines.txt --sequence-length 16
  printf 'text,label\nthe sun,1e30\nthe rain,2\nsun,3\nrain,4\n' >huge.csv
  expect 1 "step [0-9]*: the [a-z ]* is infinite; .*smaller numbers in the data" "$graft" $tune --task regression \
    --data huge.csv --output huge --held-out 0 --steps 4

  # Data of another kind.
  printf 'text,label\nthe sun,1.5\nthe rain,1.5\n' >same.csv
  expect 2 "same.csv: all 2 rows have the target 1.5" "$graft" $tune --task regression --data same.csv --output none
  expect 2 "texts.csv: comma-separated values hold no lists of words" "$graft" predict --model model --adapter words \
    --data texts.csv
  expect 2 "texts.csv: comma-separated values hold no lists of words" "$graft" $tune --task token-classification \
    --data texts.csv --output none
  # Longer than what the model learnt on: cut, and said.
  expect 0 "warning: long.csv: 1 of 2 texts cut to 16 tokens" "$graft" predict --model model --adapter texts --data long.csv
  expect 0 "warning: long.csv: 1 of 2 texts cut to 32 tokens" "$graft" embed --model model --data long.csv \
    --sequence-length 32 --output vectors.csv
  # Labels are looked at before anything is written.
  printf 'text,label\nthe sun,a\nthe rain,z\n' >strange.csv
  expect 2 "strange.csv:3: the label 'z' is not one of a, b" "$graft" predict --model model --adapter texts \
    --data strange.csv --label-column label --output none
  [ ! -e none ] || fail "a refused command left something behind"

  # A refusal of a method says which options set what it names, each once; of one that names an option, or no field, no more.
  refused() {
    word=$1
    shift
    expect 2 "$word" "$graft" $tune --task classification --data texts.csv --output none "$@"
  }
  refused "r 3 and oft_block_size 4, .*; to set: --rank, --set oft_block_size=VALUE$" --method oft --rank 3 \
    --set oft_block_size=4
  refused "match none of .*; to set: --target-modules$" --target-modules nothing
  refused "bias 'some', .*; to set: --bias$" --set bias=some
  refused "init_lora_weights 'none', .*; to set: --init$" --init none
  refused "num_virtual_tokens is 0, .*; to set: --virtual-tokens$" --method prompt_tuning --set num_virtual_tokens=0
  refused "gralora_k 2 does not divide r 15; to set: --set gralora_k=VALUE$" --method gralora --rank 15
  refused "dropout 2.*, expected \[0, 1)$" --set lora_dropout=2
  refused "^graft: --set: 'no_field=1' is no FIELD=VALUE of method LORA (see graft methods LORA)$" --set no_field=1

  # compare: nothing could be compared, a learning rate too high beside one that is not, a mistake that was mended.
  compare="compare --model model --seeds 1 --steps 4 --batch-size 2 --sequence-length 16 --methods lora,probe"
  printf 'text,class\nthe sun,a\nthe rain,b\nsun and sun,a\nrain and rain,b\n' >mended.csv
  expect 2 "no method could be compared: mended.csv: no column 'label'" "$graft" $compare --data mended.csv --output table
  cp texts.csv mended.csv
  expect 0 "^| lora | " "$graft" $compare --data mended.csv --output table
  expect 0 "^| lora | " "$graft" $compare --data texts.csv --output rates --learning-rates 1e38,1e-3
  expect 0 "^| lora | " "$graft" $compare --task masked-language --data lines.txt --output perplexities \
    --learning-rates 1e38,1e-3
}
echo "ok"
