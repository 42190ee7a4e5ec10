#!/bin/sh
# The timing programs and the comparison on a tiny random model; no figure is judged.
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
