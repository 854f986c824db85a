#!/usr/bin/env bash
# Pins tools/requirements anew: each NAME.in becomes NAME.txt, with all that it pulls in,
# for every Python from 3.10 on. Run by hand, in the environment, when a NAME.in changes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/requirements"

compile() {
    uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate "$@"
}

# Together first, so that what two files share gets one version.
all=$(mktemp)
trap 'rm -f "$all"' EXIT
compile ./*.in > "$all"
for name in core train ros dev; do
    compile --constraint "$all" "$name.in" > "$name.txt"
done
