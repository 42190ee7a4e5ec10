#!/bin/sh
# The cost of every method over the frozen layer as one folder: overhead.md (table of ratios), overhead.json,
# overhead.svg (steps and memory by rows; needs gnuplot), and command.txt (the command; the processor), from which
# cmake/readme_tables.py --overhead FOLDER makes the README's table. Further arguments go to bench_overhead.
# Usage: bench/report.sh FOLDER [--methods LIST] [--shape LIST] [--rows LIST] [--seconds S] [--threads N]
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
program=${GRAFT_BIN:-$here/build/release/bin}/bench_overhead
folder=${1:?usage: bench/report.sh FOLDER [options of bench_overhead]}
shift
[ -x "$program" ] || {
  echo "bench/report.sh: $program is not there; build it with: cmake --build --preset release --target bench_overhead" >&2
  exit 1
}
mkdir -p "$folder"
"$program" --json "$@" >"$folder/overhead.json"
{
  echo "bench/report.sh FOLDER${*:+ $*}"
  sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -1
} >"$folder/command.txt"
"$program" --from "$folder/overhead.json" >"$folder/overhead.md"
"$program" --from "$folder/overhead.json" --plot-data >"$folder/overhead.tsv"
if command -v gnuplot >/dev/null 2>&1; then
  gnuplot <<PLOT
set terminal svg size 1100,1400 dynamic
set output "$folder/overhead.svg"
set datafile separator "\t"
set logscale x
set grid xtics
set xlabel "step with the adapter over the frozen step"
set yrange [*:*] reverse
set ytics font ",9"
set key top right
set arrow from 1.25, graph 0 to 1.25, graph 1 nohead dashtype 2
plot "$folder/overhead.tsv" using 3:0:ytic(1) with points pointtype 7 title "step", \
     "" using 2:0 with points pointtype 6 title "forward"
PLOT
else
  echo "bench/report.sh: no gnuplot, no plot" >&2
fi
rm -f "$folder/overhead.tsv"
echo "$folder: $(ls "$folder" | tr '\n' ' ')"
