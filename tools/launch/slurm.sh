#!/usr/bin/env bash
# One process per GPU node, requeued after preemption. Submit:  sbatch tools/launch/slurm.sh --config=configs/csa_moe.py:busi ...
# jaxmed saves on SIGTERM or SIGUSR1 and exits with 128 + signal; the same command then resumes where it stopped.
#SBATCH --job-name=jaxmed
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
set -u
srun --kill-on-bad-exit=0 python -m jaxmed.main --config.distributed=True --workdir="runs/slurm-$SLURM_JOB_ID" "$@"
code=$?
case $code in
  138|143) echo "preempted: requeueing job $SLURM_JOB_ID"; scontrol requeue "$SLURM_JOB_ID" ;;
esac
exit $code
