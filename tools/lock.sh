#!/usr/bin/env bash
# Pins tools/requirements: writes NAME.txt for each NAME.in, with all indirect dependencies, for every
# Python from 3.10 on. Run it by hand, in the environment, when a NAME.in changes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/requirements"

compile() {
    uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate "$@"
}

# All together first, so that packages in two files get one version.
all=$(mktemp)
trap 'rm -f "$all"' EXIT
compile ./*.in > "$all"
for name in core train view ros build dev; do
    compile --constraint "$all" "$name.in" > "$name.txt"
done
compile --override without_torch.txt --constraint "$all" light.in silero_vad.in > light.txt
