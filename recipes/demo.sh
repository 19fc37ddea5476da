#!/usr/bin/env bash
# The tool at work on its built-in audio: EAT pre-training, fine-tuning from it, the same network from scratch.
# Needs: nothing.   Run: make demo   (or: bash recipes/demo.sh)
# Writes to demo/ only; a second call goes on where the first stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
export C2F_DATA=${C2F_DATA:-demo/data} C2F_RUNS=${C2F_RUNS:-demo/runs}

c2f pretrain specs/eat.yaml --resume
c2f finetune specs/eat_finetune.yaml --resume
c2f finetune specs/eat_scratch.yaml --resume
c2f evaluate eat eat-finetune eat-scratch
