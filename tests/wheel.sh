#!/usr/bin/env bash
# Wheel and sdist are built, and the wheel works where nothing else of the project is.
# Packages come from the environment that `make` has made; what is tested is what the wheel holds.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD
unset PYTHONPATH
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
.venv/bin/python -m pip wheel -q --no-deps --no-build-isolation -w "$folder/dist" .
.venv/bin/python -m hatchling build -t sdist -d "$folder/dist" >/dev/null 2>&1
python3 -m venv "$folder/venv"
# dependencies of the environment, without the checkout, which is installed there in place
packages=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
site=$("$folder/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
for entry in "$packages"/*; do
  case $(basename "$entry") in *tenfold*) ;; *) ln -s "$entry" "$site/" 2>/dev/null || true ;; esac
done
"$folder/venv/bin/python" -m pip install -q --no-deps --no-index "$folder"/dist/*.whl
# `pip install tenfold[...]`: every extra that is written anywhere is one of the wheel's, brings what the code asks of it,
# and its packages, by their versions, are those that the environment was made of
extras=$("$folder/venv/bin/python" - "$here" <<'PY'
import re
import sys
from importlib.metadata import metadata
from importlib.util import find_spec
from pathlib import Path

from tenfold.extras import EXTRAS

here, provided = Path(sys.argv[1]), set(metadata("tenfold").get_all("Provides-Extra"))
files = [here / "Containerfile", here / "Makefile", *here.glob("*.md"), *here.glob("docs/**/*.md")]
written = re.findall(r"(?:tenfold|\.|/src)\[([a-z]+(?:,[a-z]+)*)\]", "\n".join(f.read_text() for f in files))
named = {extra for each in written for extra in each.split(",")} | set(EXTRAS)
assert named <= provided, f"the wheel has no extra {named - provided}"
absent = [one for modules in EXTRAS.values() for one in modules if not find_spec(one)]
assert not absent, f"no extra brings {absent}"
print(",".join(sorted(provided)))
PY
)
"$folder/venv/bin/python" -m pip install -q --no-index --dry-run "$(echo "$folder"/dist/*.whl)[$extras]"
cd "$folder"
"$folder/venv/bin/python" - "$here" <<'PY'
import sys
from pathlib import Path

import tenfold

assert not Path(tenfold.__file__).is_relative_to(sys.argv[1]), tenfold.__file__
PY
"$folder/venv/bin/tenfold" list >/dev/null
unset TENFOLD_DATA
"$folder/venv/bin/tenfold" train usage demo --steps 2 --segment.steps 2 --data.generated 8 4 \
  --run.folder run >log 2>&1 || { cat log >&2; exit 1; }
test -f run/report.html
# every file that is no Python is in the wheel and in the sdist
(cd "$here/src" && git ls-files tenfold | grep -v '\.py$' | sort) >files
"$folder/venv/bin/python" -m zipfile -l "$folder"/dist/*.whl | awk '{print $1}' | sort >wheel
missing=$(comm -23 files wheel)
test -z "$missing" || { echo "not in the wheel: $missing" >&2; exit 1; }
tar tf "$folder"/dist/*.tar.gz | grep '/src/tenfold/__init__.py' >/dev/null
echo "wheel and sdist: $(ls "$folder/dist" | tr '\n' ' ')"
