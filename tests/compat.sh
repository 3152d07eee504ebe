#!/usr/bin/env bash
# The tests under the lowest and the newest versions that pyproject.toml allows, and every Python that is at hand.
#
#   tests/compat.sh                               # the suite, all environments: hours
#   tests/compat.sh tests/core tests/nn           # a part of it
#   tests/compat.sh --only lowest tests/core      # one environment: lowest, newest-3.11, newest-3.12, newest-3.13
#   tests/compat.sh --torch 2.10.0 tests/core     # the newest of all else, with this torch
#
# Each environment lies in a temporary folder and is removed. The table in docs/developing.md gets a row each; rows of other
# environments stay. torch of the usual registry brings its CUDA libraries, about 6 GB on disk: set PIP_EXTRA_INDEX_URL to an
# index of CPU builds to avoid them. TMPDIR says where, JOBS how many processes test.
set -euo pipefail
cd "$(dirname "$0")/.."
only="" torch=""
while [ $# -gt 0 ]; do
  case $1 in
    --only) only=$2; shift 2 ;;
    --torch) torch=$2; shift 2 ;;
    -*) echo "unknown option $1; see the head of $0" >&2; exit 2 ;;
    *) break ;;
  esac
done
tests=("${@:-tests}")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH PYTHONDONTWRITEBYTECODE PIP_CONSTRAINT

# An interpreter of this version, on the path or among pyenv's; empty if there is none.
interpreter() {
  local one
  for one in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
    if "$one" -c "import sys; assert sys.version_info[:2] == tuple(map(int, '$1'.split('.')))" 2>/dev/null; then
      echo "$one"
      return
    fi
  done
}

# The lowest version of every package that a user may have, as constraints.
lowest() {
  "$1" - <<'PY'
import re, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = {k: v for k, v in project["optional-dependencies"].items() if k != "dev"}
for line in [*project["dependencies"], *(one for each in extras.values() for one in each)]:
    if bound := re.fullmatch(r"([\w.-]+)>=([\d.]+)", line):
        print(f"{bound[1]}=={bound[2]}")
PY
}

# Make an environment, run the tests, write the row: name, interpreter, what is chosen, constraints.
try() {
  local name=$1 python=$2 chosen=$3 constraints=$4 venv="$folder/$1" log="$folder/$1.log" said
  "$python" -m venv "$venv"
  # tools of `dev` alone are not a user's and may need newer packages: tests that compare with them are skipped;
  # starlette's client for tests takes one of the two kinds of httpx, by its version
  if "$venv/bin/python" -m pip install -q --prefer-binary -c "$constraints" \
    -e ".[$extras]" pytest pytest-xdist hypothesis beartype httpx httpx2 >"$log" 2>&1; then
    OMP_NUM_THREADS=1 "$venv/bin/python" -m pytest -m "not slow" -p no:cacheprovider \
      -n "${JOBS:-2}" --dist worksteal "${tests[@]}" >"$log" 2>&1 || true
    said=$(grep -E '[0-9]+ (passed|failed|error)' "$log" | tail -n 1 | tr -d '=' | sed 's/ in .*//; s/^ *//' || true)
    grep -E '^(FAILED|ERROR) ' "$log" || true
  else
    said="cannot be installed: $(grep -m 1 -i error "$log" | tr '|' ' ' | cut -c1-120 || true)"
  fi
  [ -n "$said" ] || { said="ended early"; tail -n 20 "$log" >&2; }
  versions=$("$venv/bin/python" -c 'import platform; from importlib.metadata import version
try: torch = version("torch")
except Exception: torch = "–"
print(platform.python_version(), "|", torch)')
  row "$name" "| $versions | $chosen | ${tests[*]} | $said | $(date -u +%F) |"
  rm -rf "$venv"
}

# Put a row in place of that of the same environment and tests; print it.
row() {
  echo "$2"
  python3 - "$1" "$2" <<'PY'
import pathlib, sys
name, row = sys.argv[1:]
file = pathlib.Path("docs/developing.md")
text = file.read_text()
begin, end = "<!-- compat: written by tests/compat.sh -->\n", "<!-- end -->"
before, _, rest = text.partition(begin)
table, _, after = rest.partition(end)
assert rest and after, f"{file} lacks the marks of the table"
head, rows = table.splitlines()[:2], table.splitlines()[2:]
def key(line):
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    return cells[0].rsplit(".", 1)[0], cells[2], cells[3]
rows = [*(line for line in rows if key(line) != key(row)), row]
file.write_text(before + begin + "\n".join([*head, *sorted(rows)]) + "\n" + end + after)
PY
}

: >"$folder/none.txt"
extras=$(sed -n 's/^ *"tenfold\[\(.*export.*\)\]",$/\1/p' pyproject.toml)  # what `dev` is made of
found=0
for version in 3.11 3.12 3.13; do
  python=$(interpreter "$version")
  [ -n "$python" ] || { echo "Python $version is not at hand: not tried" >&2; continue; }
  if [ -n "$torch" ]; then
    [ "$version" = 3.11 ] || continue
    echo "torch==$torch" >"$folder/torch.txt"
    try torch "$python" "torch $torch, else newest" "$folder/torch.txt"
    found=1
    continue
  fi
  if [ "$version" = 3.11 ] && [[ -z $only || $only == lowest ]]; then
    lowest "$python" >"$folder/lowest.txt"
    try lowest "$python" lowest "$folder/lowest.txt"
    found=1
  fi
  if [[ -z $only || $only == "newest-$version" ]]; then
    try "newest-$version" "$python" newest "$folder/none.txt"
    found=1
  fi
done
[ "$found" = 1 ] || { echo "no environment was tried" >&2; exit 2; }
