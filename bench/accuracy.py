#!/usr/bin/env python3
"""Trains text classifiers with graft and with Hugging Face PEFT, method by method, from the same start on the same batches, and
writes accuracy.md and accuracy.json. bench/accuracy.sh prepares what it needs.

graft draws the initial adapter and the head; PEFT loads that folder. Order of rows, AdamW, clipping, schedule and padding are the
same, so that the losses of the first steps agree to rounding and the accuracies to a few sentences. DeLoRA, whose first step
takes the update from 0 to its bound, and WaveFT, where AdamW sees gradients as small as its epsilon, make more of rounding: 1e-5
to 1e-4 within a dozen steps, from each other and from float64. A method that is finished (FOLDER/METHOD.json) is kept; the same
command goes on after an interruption.
"""
import argparse
import csv
import datetime
import json
import math
import os
import pathlib
import shutil
import statistics
import sys

from compare import HERE, Missing, flags, output_of

MASK = (1 << 64) - 1
NO_STEP = ["--max-steps", "1", "--learning-rate", "1e-300", "--weight-decay", "0"]  # leaves the adapter as it was drawn
ALL_LINEAR = ["--target-modules", "query,key,value,dense"]
RANK = ["--rank", "8", "--alpha", "16"]


def setting(**fields):
    return [word for name, value in fields.items() for word in ("--set", f"{name}={json.dumps(value)}")]


class Method:
    """Options of graft finetune, the learning rate, and how the peer trains it: by PEFT, or by transformers alone."""

    def __init__(self, options, learning_rate=1e-3, kind="peft", weight_decay=0.01):
        self.options, self.learning_rate, self.kind, self.weight_decay = options, learning_rate, kind, weight_decay


def linear(method, learning_rate=1e-3, *more, **fields):
    return Method(["--method", method, *ALL_LINEAR, *more, *setting(**fields)], learning_rate)


# Modules are named as BERT names them. Fields that are not given have PEFT's defaults. Widths are 384 and 1536: blocks and vectors of 256 do not divide them.
METHODS = {
    "lora": linear("lora", 1e-3, *RANK),
    "dora": linear("dora", 1e-3, *RANK),
    "adalora": linear("adalora", 5e-3, "--alpha", "16", init_r=12, target_r=8, tinit="FIFTH", tfinal="FIFTH", deltaT=5,
                      total_step="STEPS"),
    "oft": linear("oft"),
    "ia3": Method(["--method", "ia3", "--target-modules", "key,value,output.dense",
                   *setting(feedforward_modules=["output.dense"])], 5e-3),
    "vera": linear("vera", 5e-3, "--rank", "256"),
    "full": Method(["--method", "full", "--target-modules", "all"], 5e-5, "full"),
    # graft decays what is added to a bias, transformers the bias.
    "bitfit": Method(["--method", "bitfit"], 1e-3, "bitfit", weight_decay=0),
    "loha": linear("loha", 5e-3, "--rank", "8", "--alpha", "8"),
    "lokr": linear("lokr", 5e-3, "--rank", "8", "--alpha", "8"),
    "ln_tuning": Method(["--method", "ln_tuning", "--target-modules", "LayerNorm"], 5e-3),
    "boft": linear("boft"),
    "hra": linear("hra", 1e-3, "--rank", "8"),
    "miss": linear("miss", 1e-3, "--rank", "64"),
    "rslora": linear("rslora", 1e-3, *RANK),
    "pissa": linear("lora", 1e-3, *RANK, "--init", "pissa"),
    "olora": linear("lora", 1e-3, *RANK, "--init", "olora"),
    "fourierft": linear("fourierft", 5e-3),
    "randlora": linear("randlora", 1e-3, "--rank", "32", randlora_alpha=640),
    "c3a": linear("c3a", 5e-3, block_size=128),
    "vblora": linear("vblora", 5e-3, "--rank", "4", vector_length=128),
    "hira": linear("hira", 5e-3, "--rank", "32"),
    "road": linear("road", 5e-3),
    "gralora": linear("gralora", 1e-3, "--rank", "32", "--alpha", "64"),
    "delora": linear("delora", 1e-4, "--rank", "8"),
    "shira": linear("shira", 5e-3, "--rank", "32"),
    "waveft": linear("waveft", 1e-4),
    "tinylora": linear("tinylora", 5e-3, "--rank", "2"),
    "psoft": linear("psoft", 5e-3, "--rank", "32"),
    "unilora": linear("unilora", 5e-3, "--rank", "4"),
    "beft": linear("beft", 5e-3),
    "glora": linear("glora", 1e-3, "--rank", "8"),
    "lily": linear("lily", 1e-3, "--rank", "32"),
    "deft": linear("deft", 1e-3, "--rank", "8"),
    "peanut": linear("peanut", 1e-3, "--rank", "32"),
    "supertuning": linear("supertuning", 1e-3),
    "prompt_tuning": Method(["--method", "prompt_tuning", "--virtual-tokens", "20"], 5e-3),
    "probe": Method(["--method", "full", "--target-modules", "classifier"], 5e-3, "probe"),
}


