#!/usr/bin/env bash
# Every backbone at its smallest size on ESC-10, coarse to fine, some folds each; one table.
# Needs: ESC10 (a folder in the layout of ESC-50).
# Run: ESC10=path bash recipes/backbones_small.sh            about an hour on two cores
# Fewer: FOLDS="1, 2" BACKBONES="beats_micro htsat_micro" ...   A second call goes on where the first stopped.
# Results: docs/results.md
set -euo pipefail
cd "$(dirname "$0")/.."
export C2F_DATA=${C2F_DATA:-data} C2F_RUNS=${C2F_RUNS:-runs/backbones_small}

[ -f "$C2F_DATA/esc50/c2f.json" ] || c2f prepare esc50 --from "$ESC10"
names=()
for backbone in ${BACKBONES:-ast_micro ssast_patch_micro ssast_frame_micro htsat_micro cnn14_micro beats_micro atst_micro \
  fpasst_micro m2d_micro asit_micro eat_tiny}; do
  more=()
  case $backbone in
    htsat_*) more=(frontend.sample_rate=16000 "model.head={kind: token_semantic}") ;;  # of 32 kHz; the set is of 16
    cnn14_*) more=(frontend.sample_rate=16000) ;;
  esac
  c2f finetune specs/backbones_esc10.yaml model.backbone="$backbone" data.fold=null "data.folds=[${FOLDS:-1, 2, 3}]" \
    ${more[@]+"${more[@]}"} --run "$backbone" --resume
  names+=("$backbone")
done
c2f evaluate "${names[@]}" --metric accuracy
