#!/usr/bin/env python3
"""Every public header compiles as the only include of a file, without a warning, under each compiler, and all of them
together, as users of the headers alone and of the compiled kernels.

A header that includes one of COMMON, itself or through others, is read after the first such one precompiled (the one
with most in it stands first): it is the same text, read earlier. Files in impl/ are not public.

Usage: check_headers.py COMPILER...
"""
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
FLAGS = ["-std=c++20", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror", f"-I{ROOT}/include"]
LIBRARY = ["-DGRAFT_KERNELS_COMPILED", "-DGRAFT_FILES_COMPILED"]
COMMON = ["graft/models/weights.hpp", "graft/compose/adapter_set.hpp", "graft/adapters/method.hpp",
          "graft/adapters/adapter.hpp", "graft/autograd/ops/common.hpp", "graft/text/normalizer.hpp",
          "graft/text/unicode.hpp", "graft/io/json.hpp", "graft/tensor/tensor.hpp"]


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    return None if done.returncode == 0 else "\n".join(done.stderr.splitlines()[:30]) or "failed"


def includes():
    """The includes of every header of ours."""
    paths = sorted(ROOT.glob("include/graft/**/*.hpp"))
    return {str(path.relative_to(ROOT / "include")):
            re.findall(r'^#include "(graft/[^"]+)"', path.read_text(encoding="utf-8"), re.M) for path in paths}


def main():
    compilers = sys.argv[1:]
    if not compilers:
        sys.exit(__doc__)
    found = subprocess.run(["pkg-config", "--cflags-only-I", "eigen3"], capture_output=True, text=True)
    FLAGS.extend(word.replace("-I", "-isystem") for word in found.stdout.split())
    graph = includes()

    def reaches(header):
        seen, waiting = set(), [header]
        while waiting:
            for other in graph.get(waiting.pop(), []):
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)
        return seen

    public = [h for h in graph if not re.search("/impl/|/distributed/|/cuda/", h)]
    with tempfile.TemporaryDirectory() as folder:
        def source(name, headers):
            path = pathlib.Path(folder, name)
            path.write_text("".join(f'#include "{h}"\n' for h in headers), encoding="utf-8")
            return str(path)

        if run(compilers[0], *FLAGS, "-fsyntax-only",
               "-include", "xtensor/xtensor.hpp", source("empty.cpp", [])) is not None:
            print("xtensor is not installed: its header is left out")
            public = [h for h in public if "interop/xtensor" not in h]

        failed = False
        precompiled = {}
        for compiler in compilers:
            for number, header in enumerate(COMMON):
                path = source(f"common{number}.{os.path.basename(compiler)}.hpp", [header])
                error = run(compiler, *FLAGS, *LIBRARY, "-x", "c++-header", path, "-o", path + ".gch")
                if error:
                    failed = True
                    print(f"== {header}, precompiled ({compiler})\n{error}")
                else:
                    precompiled[compiler, header] = ["-include", path]

        def alone(compiler, header):
            below = reaches(header) - {header}
            before = next((precompiled[compiler, common] for common in COMMON
                           if (compiler, common) in precompiled and common in below), [])
            # Twice: the include guard is checked too.
            path = source(f"{header.replace('/', '.')}.{os.path.basename(compiler)}.cpp", [header, header])
            return run(compiler, *FLAGS, *LIBRARY, "-fsyntax-only", *before, path)

        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for compiler in compilers:
                bad = 0
                for header, error in zip(public, pool.map(lambda h: alone(compiler, h), public)):
                    if error:
                        bad += 1
                        print(f"== {header} ({compiler})\n{error}")
                failed |= bad > 0
                print(f"{compiler}: {len(public) - bad} of {len(public)} headers compile alone", flush=True)

            together = source("all.cpp", public)
            runs = [(compiler, mode) for compiler in compilers for mode in ([], LIBRARY)]
            errors = pool.map(lambda r: run(r[0], *FLAGS, *r[1], "-fsyntax-only", together), runs)
            for (compiler, mode), error in zip(runs, errors):
                name = " ".join([compiler, *mode])
                failed |= bool(error)
                print(f"== all headers ({name})\n{error}" if error else f"{name}: all headers compile together")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