# The order of rows, as include/graft/text/sampling.hpp draws it ---------------------------------------------------------------
def mt19937_64(seed):
    """Numbers of std::mt19937_64."""
    size, middle = 312, 156
    state = [seed & MASK]
    for i in range(1, size):
        state.append((6364136223846793005 * (state[-1] ^ (state[-1] >> 62)) + i) & MASK)
    while True:
        for i in range(size):
            x = (state[i] & 0xFFFFFFFF80000000) | (state[(i + 1) % size] & 0x7FFFFFFF)
            state[i] = state[(i + middle) % size] ^ (x >> 1) ^ (0xB5026F5AA96619E9 if x & 1 else 0)
        for x in state:
            x ^= (x >> 29) & 0x5555555555555555
            x ^= (x << 17) & 0x71D67FFFEDA60000
            x ^= (x << 37) & 0xFFF7EEE000000000
            yield (x ^ (x >> 43)) & MASK


def shuffled(count, seed):
    generator = mt19937_64(seed)
    order = list(range(count))
    for i in range(count, 1, -1):
        excess = (1 << 64) % i
        number = next(generator)
        while number > MASK - excess:
            number = next(generator)
        order[i - 1], order[number % i] = order[number % i], order[i - 1]
    return order


def mix_seeds(a, b):
    z = (a + 0x9E3779B97F4A7C15 * (b + 1)) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def rows_of_run(count, seed, wanted):
    """Epoch after epoch, each in an order of its own."""
    order, epoch = [], 0
    while len(order) < wanted:
        order += shuffled(count, mix_seeds(seed, epoch))
        epoch += 1
    return order[:wanted]


