#!/bin/sh
# A run that is killed at any moment goes on from its last checkpoint and ends with the bits of an unbroken one.
set -eu
. "${GRAFT_SOURCE_DIR:?}/tests/cli/common.sh"

python3 "${GRAFT_SOURCE_DIR:?}/tests/tiny_model.py" model
for i in $(seq 300); do echo "The seventh cat of number $i sat on the mat and looked at the moon."; done >text.txt
# Settings from a file: keys with dashes or underscores.
cat >settings.json <<'JSON'
{"model": "model", "data": "text.txt", "rank": 4, "dropout": 0.1, "steps": 150, "batch_size": 8,
 "gradient-accumulation": 2, "sequence-length": 64, "learning-rate": 0.01, "held-out": 0.05, "seed": 3,
 "eval-interval": 60, "target_modules": ["q_proj", "v_proj", "down_proj"], "json": true}
JSON
"$graft" finetune --config settings.json --output unbroken >unbroken.json

# Killed without warning, several times.
"$graft" finetune --config settings.json --output killed --checkpoint-interval 1 >/dev/null &
pid=$!
kills=0
for delay in 0.3 0.5 0.2 0.7 0.4; do
  sleep "$delay"
  kill -9 "$pid" 2>/dev/null || true
  code=0
  wait "$pid" 2>/dev/null || code=$?
  [ "$code" != 137 ] || kills=$((kills + 1)) # else it had ended already
  if [ ! -e killed/settings.json ]; then # before the run had begun
    "$graft" finetune --config settings.json --output killed --checkpoint-interval 1 >/dev/null &
  else
    [ -e killed/adapter_config.json ] && [ ! -d killed/checkpoints ] && break
    "$graft" finetune --resume --output killed --json >/dev/null &
  fi
  pid=$!
done
wait "$pid" || fail "the resumed run failed"
pid=
[ "$kills" -gt 0 ] || fail "nothing was killed"
cmp unbroken/adapter_model.safetensors killed/adapter_model.safetensors ||
  fail "the run that was killed $kills times ended with other bits"
[ ! -e killed/checkpoints ] || fail "a complete run keeps checkpoints"
"$graft" finetune --resume --output killed >complete.txt || fail "resuming a complete run is an error"
grep -q complete complete.txt || fail "resuming a complete run does not say so"

# Interrupted from the keyboard: the step is finished and saved, and the words say how to go on.
"$graft" finetune --config settings.json --output interrupted --threads 1 >/dev/null 2>words.txt &
pid=$!
for try in $(seq 100); do
  [ ! -d interrupted/checkpoints ] || break
  sleep 0.1
done
sleep 0.3
kill -INT "$pid"
code=0
wait "$pid" || code=$?
pid=
if [ "$code" != 0 ]; then # else it was complete already
  [ "$code" = 130 ] || { cat words.txt; fail "exit code $code after an interrupt, expected 130"; }
  grep -q -e "--resume --output interrupted" words.txt || { cat words.txt; fail "no word on how to go on"; }
  expect 2 "not complete" "$graft" finetune --config settings.json --output interrupted
  expect 2 "rank" "$graft" finetune --resume --output interrupted --rank 8
  expect 2 "learning-rate" "$graft" finetune --resume --output interrupted --learning-rate 0.5
  echo "more text" >>text.txt
  expect 2 "data" "$graft" finetune --resume --output interrupted
  sed -i '$d' text.txt
fi
"$graft" finetune --resume --output interrupted --threads 2 --json >/dev/null
cmp unbroken/adapter_model.safetensors interrupted/adapter_model.safetensors ||
  fail "the interrupted run ended with other bits"

# What was not given goes on as the default that it was, where a method takes it for something else than given.
short="finetune --model model --data text.txt --steps 4 --batch-size 2 --sequence-length 32 --json"
for more in "--method oft" "--method bitfit" "--method adaption_prompt" "--optimizer lora-fa" "--method smore"; do
  # shellcheck disable=SC2086 # words are meant to split
  {
    "$graft" $short $more --output whole >/dev/null
    "$graft" $short $more --output stopped --time-limit 0.000001 >/dev/null
  }
  [ -d stopped/checkpoints ] || fail "$more: the run was not stopped"
  expect 0 '"complete": *true' "$graft" finetune --resume --output stopped --time-limit 0 --json
  cmp whole/adapter_model.safetensors stopped/adapter_model.safetensors || fail "$more: a resumed run ended with other bits"
  rm -r whole stopped
done
"$graft" finetune --model model --data text.txt --steps 4 --method oft --output oft --time-limit 0.000001 >/dev/null
expect 2 "rank: the run was begun with the default" "$graft" finetune --resume --output oft --rank 16

expect 2 "no run to go on with" "$graft" finetune --resume --output nowhere
echo '{"model": "model", "rnak": 3}' >wrong.json
expect 2 "wrong.json.*rnak" "$graft" finetune --config wrong.json --data text.txt --output none
echo '{"model": "model", "rank": {"q": 3}}' >wrong.json
expect 2 "wrong.json.*rank" "$graft" finetune --config wrong.json --data text.txt --output none
[ ! -e none ] || fail "a refused command left a folder behind"
echo "ok: killed $kills times"
