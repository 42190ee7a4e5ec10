#!/usr/bin/env python3
"""Compares what including graft costs with what including <Eigen/Dense> costs, on this machine, now.

Each probe is compiled several times, in turn with the others, and its best processor time counts. Budgets are
ratios against Eigen, not seconds, but for fwd.hpp: milliseconds above an empty file, scaled by Eigen's time
over the second that it takes on the machine where the budget was set. Exits 1 if a budget is exceeded.

Usage: compile_time.py [--compiler g++] [--repeat 5] [--json FILE]
"""
import argparse
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
FLAGS = ["-std=c++20", f"-I{ROOT}/include"]

PROBES = {
    "empty": ("", ["-O0"]),
    "eigen": ("#include <Eigen/Dense>\n", ["-O0"]),
    "umbrella": ('#include "graft/graft.hpp"\n', ["-O0"]),
    "fwd": ('#include "graft/fwd.hpp"\n', ["-O0"]),
}


def seconds(compiler, source, flags):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([compiler, *FLAGS, *flags, "-c", source, "-o", os.devnull], check=True,
                   env=dict(os.environ, CCACHE_DISABLE="1"))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--compiler", default="g++")
    arguments.add_argument("--repeat", type=int, default=5)
    arguments.add_argument("--json")
    options = arguments.parse_args()
    compiler = shutil.which(options.compiler)
    if compiler is None:
        sys.exit(f"compile_time: no compiler {options.compiler}")

    eigen = "/usr/include/eigen3"
    if shutil.which("pkg-config"):
        found = subprocess.run(["pkg-config", "--variable=includedir", "eigen3"], capture_output=True, text=True)
        flags = subprocess.run(["pkg-config", "--cflags", "eigen3"], capture_output=True, text=True)
        if found.returncode == 0 and flags.returncode == 0:
            eigen = None
            FLAGS.extend(flags.stdout.split())
    if eigen:
        FLAGS.append(f"-isystem{eigen}")

    probes = dict(PROBES)
    lora = ROOT / "tests" / "compile_time" / "lora.cpp"
    if lora.exists():
        probes["lora"] = (lora.read_text(), ["-O2"])

    best = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (text, _) in probes.items():
            pathlib.Path(folder, name + ".cpp").write_text(text)
        for round_ in range(options.repeat):
            for name, (_, flags) in probes.items():
                if name == "lora" and round_ >= 2:
                    continue
                time = seconds(compiler, os.path.join(folder, name + ".cpp"), flags)
                best[name] = min(time, best.get(name, time))

    scale = best["eigen"]  # about one second where the budgets were set
    rows = [
        ("graft/graft.hpp / Eigen/Dense", best["umbrella"] / best["eigen"], 1.5),
        ("(graft/fwd.hpp - empty) / (50 ms)", (best["fwd"] - best["empty"]) / (0.05 * scale), 1.0),
    ]
    if "lora" in best:
        rows.append(("LoRA program at -O2 / Eigen/Dense", best["lora"] / best["eigen"], 6.0))
    failed = False
    print("seconds: " + ", ".join(f"{name} {value:.3f}" for name, value in best.items()))
    for name, value, budget in rows:
        failed |= value > budget
        print(f"{name:36s} {value:6.2f}  budget {budget:.1f}  {'ok' if value <= budget else 'EXCEEDED'}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as out:
            json.dump({"seconds": best, "ratios": {name: value for name, value, _ in rows}}, out, indent=1)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
