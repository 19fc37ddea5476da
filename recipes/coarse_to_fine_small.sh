#!/usr/bin/env bash
# Coarse to fine on real audio, at sizes that a CPU trains: baseline, the control without compression, three methods at
# 4 to 1, 2 to 1 and 4 to 2 to 1, several seeds each; one table for each data set.
# Needs: ESC10 (a folder in the layout of ESC-50) and FSDD (spoken digits in the layout of Speech Commands).
# Run: ESC10=path FSDD=path bash recipes/coarse_to_fine_small.sh            about two hours on two cores
# Fewer: SETS=esc10 SEEDS="1 2 3" ...   A second call goes on where the first stopped. Results: docs/results.md
set -euo pipefail
cd "$(dirname "$0")/.."
export C2F_DATA=${C2F_DATA:-data} C2F_RUNS=${C2F_RUNS:-runs/coarse_to_fine_small}

train() { # train SPEC NAME [KEY=VALUE ...]: one run for each seed; of ESC-10 seed k holds out fold k
  local spec=$1 name=$2 seed
  shift 2
  for seed in $seeds; do
    local held=()
    [ "$set" = esc10 ] && held=(data.fold="$seed")
    c2f finetune "specs/$spec.yaml" seed="$seed" ${held[@]+"${held[@]}"} "$@" --run "$name/seed-$seed" --resume
  done
}

for set in ${SETS:-esc10 digits}; do
  case $set in
    esc10) seeds=${SEEDS:-1 2 3 4 5}; prepared=esc50
      [ -f "$C2F_DATA/esc50/c2f.json" ] || c2f prepare esc50 --from "$ESC10" ;;
    digits) seeds=${SEEDS:-1 2 3}; prepared=digits
      [ -f "$C2F_DATA/digits/c2f.json" ] || c2f prepare speech_commands --from "$FSDD" --name digits ;;
    *) echo "unknown set $set: esc10 or digits" >&2; exit 2 ;;
  esac
  echo "== $prepared, seeds $seeds"
  base=c2f-$set
  names=("$base-baseline" "$base-restart" "$base-3phases-restart")
  train "c2f_${set}_baseline" "$base-baseline"
  train "c2f_$set" "$base-restart" control=restart
  train "c2f_${set}_3phases" "$base-3phases-restart" control=restart
  for method in fshift pool patch; do
    for factor in 4 2; do
      train "c2f_$set" "$base-$method-$factor" "phases.coarse.compression={method: $method, factor: $factor}" \
        savings.control="$base-restart"
      names+=("$base-$method-$factor")
    done
    train "c2f_${set}_3phases" "$base-$method-3phases" "phases.coarse.compression={method: $method, factor: 4}" \
      "phases.middle.compression={method: $method, factor: 2}" savings.control="$base-3phases-restart"
    names+=("$base-$method-3phases")
  done
  c2f evaluate "${names[@]}" --metric accuracy
done
