#!/bin/sh
# The timing programs and the comparisons on tiny random models; no figure is judged.
set -eu
. "${GRAFT_SOURCE_DIR:?}/tests/cli/common.sh"
for program in bench_step bench_generate kernels_gemm; do
  [ -x "$GRAFT_BIN/$program" ] || {
    echo "skipped: the program $program was not built"
    exit 77
  }
done
python3 "$GRAFT_SOURCE_DIR/tests/tiny_model.py" model

step() { "$GRAFT_BIN/bench_step" --model model --batch 1 --tokens 16 --steps 2 --rank 2 --json "$@"; }
step >lora.json
step --frozen >frozen.json
step --full >full.json
expect 2 frozen "$GRAFT_BIN/bench_step" --model model --frozen --full
"$GRAFT_BIN/bench_generate" --model model --prompt 8 --tokens 3 --rounds 1 --json >generate.json
python3 - <<'PYTHON'
import json
lora, frozen, full = (json.load(open(name + ".json")) for name in ("lora", "frozen", "full"))
assert frozen["trainable"] == 0 < lora["trainable"] < full["trainable"], (lora, frozen, full)
assert frozen["loss_first"] == frozen["loss_last"] == lora["loss_first"], (lora, frozen)
assert lora["loss_last"] < lora["loss_first"], lora
assert 0 < lora["pool_peak_mib"] <= lora["pool_held_mib"] < lora["peak_rss_mib"], lora
generate = json.load(open("generate.json"))
assert generate["weight_mib"] > 0 and generate["cache_mib"] > 0, generate
bound = generate["read_gib_per_second"] * 1024 / (generate["weight_mib"] + generate["cache_mib"])
assert abs(generate["bound_tokens_per_second"] / bound - 1) < 1e-6, generate
PYTHON

# Without peers the comparison says why, row by row, and keeps what it can measure alone.
GRAFT_SKIP_INSTALL=1 GRAFT_COMPARE_PYTHON=none GRAFT_COMPARE_LLAMA=none GRAFT_MODEL_FILE=$folder/model \
  sh "$GRAFT_SOURCE_DIR/bench/compare.sh" "$folder/table" --quick --rows step,full,frozen,generation --threads 1 \
  >compare.txt || { cat compare.txt; fail "compare.sh failed"; }
python3 - <<'PYTHON'
import json
table = json.load(open("table/compare.json"))
rows = {row["what"]: row for row in table["rows"]}
assert len(rows) == 6, rows.keys()
assert sum("torch" in row["reason"] for row in table["rows"]) == 2, rows
assert sum("llama" in row["reason"] for row in table["rows"]) == 1, rows
alone = [row for row in table["rows"] if row["row"] in ("full", "frozen")]
assert len(alone) == 2 and all(row["measured"] and row["met"] in (True, False) for row in alone), alone
text = open("table/compare.md").read()
assert text.count("not measured: ") == 3, text
PYTHON
expect 2 "rows are" python3 "$GRAFT_SOURCE_DIR/bench/compare.py" out --rows step,nothing

# Accuracies beside PEFT: without it the table says so, and what is finished is kept.
expect 2 "nothing: methods are" python3 "$GRAFT_SOURCE_DIR/bench/accuracy.py" out --model m --train t --test t --methods lora,nothing
expect 2 "must be positive" python3 "$GRAFT_SOURCE_DIR/bench/accuracy.py" out --model m --train t --test t --epochs 0
expect 2 "model is of the type llama, expected bert" python3 "$GRAFT_SOURCE_DIR/bench/accuracy.py" out --model model --train t --test t
expect 2 "No such file.*config.json" python3 "$GRAFT_SOURCE_DIR/bench/accuracy.py" out --model m --train t --test t
python3 "$GRAFT_SOURCE_DIR/tests/tiny_model.py" encoder bert
mkdir labelled
for part in train test; do
  {
    echo text,label
    for i in 1 2 3 4 5 6 7 8 9 10; do
      echo "sun and cake $i,good"
      echo "\"rain, and mud $i\",bad"
    done
  } >labelled/$part.csv
done
accuracy() {
  GRAFT_SKIP_INSTALL=1 GRAFT_COMPARE_PYTHON=none GRAFT_ENCODER=$folder/encoder GRAFT_LABELLED=$folder/labelled \
    sh "$GRAFT_SOURCE_DIR/bench/accuracy.sh" accuracy --methods lora,bitfit --batch-size 8 --threads 1 >accuracy.txt 2>&1 ||
    { cat accuracy.txt; fail "accuracy.sh failed"; }
}
accuracy
python3 - <<'PYTHON'
import json, os, sys
sys.path.insert(0, os.environ["GRAFT_SOURCE_DIR"] + "/bench")
from accuracy import mt19937_64, rows_of_run
numbers = mt19937_64(5489)
assert [next(numbers) for _ in range(10000)][-1] == 9981545732273789042  # the C++ standard, rand.predef
rows = rows_of_run(20, 1, 50)
assert sorted(rows[:20]) == sorted(rows[20:40]) == list(range(20)) and rows[:20] != rows[20:40] and len(rows) == 50, rows
table = json.load(open("accuracy/accuracy.json"))
assert table["about"]["steps"] == 3 and [m["method"] for m in table["methods"]] == ["lora", "bitfit"], table
for method in table["methods"]:
    assert method["graft"]["rows"] == 20 and len(method["graft"]["losses"]) == 3, method
    assert method["peft"] == {"reason": "no Python with torch, transformers and peft"}, method
text = open("accuracy/accuracy.md").read()
assert text.count("not measured: no Python") == 2 and "PEFT: 0 of 0." in text, text
for name, less, loss in (("lora", 1, 0.25), ("bitfit", 0, 0)):  # as if there had been one
    record = json.load(open(f"accuracy/{name}.json"))
    ours = record["graft"] = {**record["graft"], "right": 11}
    record["peft"] = {**ours, "right": 11 - less, "losses": [ours["losses"][0], ours["losses"][1] + loss, ours["losses"][2]]}
    json.dump(record, open(f"accuracy/{name}.json", "w"))
PYTHON
accuracy
grep -q "^| lora | 0.001 | [0-9]* | 55.00 | 50.00 | +5.00 | 0.0e+00 | 2.5e-01 |" accuracy/accuracy.md &&
  grep -q "^| bitfit | .* | 55.00 | 55.00 | +0.00 | 0.0e+00 | 0.0e+00 |" accuracy/accuracy.md &&
  grep -q "PEFT: 1 of 2." accuracy/accuracy.md || { cat accuracy/accuracy.md; fail "the table is not that of the records"; }
