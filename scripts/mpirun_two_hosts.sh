#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs a command as some processes on each of two "hosts" of this machine: network namespaces with names of their own
# (host-a, host-b), a cable between them (a veth pair), and nothing else that leads from one to the other. mpirun reaches
# the second one through an agent in place of ssh; messages between them go over TCP.
#   scripts/mpirun_two_hosts.sh PROCESSES_EACH COMMAND [ARGUMENT...]
# Leaves with 77 where namespaces cannot be made (not root, or a container that forbids it). MEMLAYERS_DELAY (such as
# 0.5ms) and MEMLAYERS_RATE (such as 1gbit) slow the cable down, where tc is there and knows netem.
set -euo pipefail
if [ "${1:-}" = --agent ]; then  # mpirun's agent: HOST COMMAND...
  shift
  [ "$1" = 10.77.0.2 ] || { echo "mpirun_two_hosts.sh: expected host 10.77.0.2, got $1" >&2; exit 1; }
  shift
  exec ip netns exec "$MEMLAYERS_HOST_B" unshare --uts bash -c 'hostname host-b && eval "$0"' "$*"
fi
processes=$1
shift
here=$(readlink -f "${BASH_SOURCE[0]}")
a=memlayers-a-$$ b=memlayers-b-$$
can_not() { echo "mpirun_two_hosts.sh: cannot make network namespaces here" >&2; exit 77; }
[ "$(id -u)" = 0 ] && command -v ip > /dev/null || can_not
work=$(mktemp -d)
agent=$work/agent
clean() {
  ip netns del "$a" 2> /dev/null || true
  ip netns del "$b" 2> /dev/null || true
  rm -rf "$work"
}
trap clean EXIT
{ ip netns add "$a" && ip netns add "$b" && unshare --uts true; } 2> /dev/null || can_not
ip -n "$a" link add cable type veth peer name cable netns "$b" 2> /dev/null || can_not
ip -n "$a" addr add 10.77.0.1/24 dev cable
ip -n "$b" addr add 10.77.0.2/24 dev cable
for host in "$a" "$b"; do
  ip -n "$host" link set lo up
  ip -n "$host" link set cable up
  if [ -n "${MEMLAYERS_DELAY:-}${MEMLAYERS_RATE:-}" ]; then
    tc -n "$host" qdisc add dev cable root netem ${MEMLAYERS_DELAY:+delay $MEMLAYERS_DELAY} ${MEMLAYERS_RATE:+rate $MEMLAYERS_RATE}
  fi
done
printf '#!/bin/sh\nexec %q --agent "$@"\n' "$here" > "$agent"
chmod +x "$agent"
export MEMLAYERS_HOST_B=$b
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1
export OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader,tcp OMPI_MCA_btl_vader_single_copy_mechanism=none
export OMPI_MCA_btl_tcp_if_include=10.77.0.0/24 OMPI_MCA_oob_tcp_if_include=10.77.0.0/24
export OMPI_MCA_plm=rsh OMPI_MCA_plm_rsh_agent=$agent OMPI_MCA_plm_rsh_no_tree_spawn=1 OMPI_MCA_mpi_yield_when_idle=1
export ASAN_OPTIONS=detect_leaks=0
# Not exec: what was made is taken away at the end.
ip netns exec "$a" unshare --uts bash -c 'hostname host-a && exec "$@"' bash \
  mpirun -n $((2 * processes)) --host "10.77.0.1:$processes,10.77.0.2:$processes" --bind-to none \
  -x OMP_NUM_THREADS -x ASAN_OPTIONS "$@"
