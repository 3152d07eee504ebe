#!/bin/sh
# Everything that wants a GPU, in eight minutes at most: a step of each system in fp32 and bf16, layouts on NCCL where there
# are two devices, every golden case by the GPU's kernels. Writes benchmarks/results/gpu.json and .md; see gpu.py.
#
#   benchmarks/gpu.sh                                    # code 2 and a line where there is no GPU
#   benchmarks/gpu.sh --device cpu --tiny --out FOLDER   # tries the script itself
set -e
cd "$(dirname "$0")/.."
python=.venv/bin/python
[ -x "$python" ] || python=python3
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" benchmarks/gpu.py "$@"
