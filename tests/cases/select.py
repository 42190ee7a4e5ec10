#!/usr/bin/env python3
"""Copies the cases that selection.txt names from a folder of conformance cases into this one.

    python3 tests/cases/select.py ../shared/conformance

Cases that are here but no longer named are removed (folders that selection.txt never speaks of stay as they
are). JSON files lose their indentation, results in double precision stay behind. The whole folder must stay
below 4 MB; the script says how large it is and fails above that.
"""
import json
import pathlib
import shutil
import sys

LIMIT = 4_000_000
HERE = pathlib.Path(__file__).resolve().parent


def named():
    """Names in selection.txt, in order."""
    for line in (HERE / "selection.txt").read_text(encoding="utf-8").splitlines():
        line = line.split("#")[0].strip()
        if line:
            yield line


def copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".json":
        content = json.loads(source.read_text(encoding="utf-8"))
        target.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    else:
        shutil.copyfile(source, target)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    source = pathlib.Path(sys.argv[1]).resolve()
    names = list(named())
    missing = [name for name in names if not (source / name).is_dir()]
    if missing:
        sys.exit(f"not in {source}: {', '.join(missing)}")
    for top in sorted({name.split("/")[0] for name in names}):
        if top in ("layer", "init", "multi", "model", "methods", "adalora"):
            shutil.rmtree(HERE / top, ignore_errors=True)
    for name in names:
        for path in sorted((source / name).rglob("*")):
            if path.is_file() and path.name != "case_f64.safetensors":
                copy(path, HERE / path.relative_to(source))
    size = sum(path.stat().st_size for path in HERE.rglob("*") if path.is_file())
    print(f"{len(names)} cases copied, {size / 1e6:.2f} MB in {HERE.name}")
    if size > LIMIT:
        sys.exit(f"more than {LIMIT / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