# Runs -------------------------------------------------------------------------------------------------------------------------
class Comparison:
    def __init__(self, options):
        self.o = options
        with open(options.train, encoding="utf-8", newline="") as file:
            rows = sum(1 for _ in csv.DictReader(file))
        self.steps = max(1, math.ceil(options.epochs * rows / options.batch_size - 1e-9))
        if options.max_steps:
            self.steps = min(self.steps, options.max_steps)
        self.order = rows_of_run(rows, options.seed, self.steps * options.batch_size)

    def settings(self):
        """What a finished method must have been run with."""
        def place(path):
            return "/".join(path.resolve().parts[-2:])

        return {**{name: place(getattr(self.o, name)) for name in ("model", "train", "test")}, "seed": self.o.seed,
                "steps": self.steps, "batch_size": self.o.batch_size, "sequence_length": self.o.sequence_length}

    def command(self, arguments):
        return output_of(arguments, self.o.timeout,
                         {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(self.o.threads),
                          "OMP_WAIT_POLICY": "PASSIVE"})

    def finetune(self, method, output, *more):
        options = [option.replace('"STEPS"', str(self.steps)).replace('"FIFTH"', str(self.steps // 5))
                   for option in method.options]
        self.command([
            self.o.bin / "graft", "finetune", "--json", "--task", "classification", "--model", self.o.model, "--data",
            self.o.train, "--held-out", 0, "--output", output, "--overwrite", *options, "--batch-size", self.o.batch_size,
            "--sequence-length", self.o.sequence_length, "--scheduler", "linear", "--seed", self.o.seed, "--threads",
            self.o.threads, *more])
        return json.loads((output / "result.json").read_text(encoding="utf-8"))

    def graft(self, method, place):
        result = self.finetune(method, place / "graft", "--test-data", self.o.test, "--epochs", self.o.epochs,
                               "--learning-rate", method.learning_rate, "--weight-decay", method.weight_decay,
                               "--max-steps", self.o.max_steps)
        confusion = result["test"]["confusion"]
        return {"right": sum(row[i] for i, row in enumerate(confusion)), "rows": result["test"]["rows"],
                "trained": result["trainable"], "losses": result["step_loss"],
                "step_ms": statistics.median(result["step_ms"]), "seconds": result["seconds"]}

    def peft(self, method, place):
        if self.o.python is None:
            raise Missing(self.o.missing or "no Python with torch, transformers and peft")
        start = place / "start"
        self.finetune(method, start, *NO_STEP)
        labels = json.loads((start / "labels.json").read_text(encoding="utf-8"))["labels"]
        spec = place / "peft.json"
        spec.write_text(json.dumps({
            "model": str(self.o.model), "start": str(start), "kind": method.kind, "train": str(self.o.train),
            "test": str(self.o.test), "labels": labels, "sequence_length": self.o.sequence_length, "order": self.order,
            "batch_size": self.o.batch_size, "steps": self.steps, "learning_rate": method.learning_rate,
            "weight_decay": method.weight_decay, "max_grad_norm": 1.0, "threads": self.o.threads}), encoding="utf-8")
        return json.loads(self.command([self.o.python, HERE / "peers" / "peft_train.py", spec]).splitlines()[-1])

    def run(self, name):
        """What is known of a method, measured now or before; written after each part."""
        file, place = self.o.folder / f"{name}.json", self.o.folder / "work" / name
        method = METHODS[name]
        record = {"method": name, "settings": self.settings(), "learning_rate": method.learning_rate,
                  "weight_decay": method.weight_decay, "options": " ".join(method.options)}
        if file.exists():
            before = json.loads(file.read_text(encoding="utf-8"))
            if all(before.get(key) == value for key, value in record.items()):
                record.update({side: before[side] for side in ("graft", "peft") if "right" in before.get(side, {})})
        for side in ("graft", "peft"):
            if side in record:
                continue
            print(f"{datetime.datetime.now():%H:%M:%S} {name}: {side}", file=sys.stderr, flush=True)
            try:
                record[side] = getattr(self, side)(method, place)
            except Missing as reason:
                record[side] = {"reason": str(reason)}
            written = file.with_suffix(".new")
            written.write_text(json.dumps(record), encoding="utf-8")
            os.replace(written, file)
        shutil.rmtree(place, ignore_errors=True)
        return record

    def about(self):
        return {"date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}", "processor": flags()[1], "threads": self.o.threads,
                **self.settings()}


# Table ------------------------------------------------------------------------------------------------------------------------
def accuracy(side):
    return 100 * side["right"] / side["rows"]


def markdown(about, records):
    lines = ["# graft beside PEFT: accuracy from the same start", ""]
    lines += [f"- {key.replace('_', ' ')}: {value}" for key, value in about.items()]
    lines += ["", "Difference: accuracy of graft less that of PEFT, in points. Losses: largest difference at the first step and "
              "within the first 20. Full, bitfit and probe: transformers without PEFT.", "",
              "| method | learning rate | trained | graft % | PEFT % | difference | first loss | 20 losses | graft ms a step | "
              "PEFT ms a step |", "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    both = within = 0
    for record in records:
        ours, theirs = record["graft"], record["peft"]
        cells = [record["method"], f"{record['learning_rate']:g}"]
        trained = [str(side["trained"]) for side in (ours, theirs) if "right" in side]
        cells.append(" / ".join(dict.fromkeys(trained)) or "")
        cells += [f"{accuracy(side):.2f}" if "right" in side else f"not measured: {side['reason']}" for side in (ours, theirs)]
        if len(trained) == 2:
            both += 1
            off = accuracy(ours) - accuracy(theirs)
            within += abs(off) <= 1
            losses = [abs(a - b) for a, b in zip(ours["losses"], theirs["losses"])][:20]
            cells += [f"{off:+.2f}", f"{losses[0]:.1e}", f"{max(losses):.1e}"]
        else:
            cells += ["", "", ""]
        cells += [f"{side['step_ms']:.0f}" if "right" in side else "" for side in (ours, theirs)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", f"Within one point of PEFT: {within} of {both}."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="where accuracy.md, accuracy.json and METHOD.json go")
    parser.add_argument("--methods", default=",".join(METHODS), help="separated by commas, of: " + ", ".join(METHODS))
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--max-steps", type=int, default=0, help="at most so many steps; 0: no limit")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--sequence-length", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--timeout", type=int, default=3600, help="seconds that one run may take")
    parser.add_argument("--bin", type=pathlib.Path, default=HERE.parent / "build" / "release" / "bin")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder of a BERT")
    parser.add_argument("--train", type=pathlib.Path, required=True, help="CSV with the columns text and label")
    parser.add_argument("--test", type=pathlib.Path, required=True)
    parser.add_argument("--python", default=None, help="an interpreter with torch, transformers and peft")
    parser.add_argument("--missing", default="", help="why there is none")
    options = parser.parse_args()
    names = [name for name in options.methods.split(",") if name]
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names:
        parser.error(f"{', '.join(unknown) or 'nothing'}: methods are {', '.join(METHODS)}")
    if min(options.batch_size, options.threads, options.sequence_length) < 1 or options.max_steps < 0 or options.epochs <= 0:
        parser.error("numbers must be positive")
    try:
        kind = json.loads((options.model / "config.json").read_text(encoding="utf-8")).get("model_type")
    except OSError as error:
        parser.error(f"--model: {error}")
    if kind != "bert":
        parser.error(f"--model: {options.model} is of the type {kind}, expected bert: the methods name its modules "
                     f"({ALL_LINEAR[1]}), which others call otherwise")
    options.folder.mkdir(parents=True, exist_ok=True)
    comparison = Comparison(options)
    records = []
    for name in names:
        records.append(comparison.run(name))
        about = comparison.about()
        version = [r["peft"]["version"] for r in records if "version" in r["peft"]]
        about["peer"] = version[-1] if version else "not there"
        text = markdown(about, records)
        (options.folder / "accuracy.md").write_text(text, encoding="utf-8")
        (options.folder / "accuracy.json").write_text(json.dumps({"about": about, "methods": records}, indent=1),
                                                      encoding="utf-8")
    print(text)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from here")
