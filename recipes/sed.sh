#!/usr/bin/env bash
# Sound event detection from teachers to student, after Schmid et al. (ICASSP 2025): train teachers over backbones and
# seeds, average their logits, train students with and without them, compare by PSDS1.
# Small (default), on scenes mixed from ESC-10:   ESC10=path bash recipes/sed.sh        an hour and a half on two cores
# As published, on AudioSet Strong:               SET=audioset_strong FROM=path bash recipes/sed.sh
#   One task of a job array: TEACHER=0 .. 14 trains that teacher alone, STUDENT=0 .. 4 that student (recipes/slurm/).
# A second call goes on where the first stopped. Results: docs/results.md
set -euo pipefail
cd "$(dirname "$0")/.."
trap : USR1 USR2 TERM  # a scheduler's signal is for c2f, which saves and ends; without a trap it would end this shell first
SET=${SET:-scenes}
export C2F_DATA=${C2F_DATA:-data} C2F_RUNS=${C2F_RUNS:-runs/sed_$SET}

if [ "$SET" = scenes ]; then
  [ -f "$C2F_DATA/esc50/c2f.json" ] || c2f prepare esc50 --from "$ESC10"
  if [ ! -f "$C2F_DATA/scenes/c2f.json" ]; then
    made=${SCENES:-$C2F_DATA/scenes_audio}
    [ -d "$made" ] || "${PYTHON:-python}" recipes/mix_scenes.py --from "$ESC10" --to "$made" --clips 1200 150 400
    c2f prepare events --from "$made" --name scenes
  fi
  c2f finetune specs/sed_scenes_weak.yaml --resume
  c2f finetune specs/sed_scenes_teacher.yaml --resume
  c2f distill specs/sed_scenes_student.yaml --resume
  c2f finetune specs/sed_scenes_alone.yaml --resume
  c2f evaluate sed-scenes-teacher --ensemble
  c2f evaluate sed-scenes-student sed-scenes-alone
  exit
fi

[ -f "$C2F_DATA/audioset_strong/c2f.json" ] || c2f prepare audioset_strong --from "$FROM" --coding flac
models=(atst beats fpasst m2d asit)
# the paper searches them and states that of ATST-F; the others are to be searched
teacher_rate=(7e-5 7e-5 7e-5 7e-5 7e-5) student_rate=(1e-4 1e-4 1e-4 1e-4 1e-4)
gpus=${GPUS:-1}

teacher() {  # number of the model, seed
  local spec=specs/papers/sed/teacher.yaml model=${models[$1]}
  [ "$model" = fpasst ] && spec=specs/papers/sed/teacher_fpasst.yaml
  c2f finetune "$spec" seed="$2" model.backbone="${model}_base" model.weights="public:${model}_sed_weak" \
    train.optimizer.lr="${teacher_rate[$1]}" --run "sed-teacher-$model-$2" --gpus "$gpus" --resume
}

student() {  # number of the model
  local model=${models[$1]}
  local more=(model.backbone="${model}_base" model.weights="public:${model}_sed_weak")
  c2f distill specs/papers/sed/student.yaml "${more[@]}" train.optimizer.lr="${student_rate[$1]}" \
    --run "sed-student-$model" --gpus "$gpus" --resume
  c2f finetune specs/papers/sed/student_without_teachers.yaml "${more[@]}" train.optimizer.lr="${student_rate[$1]}" \
    --run "sed-alone-$model" --gpus "$gpus" --resume
}

if [ -n "${TEACHER:-}" ]; then teacher $((TEACHER / 3)) $((TEACHER % 3)); exit; fi
if [ -n "${STUDENT:-}" ]; then student "$STUDENT"; exit; fi
for number in {0..14}; do teacher $((number / 3)) $((number % 3)); done
for number in {0..4}; do student "$number"; done
c2f evaluate "sed-teacher-*" --ensemble
c2f evaluate "sed-student-*" "sed-alone-*"
