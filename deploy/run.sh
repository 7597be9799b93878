#!/usr/bin/env bash
# What each node of a job runs: deploy/run.sh [arm]
# Node 0 lets DVC run the GPU stages of the arm, and alone writes what they make. Every other node takes part in the
# training, with the inputs that it finds in the checkout, or fetches from the DVC remote where nodes share none.
# Nodes find each other by torchrun's variables, PET_NNODES, PET_NODE_RANK, PET_MASTER_ADDR and PET_MASTER_PORT, or by
# SkyPilot's; without either there is one node.
set -euo pipefail
cd "$(dirname "$0")/.."
arm=${1:-curated}

if [ "${PET_NODE_RANK:-${SKYPILOT_NODE_RANK:-0}}" != 0 ]; then
  [ -n "${SHARED_CHECKOUT:-}" ] || dvc pull base "render@$arm"
  exec python -m stages.sft "$arm"
fi
dvc repro --pull --allow-missing "sft@$arm" "generate@$arm"
if [ -n "$(dvc config core.remote || true)" ]; then
  dvc push --run-cache
fi
