#!/usr/bin/env python3
"""The README's tables of methods, as `graft methods` and `graft methods --peft` tell them, and of their cost.

Usage: cmake/readme_tables.py --graft build/release/bin/graft [--overhead FOLDER] [--write]

Without --write it compares, and exits 1 if README.md is out of date. The tables stand between
`<!-- table: NAME -->` and `<!-- end -->`. FOLDER is what bench/report.sh left; without it the table of costs is
left as it is.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys


def listed(program, *options):
    return json.loads(subprocess.run([program, "methods", *options, "--json"], check=True, text=True,
                                     stdout=subprocess.PIPE).stdout)


def table(header, rows, align=None):
    def line(cells):
        return "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |"
    return "\n".join([line(header), line(align or ["---"] * len(header)), *map(line, rows)])


def folded(title, body):
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def methods(program):
    entries = listed(program)
    families = {}
    for entry in entries:
        families.setdefault(entry["family"], []).append(entry)
    overview = table(["family", "methods"],
                     [[f.replace("_", " "), ", ".join(e["name"] for e in list_)]
                      for f, list_ in families.items()])
    def paper(text):
        arxiv = re.fullmatch(r"arXiv:(\S+)", text)
        return f"[{arxiv[1]}](https://arxiv.org/abs/{arxiv[1]})" if arxiv else text
    def merges(e):
        unless = e["merge_unless"]
        return "no" if not e["mergeable"] else f"unless {unless}" if unless else "yes"
    rows = [[f"`{e['peft_type']}`", e["sites"], e["parameters"], merges(e),
             "yes" if e["peft"] else "no", paper(e["paper"])] for e in entries]
    every = table(["peft_type", "sites", "trained a site", "merges", "PEFT has it", "paper"], rows)
    return overview + "\n\n" + folded(f"All {len(entries)}: sites, trained parameters, papers", every)


def peft(program):
    report = listed(program, "--peft")
    tuners = report["tuners"]
    columns = list(next(t["abilities"] for t in tuners if t["present"]))
    rows = [[f"`{t['peft_type']}`", *("yes" if t.get("abilities", {}).get(c) else "–" for c in columns)]
            if t["present"] else [f"`{t['peft_type']}`", "missing", *[""] * (len(columns) - 1)]
            for t in tuners]
    title = (f"{report['present']} of the {len(tuners)} tuners of PEFT {report['peft']}, and what each can do here "
             "(found out by trying)")
    return folded(title, table(["tuner", *columns], rows))


def overhead(folder):
    entries = json.loads((folder / "overhead.json").read_text())
    command, machine, *notes = (folder / "command.txt").read_text().splitlines()  # notes: how it was run otherwise
    measured = sorted((e for e in entries if "step" in e), key=lambda e: e["step"])
    within = sum(e["step"] <= 1.25 for e in measured)

    def rows(list_):
        return [[f"`{e['method']}`", e["family"].replace("_", " "), f"{e['forward']:.2f}", f"{e['step']:.2f}",
                 f"{e['operations']:.2f}", f"{e['extra_mib']:.1f}", e.get("remark", "")] for e in list_]
    header = ["method", "family", "forward", "step", "operations", "extra MiB", "remark"]
    align = ["---", "---", "---:", "---:", "---:", "---:", "---"]
    layer = f"layer {measured[0]['layer']}, {measured[0]['rows']} rows"
    intro = (f"`{command}` on {machine}: times over those of the frozen layer alone ({layer}). *operations*: those of "
             "the products in a step over the frozen step's, the bound by arithmetic; *extra MiB*: parameters, gradients "
             f"and what a step keeps. {within} of {len(measured)} methods take at most 1.25 of the frozen step. "
             "The others and their bounds come first.")
    intro = "\n\n".join([intro, *notes])
    above = table(header, rows(e for e in reversed(measured) if e["step"] > 1.25), align)
    rest = table(header, rows(e for e in measured if e["step"] <= 1.25), align)
    others = ", ".join(f"`{e['method']}`" for e in entries if "step" not in e)
    return "\n\n".join([intro, folded(f"{len(measured) - within} methods above 1.25", above),
                        folded(f"{within} methods within 1.25", rest),
                        f"Without a figure: {others} (most need a whole model; `bench_overhead` says why)."])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graft", required=True, help="the program")
    parser.add_argument("--overhead", type=pathlib.Path, help="folder of bench/report.sh")
    parser.add_argument("--write", action="store_true", help="bring README.md up to date")
    options = parser.parse_args()
    path = pathlib.Path(__file__).resolve().parent.parent / "README.md"
    old = new = path.read_text()
    tables = [("methods", lambda: methods(options.graft)), ("peft", lambda: peft(options.graft))]
    if options.overhead:
        tables.append(("overhead", lambda: overhead(options.overhead)))
    for name, make in tables:
        begin, end = f"<!-- table: {name} -->\n", "<!-- end -->"
        before, found, rest = new.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            sys.exit(f"README.md: no '{begin.strip()}' with '{end}'")
        new = before + begin + make() + "\n" + end + after
    if new == old:
        return
    if options.write:
        path.write_text(new)
    else:
        sys.exit("README.md: its tables are out of date; mend them with cmake/readme_tables.py --graft "
                 f"{options.graft} --write")


if __name__ == "__main__":
    main()
