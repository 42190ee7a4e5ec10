#!/bin/sh
# Several methods on a tiny random BERT: tables, an interruption in between, a method that cannot be had.
set -eu
. "${GRAFT_SOURCE_DIR:?}/tests/cli/common.sh"

python3 "${GRAFT_SOURCE_DIR:?}/tests/tiny_model.py" model bert
python3 - <<'PYTHON'
import csv, random
rng = random.Random(2)
words = {"good": ["sun", "cake", "light"], "bad": ["rain", "mud", "dark"]}
with open("data.csv", "w", newline="") as out:
    rows = csv.writer(out)
    rows.writerow(("text", "label"))
    for i in range(100):
        label = list(words)[i % 2]
        rows.writerow((" ".join(rng.choice(words[label]) for _ in range(4)), label))
PYTHON
echo '{"*": {"weight-decay": 0.0}, "lora": {"rank": 2, "init": "no such initialisation"}}' >own.json
compare="--model model --data data.csv --seeds 2 --steps 20 --batch-size 8 --learning-rates 1e-2,1e-3 --full-learning-rates 2e-3 --budget 5"

# Interrupted after its first run; the same command goes on and repeats nothing.
# shellcheck disable=SC2086 # words are meant to split
"$graft" compare $compare --methods probe,rslora,full --output out >first.txt 2>&1 &
pid=$!
waited=0
until [ -e out/runs/probe-seed1-1e-2/result.json ]; do
  sleep 0.1
  waited=$((waited + 1))
  [ "$waited" -lt 3000 ] || fail "no run came to its end: $(cat first.txt)"
done
kill -TERM "$pid" 2>/dev/null || true
code=0
wait "$pid" || code=$?
pid=
[ "$code" = 130 ] || [ "$code" = 0 ] || { cat first.txt; fail "exit code $code after SIGTERM"; }
before=$(stat -c %Y.%s out/runs/probe-seed1-1e-2/result.json)
# shellcheck disable=SC2086 # words are meant to split
"$graft" compare $compare --methods probe,rslora,full --output out --json >result.json
[ "$before" = "$(stat -c %Y.%s out/runs/probe-seed1-1e-2/result.json)" ] || fail "a run was repeated"
python3 - <<'PYTHON'
import csv, json
rows = {r["method"]: r for r in json.load(open("result.json"))}
assert set(rows) == {"probe", "rslora", "full"}, rows
for name, r in rows.items():
    assert len(r["accuracy_values"]) == 2 and 0.5 <= r["accuracy"] <= 1, r
    assert r["steps"] == 20 and r["step_ms"] > 0 and r["over_frozen"] > 0 and r["adapter_bytes"] > 4 * r["trainable"], r
    assert r["merge_max_rel"] < 1e-3, r
assert rows["probe"]["trainable"] == 2 * 48 + 2 < rows["rslora"]["trainable"] < rows["full"]["trainable"]
table = list(csv.DictReader(open("out/table.csv")))
assert {r["method"] for r in table} == set(rows) and all(float(r["accuracy"]) > 0 for r in table), table
assert [float(r["learning_rate"]) for r in table if r["method"] == "full"] == [2e-3], table
PYTHON
grep -q '^| rslora | [0-9.]* ± ' out/table.md || fail "no row in the table: $(cat out/table.md)"
grep -q "</html>" out/table.html || fail "the page is not whole"
grep -q -e 'src="http' -e 'href="http' out/table.html && fail "the page needs the network"

# It goes on with the defaults that it was begun with, whatever they are by now.
python3 - <<'PYTHON'
import json
settings = json.load(open("out/settings.json"))
assert settings["steps"] == 20 and settings["defaults"]["scheduler"] == "linear" and "steps" not in settings["defaults"]
settings["defaults"]["scheduler"] = "cosine"
del settings["defaults"]["rank"]
json.dump(settings, open("out/settings.json", "w"))
PYTHON
# shellcheck disable=SC2086 # words are meant to split
"$graft" compare $compare --seeds 3 --methods probe --output out >on.txt 2>&1 || { cat on.txt; fail "it did not go on"; }
python3 - <<'PYTHON'
import glob, json
(path,) = glob.glob("out/runs/probe-seed3-*/settings.json")
assert json.load(open(path))["scheduler"] == "cosine"
PYTHON

# Other settings do not go on in the same folder.
code=0
"$graft" compare --model model --data data.csv --seeds 2 --steps 30 --methods probe --output out >other.txt 2>&1 || code=$?
[ "$code" = 2 ] && grep -q "cannot go on" other.txt || { cat other.txt; fail "other settings went on"; }

# A method that fails is a line of its own, not the end.
# shellcheck disable=SC2086 # words are meant to split
"$graft" compare $compare --methods lora,probe --method-settings own.json --output own >own.txt 2>&1 ||
  { cat own.txt; fail "one method that fails ended the comparison"; }
grep -q "no such initialisation" own/table.md && grep -q "^| probe" own/table.md || { cat own/table.md own.txt; fail "not in the table"; }
echo "ok"
