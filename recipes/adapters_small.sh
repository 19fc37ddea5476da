#!/usr/bin/env bash
# Ways to adapt one frozen body, at equal epochs: linear probe, parallel adapter, look-aside over time, over frequency,
# over both, and training all of it (Yeo et al., 2025, Table 2, small). ESC-10 in five folds and spoken digits, 3 seeds.
# Needs: ESC10 (a folder in the layout of ESC-50), FSDD (spoken digits in the layout of Speech Commands).
# Run: ESC10=path FSDD=path bash recipes/adapters_small.sh      about an hour and a half on two cores
# Fewer: SEEDS="1" WAYS="probe both" SETS=digits ...   A second call goes on where the first stopped.
# Results: docs/results.md
set -euo pipefail
cd "$(dirname "$0")/.."
export C2F_DATA=${C2F_DATA:-data} C2F_RUNS=${C2F_RUNS:-runs/adapters_small}

[ -f "$C2F_DATA/esc50/c2f.json" ] || c2f prepare esc50 --from "$ESC10"
[ -f "$C2F_DATA/digits/c2f.json" ] || c2f prepare speech_commands --from "$FSDD" --name digits
c2f pretrain specs/adapters_body.yaml --resume

names=()
for seed in ${SEEDS:-1 2 3}; do
  for set in ${SETS:-esc10 digits}; do
    for way in ${WAYS:-probe parallel time frequency both full}; do
      case $way in  # all adapters have 55,296 parameters
        probe)     more=("adapters=[]" model.freeze=body train.optimizer.lr=5e-3) ;;
        parallel)  more=("adapters=[{kind: parallel, at: both, rank: 36}]") ;;
        time)      more=("adapters=[{kind: loaa, at: both, axis: time, rank: 12}]") ;;
        frequency) more=("adapters=[{kind: loaa, at: both, axis: frequency, rank: 12}]") ;;
        both)      more=() ;;
        full)      more=("adapters=[]" model.freeze=none train.optimizer.lr=1e-3) ;;
      esac
      c2f finetune "specs/adapters_$set.yaml" seed="$seed" ${more[@]+"${more[@]}"} --run "$set-$way-$seed" --resume
      names+=("$set-$way-$seed")
    done
  done
done
c2f evaluate "${names[@]}" --metric accuracy
