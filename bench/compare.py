#!/usr/bin/env python3
"""Runs graft and other libraries alternately and writes compare.md and compare.json. bench/compare.sh prepares what it needs."""
import argparse
import collections
import datetime
import json
import math
import os
import pathlib
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
RECOMPUTED = 0.56  # share of the blocks that are computed again to fit an eighth of PyTorch's memory
LORA_SHAPES = [(576, 576), (576, 1536), (1024, 1024), (2048, 2048)]
SHAPES = {
    "SmolLM2": [(576, 576), (576, 192), (576, 1536), (1536, 576)],
    "BERT-base": [(768, 768), (768, 3072), (3072, 768)],
    "7B": [(4096, 4096), (4096, 11008), (11008, 4096)],
}
RANK = 16


class Missing(Exception):
    """Why something could not be measured."""


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"


def flags():
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return set(), "unknown"
    found = re.search(r"^flags\s*:(.*)$", text, re.M)
    model = re.search(r"^model name\s*:(.*)$", text, re.M)
    return set(found.group(1).split() if found else []), model.group(1).strip() if model else "unknown"


def spread(values):
    return (max(values) - min(values)) / statistics.median(values) if len(values) > 1 else 0.0


def output_of(arguments, timeout, env):
    """What a program prints. Raises Missing for one that is not there, fails, or takes longer than `timeout` seconds."""
    try:
        result = subprocess.run([str(a) for a in arguments], env=env, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError:
        raise Missing(f"{arguments[0]} is not there") from None
    except subprocess.TimeoutExpired:
        raise Missing(f"stopped after {timeout} s") from None
    if result.returncode != 0:
        raise Missing(last_line(result.stderr or result.stdout))
    return result.stdout


class Row:
    """A line of the table: what, the bar in words, the measured figure in words, and whether it is met."""

    def __init__(self, key, what, bar, measured="", met=None, figures=None, reason="", shown=""):
        self.key, self.what, self.bar, self.measured, self.met = key, what, bar, measured, met
        self.figures, self.reason, self.shown = figures or {}, reason, shown

    def verdict(self):
        return {True: "met", False: "**not met**", None: "not measured" if not self.measured else "no bar"}[self.met]

    def json(self):
        return {"row": self.key, "what": self.what, "bar": self.bar, "measured": self.measured, "met": self.met,
                "figures": self.figures, "spread": self.shown, "reason": self.reason}


class Bench:
    def __init__(self, options):
        self.o = options
        self.flags, self.cpu = flags()
        self.amx = "amx_bf16" in self.flags
        vendor = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8") if os.path.exists("/proc/cpuinfo") else ""
        self.fast_bf16 = self.amx or "avx512_bf16" in self.flags and "AuthenticAMD" in vendor
        self.env = {k: v for k, v in os.environ.items()
                    if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OMP_WAIT_POLICY", "GRAFT_NUM_THREADS")}
        self.runs = collections.defaultdict(list)  # name of a run -> what it printed, one for each round
        self.failed = {}
        self.losses = {}  # of the text, by the arguments of the program
        self.rounds = options.rounds

    def note(self, text):
        print(f"{datetime.datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)

    # Runs -----------------------------------------------------------------------------------------------------------
    def command(self, arguments, **env):
        """Runs a program and gives the JSON object that it prints."""
        text = output_of(arguments, self.o.timeout, {**self.env, **env})
        try:
            return json.loads(text[text.index("{"):])
        except ValueError:
            raise Missing("it printed no JSON: " + last_line(text)) from None

    def step(self, *extra, batch=4, tokens=256, threads=None, steps=None):
        threads = threads or self.o.threads
        steps = steps or (self.o.steps if batch > 1 else 3 * self.o.steps)
        if self.o.model is None:
            raise Missing("no model file")
        return self.command([self.o.bin / "bench_step", "--model", self.o.model, "--batch", batch, "--tokens", tokens,
                             "--threads", threads, "--steps", steps, "--rank", RANK, "--json", *extra])

    def loss_on_text(self, *extra):
        """Held-out loss of the model after 200 steps of the program graft."""
        if self.o.model is None or self.o.text is None:
            raise Missing("no model file" if self.o.model is None else "no text to train on")
        if extra in self.losses:
            return self.losses[extra]
        self.note(" ".join(("200 steps on a text", *extra)))
        with tempfile.TemporaryDirectory() as folder:
            result = self.command([
                self.o.bin / "graft", "finetune", "--json", "--model", self.o.model, "--data", self.o.text, "--output",
                pathlib.Path(folder, "adapter"), "--rank", RANK, "--target-modules", "all-linear", "--steps", 200,
                "--batch-size", 4, "--sequence-length", 64, "--learning-rate", 5e-4, "--scheduler", "cosine",
                "--held-out", 0.004, "--eval-interval", 0, "--seed", 1, "--threads", self.o.threads, *extra])
        self.losses[extra] = math.log(result["perplexity_after"])
        return self.losses[extra]

    def loss_row(self, key, *extra):
        row = Row(key, f"held-out loss after 200 steps on a text, `{' '.join(extra)}` against f32 (4 × 64 tokens)", "≤ 0.5 %")
        try:
            losses = [self.loss_on_text("--compute", "f32"), self.loss_on_text(*extra)]
            off = abs(losses[1] / losses[0] - 1)
            row.measured, row.met = f"{100 * off:.2g} % ({losses[0]:.5g}, {losses[1]:.5g})", off <= 0.005
            row.figures = {"f32": losses[0], "other": losses[1]}
        except Missing as reason:
            row.reason = str(reason)
        return row

    def torch(self, kind, policy, batch=4, tokens=256):
        if self.o.python is None:
            raise Missing(self.o.missing.get("torch", "no Python with torch, transformers and peft"))
        steps = self.o.steps if batch > 1 else 3 * self.o.steps
        return self.command([self.o.python, HERE / "peers" / "torch_step.py", batch, tokens, steps, kind,
                             self.o.threads], OMP_WAIT_POLICY=policy, OMP_NUM_THREADS=str(self.o.threads))

    def alternate(self, runs, rounds=None):
        """Runs each of {name: function} once a round, in a turning order, and keeps what they gave."""
        names = [name for name in runs if name not in self.runs and name not in self.failed]
        for turn in range(rounds or self.rounds):
            for name in names[turn % max(1, len(names)):] + names[:turn % max(1, len(names))]:
                if name in self.failed:
                    continue
                self.note(f"round {turn + 1}: {name}")
                try:
                    self.runs[name].append(runs[name]())
                except Missing as reason:
                    self.failed[name] = str(reason)
                    self.runs.pop(name, None)

    def values(self, name, key):
        if name in self.failed:
            raise Missing(f"{name}: {self.failed[name]}")
        if name not in self.runs:
            raise Missing(f"{name}: not run")
        return [run[key] for run in self.runs[name]]

    def median(self, name, key):
        return statistics.median(self.values(name, key))

    def ratios(self, above, below, key):
        """above / below round by round."""
        return [a / b for a, b in zip(self.values(above, key), self.values(below, key))]

    def step_runs(self):
        """All step runs that the chosen rows need, by name."""
        o, wanted, runs = self.o, set(self.o.rows), {}
        policies = ("PASSIVE", "ACTIVE")

        def peers(kinds, **sizes):
            where = "" if sizes.get("batch", 4) == 4 else " 1x64"
            return {f"torch {kind} {policy.lower()}{where}": lambda k=kind, p=policy: self.torch(k, p, **sizes)
                    for kind in kinds for policy in policies}
        if wanted & {"step", "memory", "checkpoint", "full", "frozen", "threads", "bf16"}:
            runs["graft f32"] = lambda: self.step()
        if wanted & {"step", "bf16", "memory", "checkpoint"}:
            runs.update(peers(["f32"]))
        if "step" in wanted and self.amx:
            runs["graft f32-split"] = lambda: self.step("--compute", "f32-split")
        if "step" in wanted:
            runs["graft f32 1x64"] = lambda: self.step(batch=1, tokens=64)
            runs.update(peers(["f32"], batch=1, tokens=64))
        if "bf16" in wanted:
            runs["graft bf16"] = lambda: self.step("--compute", "bf16")
            runs.update(peers(["bf16", "autocast"]))
        if "memory" in wanted:
            runs["graft f32, bf16 storage"] = lambda: self.step("--activations", "bf16")
            runs["graft f32, part of the blocks again"] = lambda: self.step("--recompute", str(RECOMPUTED))
        if "checkpoint" in wanted:
            runs["graft f32, checkpoints"] = lambda: self.step("--recompute", "1")
        if "full" in wanted:
            runs["graft f32, full"] = lambda: self.step("--full")
        if "frozen" in wanted:
            runs["graft f32, frozen"] = lambda: self.step("--frozen")
        if "threads" in wanted and o.threads > 1:
            runs["graft f32, 1 thread"] = lambda: self.step(threads=1)
        return runs

    def best_torch(self, kinds, where=""):
        """Name of the fastest run of PyTorch among the kinds, both wait policies."""
        names = [f"torch {kind} {policy}{where}" for kind in kinds for policy in ("passive", "active")]
        there = [name for name in names if name in self.runs]
        if not there:
            raise Missing(self.failed.get(names[0], "not run"))
        return max(there, key=lambda name: self.median(name, "tokens_per_second"))

    # Rows -----------------------------------------------------------------------------------------------------------
    def against(self, key, what, bar, above, below, quantity="tokens_per_second", least=True, unit="tokens/s"):
        """A row with above / below of a quantity, against a bar from below (least) or from above."""
        sign = "≥" if least else "≤"
        row = Row(key, what, f"{sign} {bar:g} ×" if bar else "none for this processor")
        try:
            below = below() if callable(below) else below
            r = self.ratios(above, below, quantity)
        except Missing as reason:
            row.reason = str(reason)
            return row
        middle = statistics.median(r)
        row.figures = {"ratio": middle, above: self.median(above, quantity), below: self.median(below, quantity)}
        row.measured = (f"{middle:.3g} × ({self.median(above, quantity):.4g} {unit}, {below}: "
                        f"{self.median(below, quantity):.4g})")
        row.shown = f"{min(r):.3g} … {max(r):.3g}"
        row.met = (middle >= bar if least else middle <= bar) if bar else None
        return row

    def rows_step(self):
        split = [self.against("step", "the same with --compute f32-split by AMX tiles", 2.5, "graft f32-split",
                              lambda: self.best_torch(["f32"]))] if self.amx else []
        return [self.against("step", "f32 step, base in 4 bits, 4 × 256, over PyTorch + PEFT f32", 1.7,
                             "graft f32", lambda: self.best_torch(["f32"])), *split,
                self.against("step", "the same at 1 × 64", 2.5, "graft f32 1x64",
                             lambda: self.best_torch(["f32"], " 1x64"))]

    def rows_bf16(self):
        bar = 3.5 if self.amx else 1.8 if self.fast_bf16 else 0
        rows = [self.against("bf16", "bf16 step over the best of PyTorch's f32, bf16, autocast", bar, "graft bf16",
                             lambda: self.best_torch(["f32", "bf16", "autocast"]))]
        return rows + [self.loss_row("bf16", "--compute", "bf16")]

    def memory_row(self, key, what, name, part):
        row = Row(key, what, f"≤ 1/{part} of PyTorch + PEFT f32")
        try:
            peer = self.best_torch(["f32"])
            ours, theirs = self.values(name, "peak_rss_mib"), self.values(peer, "peak_rss_mib")
        except Missing as reason:
            row.reason = str(reason)
            return row
        share = statistics.median(theirs) / statistics.median(ours)
        row.measured = (f"1/{share:.2f} ({statistics.median(ours):.0f} MiB of {statistics.median(theirs):.0f}, "
                        f"bar {statistics.median(theirs) / part:.0f})")
        row.met, row.figures = share >= part, {"ours_mib": statistics.median(ours), "theirs_mib": statistics.median(theirs)}
        row.shown = f"{min(ours):.0f} … {max(ours):.0f} MiB"
        return row

    def rows_memory(self):
        again = "graft f32, part of the blocks again"
        return [self.memory_row("memory", "peak memory at 4 × 256, f32, all values kept", "graft f32", 8),
                self.memory_row("memory", f"peak memory at 4 × 256, f32, {100 * RECOMPUTED:.0f} % of the blocks computed again", again, 8),
                self.against("memory", "its step over PyTorch + PEFT", 1.7, again,
                             lambda: self.best_torch(["f32"])),
                self.memory_row("memory", "peak memory at 4 × 256, `--activations bf16`", "graft f32, bf16 storage", 8),
                self.loss_row("memory", "--compute", "f32", "--activation-storage", "bf16")]

    def rows_checkpoint(self):
        return [self.memory_row("checkpoint", "peak memory with activation checkpointing", "graft f32, checkpoints", 14),
                self.against("checkpoint", "its time over the step without", 1.35, "graft f32, checkpoints", "graft f32",
                             "step_ms", False, "ms")]

    def rows_full(self):
        return [self.against("full", "LoRA step over full fine-tuning", 0.72, "graft f32", "graft f32, full", "step_ms",
                             False, "ms")]

    def rows_frozen(self):
        return [self.against("frozen", "LoRA step, rank 16, all linear, over frozen forward + input gradient", 1.10,
                             "graft f32", "graft f32, frozen", "step_ms", False, "ms")]

    def rows_threads(self):
        if self.o.threads < 2:
            return [Row("threads", "two threads over one, whole step", "≥ 1.85 ×", reason="one thread was asked for")]
        return [self.against("threads", f"{self.o.threads} threads over one, whole step", 1.85 if self.o.threads == 2 else 0,
                             "graft f32", "graft f32, 1 thread")]

    # Google Benchmark -----------------------------------------------------------------------------------------------
    def kernels(self, pattern, threads):
        """{name: [items a second, …], …}, {name: [part of the peak, …]} of kernels_gemm."""
        result = self.command(
            [self.o.bin / "kernels_gemm", f"--benchmark_filter={pattern}", "--benchmark_format=json",
             f"--benchmark_repetitions={max(3, self.rounds)}", "--benchmark_enable_random_interleaving=true",
             f"--benchmark_min_time={0.03 if self.o.quick else 0.1}"], GRAFT_NUM_THREADS=str(threads))
        rates, peaks = collections.defaultdict(list), collections.defaultdict(list)
        for run in result["benchmarks"]:
            if run["run_type"] == "iteration":
                name = run["run_name"].replace("/real_time", "")
                rates[name].append(run["items_per_second"])
                peaks[name].append(run["peak"])
        if not rates:
            raise Missing("no benchmark has that name")
        return rates, peaks

    @staticmethod
    def name(direction, form, shape, rows, low_rank=0, bf16=0):
        return f"{direction}/form:{form}/in:{shape[0]}/out:{shape[1]}/rows:{rows}/low_rank:{low_rank}/compute:{bf16}"

    def lengths(self, least):
        return [m for m in ([256] if self.o.quick else [64, 256, 512]) if m >= least]

    def rows_gemm(self):
        rows = []
        for bf16, what in ((0, "f32"), (1, "bf16 by AMX tiles" if self.amx else "bf16 dot products")):
            if bf16 and not self.fast_bf16:
                continue
            for threads in sorted({1, min(2, self.o.threads)}):
                bar = 0.45 if bf16 and self.amx else 0.8 if bf16 or threads > 1 else 0.85
                row = Row("gemm", f"GEMM on a packed frozen W, M ≥ 64, {what}, {threads} thread(s), of the peak",
                          f"≥ {100 * bar:.0f} %")
                self.note(row.what)
                try:
                    _, peaks = self.kernels(f"(forward|backward_input)/form:0/.*/rows:(64|256|512)/low_rank:0/compute:{bf16}/",
                                            threads)
                    best = {name: statistics.median(v) for name, v in peaks.items()}
                    low = min(best, key=best.get)
                    middle = statistics.median(best.values())
                    row.measured = f"{100 * middle:.0f} % (median of {len(best)} products; least {100 * best[low]:.0f} %: {low})"
                    row.met, row.figures = middle >= bar, best
                    row.shown = f"{100 * min(best.values()):.0f} … {100 * max(best.values()):.0f} %"
                except Missing as reason:
                    row.reason = str(reason)
                rows.append(row)
        return rows

    def rows_quantised(self):
        rows = []
        for bf16, what in ((0, "f32"), (1, "bf16")):
            if bf16 and not self.fast_bf16:
                continue
            row = Row("quantised", f"products on 4- and 8-bit W, M ≥ 256, over those on packed {what}", "≥ 0.88 ×")
            self.note(row.what)
            try:
                rates, _ = self.kernels(
                    f"(forward|backward_input)/form:(0|2|3|4)/.*/rows:(256|512)/low_rank:0/compute:{bf16}/", self.o.threads)
                best = {}
                for direction in ("forward", "backward_input"):
                    for shape in LORA_SHAPES:
                        for m in (256, 512):
                            base = statistics.median(rates[self.name(direction, 0, shape, m, bf16=bf16)])
                            for form, label in ((2, "Q4_0"), (3, "Q4_1"), (4, "Q8_0")):
                                rate = statistics.median(rates[self.name(direction, form, shape, m, bf16=bf16)])
                                best[f"{direction} {label} {shape[0]}x{shape[1]} M={m}"] = rate / base
                self.geometric(row, best, 0.88)
            except (Missing, KeyError, statistics.StatisticsError) as reason:
                row.reason = str(reason)
            rows.append(row)
        return rows

    @staticmethod
    def geometric(row, ratios, bar, lowest=None):
        middle = math.exp(statistics.fmean(math.log(v) for v in ratios.values()))
        low = min(ratios, key=ratios.get)
        row.measured = f"{middle:.3g} × (geometric mean of {len(ratios)}; least {ratios[low]:.3g}: {low})"
        row.shown = f"{min(ratios.values()):.3g} … {max(ratios.values()):.3g}"
        row.figures = ratios
        row.met = middle >= bar and (lowest is None or ratios[low] >= lowest)

    def rows_fused(self):
        row = Row("fused", "fused LoRA forward, rank 16, over frozen forward, less 1 + r (in + out) / (in · out)", "≤ 0.03")
        self.note(row.what)
        try:
            rates, _ = self.kernels("forward/form:0/.*/rows:(64|256|512)/low_rank:(0|1)/compute:0/", self.o.threads)
            excess = {}
            for shape in LORA_SHAPES:
                for m in (64, 256, 512):
                    plain, fused = (statistics.median(rates[self.name("forward", 0, shape, m, low)]) for low in (0, 1))
                    excess[f"{shape[0]}x{shape[1]} M={m}"] = plain / fused - 1 - RANK * sum(shape) / (shape[0] * shape[1])
            middle, high = statistics.median(excess.values()), max(excess, key=excess.get)
            row.measured = f"{middle:.3f} (median of {len(excess)}; most {excess[high]:.3f}: {high})"
            row.shown = f"{min(excess.values()):.3f} … {max(excess.values()):.3f}"
            row.met, row.figures = middle <= 0.03, excess
        except (Missing, KeyError, statistics.StatisticsError) as reason:
            row.reason = str(reason)
        return [row]

    # Products of other libraries ------------------------------------------------------------------------------------
    def workers(self, kind):
        budget = 0.02 if self.o.quick else 0.06
        programs = {"graft": ["gemm_graft"], "oneDNN": ["gemm_onednn"], "OpenBLAS": ["gemm_openblas"], "Eigen": ["gemm_eigen"]}
        if kind == "bf16":
            programs = {"graft": ["gemm_graft_bf16"], "oneDNN": ["gemm_onednn_bf16"]}
        commands = {name: [str(self.o.peers / file), str(self.o.threads), str(budget)]
                    for name, (file,) in programs.items() if self.o.peers and (self.o.peers / file).exists()}
        missing = {name: self.o.missing.get(name, "the program was not built") for name in programs if name not in commands}
        if self.o.python:
            commands["oneDNN of PyTorch"] = [str(self.o.python), str(HERE / "peers" / "torch_gemm.py"), str(self.o.threads),
                                             str(budget), kind]
        else:
            missing["oneDNN of PyTorch"] = self.o.missing.get("torch", "no Python with torch")
        return commands, missing

    def rows_peers(self):
        rows = []
        lengths = [8, 256] if self.o.quick else [8, 64, 256, 1024]
        shapes = [(model, shape) for model, list_ in SHAPES.items() for shape in (list_[:1] if self.o.quick else list_)]
        for kind in ("f32", "bf16"):
            if kind == "bf16" and not self.fast_bf16:
                continue
            commands, missing = self.workers(kind)
            if "graft" in commands:
                rows += self.measure_peers(kind, commands, missing, shapes, lengths)
            for name, reason in missing.items():
                rows.append(Row("peers", f"{kind} products over {name}'s", "≥ 1 ×", reason=reason))
        return rows

    def measure_peers(self, kind, commands, missing, shapes, lengths):
        processes = {}
        env = {**self.env, "OMP_NUM_THREADS": str(self.o.threads)}
        times = collections.defaultdict(lambda: collections.defaultdict(list))
        errors = collections.defaultdict(float)
        # Both wait policies of OpenMP; for each product the better one counts.
        for name, command in commands.items():
            for policy in ("PASSIVE", "ACTIVE") if name != "graft" else ("",):
                processes[name, policy] = subprocess.Popen(
                    command, env={**env, **({"OMP_WAIT_POLICY": policy} if policy else {})}, stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        # Threads of OpenMP that wait actively spin for minutes after a product: all but the process that is asked stand still.
        for process in processes.values():
            process.send_signal(signal.SIGSTOP)
        try:
            for model, shape in shapes:
                for m in lengths:
                    self.note(f"{kind} {model} {shape[0]}x{shape[1]} M={m}")
                    for turn in range(self.rounds):
                        order = list(processes)
                        for key in order[turn % len(order):] + order[:turn % len(order)]:
                            process = processes[key]
                            process.send_signal(signal.SIGCONT)
                            try:
                                process.stdin.write(f"{m} {shape[0]} {shape[1]}\n")
                                process.stdin.flush()
                                best, _, error = map(float, process.stdout.readline().split())
                            except (ValueError, BrokenPipeError, OSError):
                                missing[key[0]] = last_line(process.stderr.read())
                                del processes[key]
                                continue
                            process.send_signal(signal.SIGSTOP)
                            times[key][model, shape, m].append(best)
                            errors[key[0]] = max(errors[key[0]], error)
        finally:
            for process in processes.values():
                process.send_signal(signal.SIGCONT)
                process.stdin.close()
                process.wait()
        rows = []
        for name in commands:
            if name == "graft" or name in missing:
                continue
            ratios = {}
            for product, own in times["graft", ""].items():
                peer = min(statistics.median(times[key][product]) for key in times if key[0] == name and product in times[key])
                model, shape, m = product
                ratios[f"{model} {shape[0]}x{shape[1]} M={m}"] = peer / statistics.median(own)
            row = Row("peers", f"{kind} products over {name}'s", "≥ 1 ×, none under 0.9 ×")
            self.geometric(row, ratios, 1, 0.9)
            row.figures = {"ratios": ratios, "largest_relative_error": dict(errors)}
            rows.append(row)
        return rows

    # Generation -----------------------------------------------------------------------------------------------------
    def generation_runs(self):
        prompt, tokens, rounds = (128, 16, 1) if self.o.quick else (512, 64, 2)
        runs = {}

        def graft():
            if self.o.model is None:
                raise Missing("no model file")
            return self.command([self.o.bin / "bench_generate", "--model", self.o.model, "--prompt", prompt, "--tokens", tokens,
                                 "--rounds", rounds, "--threads", self.o.threads, "--json"])

        def llama(policy):
            if self.o.llama is None:
                raise Missing(self.o.missing.get("llama", "no Python with llama_cpp"))
            return self.command([self.o.llama, HERE / "peers" / "llama_generate.py", self.o.model, prompt, tokens, rounds,
                                 self.o.threads], OMP_WAIT_POLICY=policy)
        runs["graft generation"] = graft
        for policy in ("PASSIVE", "ACTIVE"):
            runs[f"llama.cpp {policy.lower()}"] = lambda p=policy: llama(p)
        return runs

    def best_llama(self, key):
        names = [name for name in ("llama.cpp passive", "llama.cpp active") if name in self.runs]
        if not names:
            raise Missing("llama-cpp-python: " + self.failed.get("llama.cpp passive", "not run"))
        return max(names, key=lambda name: self.median(name, key))

    def rows_generation(self):
        self.alternate(self.generation_runs())
        rows = [self.against("generation", "generation, one token at a time, over llama.cpp", 0.95, "graft generation",
                             lambda: self.best_llama("tokens_per_second"))]
        row = Row("generation", "the same, of the memory-bandwidth bound", "≥ 80 %")
        try:
            part = [100 * a / b for a, b in zip(self.values("graft generation", "tokens_per_second"),
                                                self.values("graft generation", "bound_tokens_per_second"))]
            middle = statistics.median(part)
            row.measured = (f"{middle:.0f} % ({self.median('graft generation', 'tokens_per_second'):.4g} tokens/s; "
                            f"{self.median('graft generation', 'weight_mib'):.0f} MiB of weights and "
                            f"{self.median('graft generation', 'cache_mib'):.0f} of keys and values at "
                            f"{self.median('graft generation', 'read_gib_per_second'):.0f} GiB/s: "
                            f"{self.median('graft generation', 'bound_tokens_per_second'):.4g})")
            row.met, row.figures, row.shown = middle >= 80, {"percent": part}, f"{min(part):.0f} … {max(part):.0f} %"
        except Missing as reason:
            row.reason = str(reason)
        return rows + [row]

    def rows_prompt(self):
        self.alternate(self.generation_runs())
        return [self.against("prompt", "prompt processing over llama.cpp", 1, "graft generation",
                             lambda: self.best_llama("prompt_tokens_per_second"), "prompt_tokens_per_second")]

    # All ------------------------------------------------------------------------------------------------------------
    def run(self):
        self.alternate(self.step_runs())
        rows = []
        for key in self.o.rows:
            rows += getattr(self, "rows_" + key)()
        return rows

    def surroundings(self):
        def first_line(*command):
            try:
                return subprocess.run(command, capture_output=True, text=True, check=True, env=self.env).stdout.splitlines()[0]
            except (OSError, subprocess.CalledProcessError, IndexError):
                return "not there"
        isas = [name for name, flag in (("AVX2", "avx2"), ("AVX-512", "avx512f"), ("AVX512_BF16", "avx512_bf16"),
                                        ("AMX bf16", "amx_bf16")) if flag in self.flags]
        about = {
            "date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}", "processor": self.cpu, "instruction sets": ", ".join(isas),
            "cores": os.cpu_count(), "threads": self.o.threads, "system": platform.platform(),
            "load before": f"{os.getloadavg()[0]:.2f}", "GRAFT_ISA": self.env.get("GRAFT_ISA", "unset"),
            "OPENBLAS_CORETYPE": "unset", "OMP_WAIT_POLICY": "PASSIVE and ACTIVE, the better one counts",
            "rounds": self.rounds, "steps a run": self.o.steps, "compiler": first_line("c++", "--version"),
            "graft": first_line("git", "-C", str(HERE), "describe", "--always", "--dirty")}
        for package in ("libdnnl-dev", "libopenblas-dev", "libeigen3-dev"):
            about[package] = first_line("dpkg-query", "-W", "-f=${Version}\n", package)
        if self.o.python:
            about["PyTorch + PEFT"] = first_line(
                str(self.o.python), "-c", "import torch, peft, transformers as t; print(torch.__version__, '+ PEFT', "
                "peft.__version__, '+ transformers', t.__version__)")
        if self.o.llama:
            about["llama-cpp-python"] = first_line(str(self.o.llama), "-c", "import llama_cpp; print(llama_cpp.__version__)")
        return about


ROWS = ["step", "bf16", "memory", "checkpoint", "full", "frozen", "gemm", "quantised", "fused", "peers", "threads",
        "generation", "prompt"]


def markdown(about, rows, runs, failed):
    lines = ["# graft beside other libraries", ""]
    lines += [f"- {key}: {value}" for key, value in about.items()]
    lines += ["", "Ratios are medians over rounds in which the programs ran one after the other.", "",
              "| what | bar | measured | spread | |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        lines.append(f"| {row.what} | {row.bar} | {row.measured or 'not measured: ' + row.reason} | {row.shown} | "
                     f"{row.verdict()} |")
    if runs:
        lines += ["", "| run | tokens/s | spread | peak memory, MiB |", "| --- | ---: | ---: | ---: |"]
        for name, results in runs.items():
            rates = [r["tokens_per_second"] for r in results]
            peaks = [r["peak_rss_mib"] for r in results if "peak_rss_mib" in r]
            lines.append(f"| {name} | {statistics.median(rates):.4g} | {100 * spread(rates):.0f} % | "
                         f"{f'{statistics.median(peaks):.0f}' if peaks else ''} |")
    lines += [f"\nNot run: {name}: {reason}" for name, reason in failed.items()]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path, help="where compare.md and compare.json go")
    parser.add_argument("--rows", default=",".join(ROWS), help="rows, separated by commas, of: " + ", ".join(ROWS))
    parser.add_argument("--quick", action="store_true", help="one round of short runs, fewer shapes")
    parser.add_argument("--rounds", type=int, default=0, help="rounds; 3, or 1 with --quick")
    parser.add_argument("--steps", type=int, default=0, help="steps of a run, the first one not counted; 5, or 3 with --quick")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--timeout", type=int, default=900, help="seconds that one run may take")
    parser.add_argument("--bin", type=pathlib.Path, default=HERE.parent / "build" / "release" / "bin")
    parser.add_argument("--model", type=pathlib.Path, default=None)
    parser.add_argument("--text", type=pathlib.Path, default=None, help="a text to train on, for the row bf16")
    parser.add_argument("--peers", type=pathlib.Path, default=None, help="folder with the programs gemm_…")
    parser.add_argument("--python", default=None, help="an interpreter with torch, transformers and peft")
    parser.add_argument("--llama", default=None, help="an interpreter with llama_cpp")
    parser.add_argument("--missing", action="append", default=[], metavar="PEER=REASON", help="why a peer is not there")
    options = parser.parse_args()
    options.rows = [row for row in options.rows.split(",") if row]
    unknown = [row for row in options.rows if row not in ROWS]
    if unknown or options.threads < 1 or options.rounds < 0 or options.steps < 0:
        parser.error(f"rows are {', '.join(ROWS)}" if unknown else "numbers must be positive")
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.steps = options.steps or (3 if options.quick else 5)
    options.missing = dict(text.partition("=")[::2] for text in options.missing)
    if options.model is not None and not options.model.exists():
        options.model = None
    bench = Bench(options)
    about = bench.surroundings()
    rows = bench.run()
    about["load after"] = f"{os.getloadavg()[0]:.2f}"
    options.folder.mkdir(parents=True, exist_ok=True)
    text = markdown(about, rows, bench.runs, bench.failed)
    (options.folder / "compare.md").write_text(text, encoding="utf-8")
    (options.folder / "compare.json").write_text(json.dumps(
        {"about": about, "rows": [row.json() for row in rows], "runs": bench.runs, "failed": bench.failed}, indent=1),
        encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
