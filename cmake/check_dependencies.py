#!/usr/bin/env python3
"""Checks who includes whom under include/graft against the table below.

A folder may include itself, the folders named for it, and the files at the top (config, version). Files in
impl/ are the bodies of the header of the same name, which they may include back. The core headers must stay
light: no <iostream>, <regex>, intrinsics or JSON there. All of it is in the inline namespace of version.hpp. The umbrella graft.hpp includes every header of
these folders that needs no optional package; `--write` brings it up to date. Prints each offence and exits 1 if
there is one.
"""
import pathlib
import re
import sys

TABLE = """
base        :
kernels     : base
tensor      : base kernels
autograd    : base kernels tensor
quant       : base kernels tensor
layers      : base kernels tensor autograd quant
adapters    : base kernels tensor autograd layers/concepts layers/forward_context layers/kv_cache layers/language_head layers/linear layers/dense_linear layers/transposed_linear layers/sites quant/half quant/spectral quant/uniform text/regex
schedule    : base tensor autograd adapters/concepts
compose     : base tensor autograd quant layers adapters io text/regex
optim       : base kernels tensor autograd
io          : base tensor quant
models      : base kernels tensor autograd quant layers adapters schedule compose optim io
text        : base io
train       : base tensor autograd layers adapters models optim schedule compose io text
interop     : base kernels tensor autograd quant layers adapters optim
distributed : base kernels tensor autograd quant layers adapters schedule compose optim io models text train
cuda        : base kernels tensor autograd quant layers adapters
"""
TOP = {"config.hpp", "version.hpp", "fwd.hpp"}
CORE = {"base", "kernels", "tensor", "autograd", "quant", "layers", "adapters", "schedule", "compose", "optim"}
# Eigen only where the decompositions are, and where users hand in their own matrices.
EIGEN = {"tensor", "interop", "layers"}
OPTIONAL = re.compile(r"^<(nlohmann/|pcre2|unicode/|xtensor|xtl|mpi|cuda)")
HEAVY = re.compile(r"^<(iostream|regex|\w*intrin\.h|nlohmann/.*|CLI/.*)>$")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"][^>"]+[>"])', re.MULTILINE)

OPENED = re.compile(r"^namespace graft\b.*$", re.MULTILINE)


def read_table():
    rows = {}
    for line in TABLE.strip().splitlines():
        folder, allowed = line.split(":")
        rows[folder.strip()] = allowed.split()
    return rows


def allowed(target, rules):
    """True if the path target (relative to include/graft) is in one of the allowed places."""
    for rule in rules:
        if target.startswith(rule + "/") or target == rule + ".hpp":
            return True
    return False


def umbrella(root):
    """The text that graft.hpp should have."""
    third, inner = {}, {}
    for header in root.rglob("*.hpp"):
        path = header.relative_to(root).as_posix()
        names = [match.group(1) for match in INCLUDE.finditer(header.read_text(encoding="utf-8"))]
        third[path] = any(OPTIONAL.match(name) for name in names)
        inner[path] = [name[len('"graft/'):-1] for name in names if name.startswith('"graft/')]

    def optional(path, seen):
        if path in seen:
            return False
        seen.add(path)
        return third.get(path, False) or any(optional(following, seen) for following in inner.get(path, []))

    chosen = sorted(path for path in inner
                    if path.split("/")[0] in CORE and "/impl/" not in path and not optional(path, set()))
    lines = [f'#include "graft/{path}"' for path in sorted(chosen + ["config.hpp", "fwd.hpp", "version.hpp"])]
    return ("#pragma once\n\n"
            "/// Everything that needs no optional package. Files, models, tokenizers and training have\n"
            "/// headers of their own, in graft/io, graft/models, graft/text and graft/train.\n\n" + "\n".join(lines) + "\n")


def check(root):
    rows = read_table()
    offences = []
    version = re.findall(r"VERSION_(?:MAJOR|MINOR) (\d+)", (root / "version.hpp").read_text(encoding="utf-8"))
    inline = f"namespace graft::inline v{version[0]}_{version[1]}"
    edges = {}
    for header in sorted(root.rglob("*.hpp")):
        path = header.relative_to(root).as_posix()
        folder = path.split("/")[0] if "/" in path else ""
        text = header.read_text(encoding="utf-8")
        if folder and folder not in rows:
            offences.append(f"{path}: folder {folder} is not in the table")
            continue
        edges[path] = []
        for match in OPENED.finditer(text):
            if not re.match(rf"{inline}(::| {{)", match.group(0)):
                offences.append(f"{path}:{text.count(chr(10), 0, match.start()) + 1}: expected {inline}")
        for match in INCLUDE.finditer(text):
            name = match.group(1)
            line = text.count("\n", 0, match.start(1)) + 1
            where = f"{path}:{line}"
            bare = name[1:-1]
            if not bare.startswith("graft/"):
                if name[0] == '"':
                    offences.append(f"{where}: include {bare} by its full path graft/...")
                if folder in CORE and HEAVY.match(name):
                    offences.append(f"{where}: {name} is too heavy for {folder}")
                if folder and re.match(r"^<(unsupported/)?Eigen/", name) and folder not in EIGEN:
                    offences.append(f"{where}: {name} belongs into tensor/, not {folder}")
                if name.startswith("<xtensor") and folder != "interop":
                    offences.append(f"{where}: {name} belongs into interop/")
                continue
            target = bare[len("graft/"):]
            if target != path.replace("/impl/", "/").replace("_impl.hpp", ".hpp"):
                edges[path].append(target)
            if not (root / target).exists() and (root / target).suffix == ".hpp":
                offences.append(f"{where}: {bare} does not exist")
                continue
            if target in TOP or target == path.replace("/impl/", "/").replace("_impl.hpp", ".hpp"):
                continue
            target_folder = target.split("/")[0]
            if not folder:
                continue
            if target == "graft.hpp":
                offences.append(f"{where}: only users include the umbrella")
            elif target_folder == folder:
                parts, target_parts = path.split("/"), target.split("/")
                if (folder == "adapters" and len(parts) > 2 and len(target_parts) > 2
                        and parts[1] != target_parts[1]):
                    offences.append(f"{where}: family {parts[1]} includes family {target_parts[1]}")
            elif not allowed(target, rows[folder]):
                offences.append(f"{where}: {folder} may not include {target}; "
                                f"allowed: {' '.join(rows[folder]) or 'nothing'}")
    offences += cycles(edges)
    main_header = root / "graft.hpp"
    if not main_header.exists() or main_header.read_text(encoding="utf-8") != umbrella(root):
        offences.append("graft.hpp is out of date: cmake/check_dependencies.py --write")
    return offences, len(edges)


def cycles(edges):
    """Include cycles between files, each found once."""
    found, state, stack = [], {}, []

    def visit(node):
        state[node] = 1
        stack.append(node)
        for following in edges.get(node, []):
            if state.get(following) == 1:
                ring = stack[stack.index(following):] + [following]
                found.append("cycle: " + " -> ".join(ring))
            elif following not in state:
                visit(following)
        stack.pop()
        state[node] = 2

    for node in sorted(edges):
        if node not in state:
            visit(node)
    return found


def main():
    root = pathlib.Path(__file__).resolve().parent.parent / "include" / "graft"
    if sys.argv[1:] == ["--write"]:
        (root / "graft.hpp").write_text(umbrella(root), encoding="utf-8")
    offences, count = check(root)
    for offence in offences:
        print(offence)
    print(f"{count} headers, {len(offences)} offences against the dependency order")
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main())
