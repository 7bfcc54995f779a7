#!/usr/bin/env bash
# Every host of a Cloud TPU slice runs the same command; JAX finds the others by itself.
#   tools/launch/cloud_tpu.sh TPU_NAME ZONE --config=configs/csa_moe.py:busi --workdir=/mnt/shared/runs/csa_moe
# The clone and the workdir must be on storage that all hosts see.
set -euo pipefail
name=$1 zone=$2
shift 2
gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=all \
  --command "cd jaxmed && pip install -q -e '.[tpu]' && python -m jaxmed.main --config.distributed=True $*"
