# Sourced by the tests of the program: skips what cannot run, goes into a scratch folder that is removed at the
# end, and stops the process whose number a test puts into pid.
graft=${GRAFT_BIN:?}/graft
[ -x "$graft" ] || {
  echo "skipped: the program graft was not built"
  exit 77
}
command -v python3 >/dev/null 2>&1 || {
  echo "skipped: no python3 to write the tiny model"
  exit 77
}
folder=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"

fail() {
  echo "failed: $*"
  exit 1
}
# expect CODE WORD COMMAND...: the exit code and a word in what it says.
expect() {
  code=$1 word=$2
  shift 2
  actual=0
  "$@" >out.txt 2>&1 || actual=$?
  [ "$actual" = "$code" ] || { cat out.txt; fail "exit code $actual, expected $code: $*"; }
  grep -q -e "$word" out.txt || { cat out.txt; fail "no '$word' in the output of: $*"; }
}
