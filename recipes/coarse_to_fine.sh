#!/usr/bin/env bash
# A table of the coarse-to-fine paper from raw audio: AST-base, the baseline first, then every row (Feng et al., ICASSP
# 2024, Tables 2 and 4, or 3 and 5), and the control that the paper did not run.
# Needs: the raw data set, GPUs, and ImageNet weights (downloaded by timm's name, or placed by hand; see the message).
# Run: SET=vggsound FROM=/path/to/VGGSound bash recipes/coarse_to_fine.sh
#      SET=voxceleb1|kinetics_sounds|audioset   TABLE=first_beat|convergence   GPUS=4
# A second call goes on where the first stopped. On SLURM: one row for each array task, ROW=N.
set -euo pipefail
cd "$(dirname "$0")/.."
SET=${SET:-vggsound} GPUS=${GPUS:-1} TABLE=${TABLE:-first_beat}
papers=specs/papers/coarse_to_fine
[ -f "$papers/$SET.yaml" ] || { echo "unknown SET $SET: vggsound, voxceleb1, kinetics_sounds or audioset" >&2; exit 2; }
data=${C2F_DATA:-data}
[ -f "$data/$SET/c2f.json" ] || c2f prepare "$SET" --from "${FROM:?the folder with the raw data set}"

convergence=()
if [ "$TABLE" = convergence ] && [ "$SET" != audioset ]; then
  convergence=(phases.fine.stop=null)
fi
run() { c2f finetune "$@" --gpus "$GPUS" --resume; }

# every row stands in the head of its spec: "row NAME FLOPs-saved time-saved ARGUMENTS"
number=0
names=()
[ -n "${ROW:-}" ] && [ "$ROW" != 0 ] || run "$papers/${SET}_baseline.yaml"
for spec in "$papers/$SET.yaml" "$papers/${SET}_3phases.yaml"; do
  [ -f "$spec" ] || continue
  base=$(basename "$spec" .yaml)
  while IFS= read -r line; do
    number=$((number + 1))
    label=$(sed -E 's/^row ([^0-9]+[0-9-]+) .*/\1/; s/ +$//; s/ /-/g' <<<"$line" | tr '[:upper:]' '[:lower:]')
    eval "arguments=($(sed -E 's/^row [^0-9]+[0-9-]+ +[0-9.]+ +[0-9.]+ +//' <<<"$line"))"
    names+=("$base-$label")
    [ -n "${ROW:-}" ] && [ "$ROW" != "$number" ] && continue
    c2f flops "$spec" "${arguments[@]}"
    run "$spec" "${arguments[@]}" ${convergence[@]+"${convergence[@]}"} savings.control="$base-restart" --run "$base-$label"
  done < <(sed -n '/^#/s/^# *//p' "$spec" | sed -E ':a;N;$!ba;s/\n(phases\.)/ \1/g' | grep -E '^row ')
  number=$((number + 1))
  names+=("$base-restart")
  [ -n "${ROW:-}" ] && [ "$ROW" != "$number" ] || run "$spec" control=restart phases.fine.stop=null --run "$base-restart"
done
[ -n "${ROW:-}" ] || c2f evaluate "${SET//_/-}-baseline" "${names[@]}"
