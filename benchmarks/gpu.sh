#!/bin/sh
# Measures kwsd on a GPU: makes the GPU's environment from its lock file, then runs benchmarks.gpu for at most 7 minutes.
#
#     benchmarks/gpu.sh              # needs an NVIDIA driver; writes benchmarks/gpu.md
#     benchmarks/gpu.sh cpu          # shows without a GPU that the script works; prints only
#
# KWSD_PYTHON names the Python of an environment that exists already.
set -eu
cd "$(dirname "$0")/.."
device=${1:-cuda}
if [ -n "${KWSD_PYTHON:-}" ]; then
    python=$KWSD_PYTHON
elif [ "$device" = cuda ]; then
    make gpu
    python=.venv/bin/python
else
    make .venv/ready
    python=.venv/bin/python
fi
if [ "$device" = cuda ]; then
    set -- -o benchmarks/gpu.md
else
    set --
fi
exec timeout 420 "$python" -m benchmarks.gpu --device "$device" "$@"
