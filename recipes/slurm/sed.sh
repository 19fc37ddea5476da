#!/bin/bash
# The whole pipeline of recipes/sed.sh on AudioSet Strong as job arrays: data, then teachers, then students, then scores.
# FROM=/raw/audioset_strong C2F_DATA=... C2F_RUNS=... bash recipes/slurm/sed.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
export FROM C2F_DATA C2F_RUNS
data=$(sbatch --parsable --job-name=sed-data --cpus-per-task=16 --time=12:00:00 \
  --wrap "[ -f \$C2F_DATA/audioset_strong/c2f.json ] || c2f prepare audioset_strong --from \$FROM --coding flac")
teachers=$(sbatch --parsable --dependency=afterok:"$data" recipes/slurm/sed_teachers.sbatch)
students=$(sbatch --parsable --dependency=afterok:"$teachers" recipes/slurm/sed_students.sbatch)
sbatch --dependency=afterok:"$students" --job-name=sed-scores --gpus=1 --time=04:00:00 \
  --wrap "c2f evaluate 'sed-teacher-*' --ensemble && c2f evaluate 'sed-student-*' 'sed-alone-*'"
