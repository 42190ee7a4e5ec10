#!/bin/sh
# The README's tables of methods are what the program tells.
set -eu
. "${GRAFT_SOURCE_DIR:?}/tests/cli/common.sh"
python3 "$GRAFT_SOURCE_DIR/cmake/readme_tables.py" --graft "$graft" || fail "see above"
