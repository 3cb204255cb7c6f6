#!/usr/bin/env bash
# Real hosts of a Ray cluster on one Linux machine, as root: each has its own network, PIDs, host name, /dev/shm and
# disk (/srv), so that `ray stop` on one ends only its own Ray, and `off` is a power cut. They share the environment.
#   hosts.sh up                  head w1 w2 (10.77.0.10 to .12), lap, which is in no cluster (.20), and store (.30)
#   hosts.sh exec HOST COMMAND   a shell on it, with the variables that $STATE/env has, one NAME=VALUE a line
#   hosts.sh cut|join HOST       pulls its network cable, puts it back
#   hosts.sh off|boot HOST       kills everything on it at once; starts it again, its disk empty
#   hosts.sh down                removes them all
# VENV: the environment; STATE: an empty directory.
set -euo pipefail
P=vaegan; NET=10.77.0
declare -A IP=([head]=$NET.10 [w1]=$NET.11 [w2]=$NET.12 [lap]=$NET.20 [store]=$NET.30)
HOSTS="head w1 w2 lap store"; SELF=$(readlink -f "$0")

boot() {
  local h=$1 child=
  ip netns add $P-$h
  ip link add $P-$h type veth peer name eth0 netns $P-$h
  ip link set $P-$h netns $P-net; ip -n $P-net link set $P-$h master br0 up
  ip -n $P-$h addr add ${IP[$h]}/24 dev eth0; ip -n $P-$h link set lo up; ip -n $P-$h link set eth0 up
  ip -n $P-$h route add default via $NET.1  # nobody is there; without it Ray takes 127.0.0.1 for its own address
  { echo 127.0.0.1 localhost; for k in $HOSTS; do echo ${IP[$k]} $k; done; } > "$STATE/hosts"
  setsid ip netns exec $P-$h unshare --mount --uts --ipc --pid --fork --mount-proc --kill-child --propagation private \
    bash -c "hostname $h; mount --bind $STATE/hosts /etc/hosts
    mount -t tmpfs -o size=4g disk /srv; mount -t tmpfs -o size=1g shm /dev/shm; mkdir /srv/tmp
    exec sleep infinity" < /dev/null > /dev/null 2> "$STATE/$h.err" &
  local outer=$!; disown
  for _ in $(seq 100); do
    child=$(pgrep -P $outer || true)
    [ -n "$child" ] && [ "$(cat /proc/$child/comm 2>/dev/null)" = sleep ] && break; sleep 0.1
  done
  [ -n "$child" ] || { cat "$STATE/$h.err" >&2; exit 1; }
  echo "$child" > "$STATE/$h.pid"
}

on() {
  local h=$1; shift
  mapfile -t variables < "$STATE/env"
  exec nsenter -t "$(cat "$STATE/$h.pid")" -m -u -i -n -p env -i PATH="$VENV/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
    HOME=/srv TMPDIR=/srv/tmp RAY_TMPDIR=/srv LANG=C.UTF-8 RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 \
    GRPC_DNS_RESOLVER=native "${variables[@]}" bash -c "cd /srv; $*"
}

case ${1:-} in
  up) ip netns add $P-net; ip -n $P-net link add br0 type bridge; ip -n $P-net link set br0 up
      for h in $HOSTS; do boot $h; done;;
  boot) boot "$2";;
  exec) h=$2; shift 2; on "$h" "$@";;
  cut) ip -n $P-net link set $P-$2 down;;
  join) ip -n $P-net link set $P-$2 up;;
  off) kill -9 "$(cat "$STATE/$2.pid" 2>/dev/null)" 2>/dev/null || true; rm -f "$STATE/$2.pid"
       ip netns del $P-$2 2>/dev/null || true; ip -n $P-net link del $P-$2 2>/dev/null || true;;
  down) for h in $HOSTS; do bash "$SELF" off $h; done; ip netns del $P-net 2>/dev/null || true;;
  *) sed -n '2,10p' "$SELF"; exit 2;;
esac
