#!/bin/bash
# Label images on a Ray cluster: 16 actors, each with one GPU.
#   RAY_ADDRESS=head:6379 examples/cluster/ray.sh /data/photos farm.toml /data/labels [OPTION...]
# Without RAY_ADDRESS, Ray starts on this machine. ACTORS sets the number of actors, GPUS the GPUs per actor.
set -eu
images=$1 vocabulary=$2 output=$3
shift 3
tipsseg label "$images" --vocab "$vocabulary" -o "$output" \
  --ray "${ACTORS:-16}x${GPUS:-1}" "$@"
