#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs a command as some processes on this machine, for tests: as root and as a user, with more processes than cores,
# without a network, and without process_vm_readv, which many containers forbid.
#   scripts/mpirun_here.sh PROCESSES COMMAND [ARGUMENT...]
set -euo pipefail
processes=$1
shift
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_btl=self,vader OMPI_MCA_pml=ob1 OMPI_MCA_btl_vader_single_copy_mechanism=none
export OMPI_MCA_plm=isolated OMPI_MCA_oob_tcp_if_include=lo OMPI_MCA_mpi_yield_when_idle=1
export OMP_NUM_THREADS=1
export ASAN_OPTIONS=detect_leaks=0  # in builds with that sanitizer: MPI's own
exec mpirun -n "$processes" --oversubscribe --bind-to none "$@"
