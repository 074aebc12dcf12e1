#!/usr/bin/env bash
# Brindle beside the kernel's own RAID: MD RAID-5 with a journal, and Brindle RAID-5 with a log, on the same emulated drives
# of one guest, one after the other, three members and parity, one log device, chunks of 64 KiB. Brindle is reached as a host
# reaches it, over NVMe/TCP through the guest's loopback; MD is used in place, which is all in its favour. The guest is emulated:
# only the ratios of one run mean anything.
#
# Run by `cargo xtask compare md`, which puts the binary at /run/in/brindle. Lines that begin with `=` are results:
#   = WHAT UNIT MD BRINDLE
. /usr/share/lab/lib.sh
set -euo pipefail

SECONDS_EACH=${SECONDS_EACH:-10}
NQN=nqn.2026-01.io.brindle:compare
WORK=/run/compare
mkdir -p $WORK
declare -A result

say() { echo "-- $*"; }
fail() { echo "FAILED: $*"; exit 1; }

modprobe -a nvme nvme-tcp raid456
for drive in lab0 lab1 lab2 lab3 lab4; do wait_for 10 nvme_serial $drive; done
members=$(for drive in lab0 lab1 lab2 lab3; do nvme_serial $drive; done)
log=$(nvme_serial lab4)

# measure WHO NAME DEVICE FIO-OPTION... : write or read IOPS, and the 99.9th percentile of the latency in microseconds
measure() {
    local who=$1 name=$2 device=$3
    shift 3
    fio --name=m --filename="$device" --direct=1 --ioengine=libaio --time_based --runtime="$SECONDS_EACH" --ramp_time=2 \
        --randrepeat=1 --norandommap --output-format=json "$@" >$WORK/fio.json || fail "fio on $device"
    read -r iops tail <<<"$(python3 - <<'PYTHON'
import json
job = json.load(open("/run/compare/fio.json"))["jobs"][0]
side = max((job["read"], job["write"]), key=lambda side: side["total_ios"])
print(round(side["iops"]), round(side["clat_ns"]["percentile"]["99.900000"] / 1000))
PYTHON
)"
    result["$who $name"]=$iops
    result["$who $name tail"]=$tail
    say "$who: $name: $iops IOPS, p99.9 $tail us"
}

# workloads WHO MODE DEVICE : what is measured in one mode of the log
workloads() {
    local who=$1 mode=$2 device=$3
    measure "$who" "$mode, random writes of 4 KiB, depth 16" "$device" --rw=randwrite --bs=4k --iodepth=16
    measure "$who" "$mode, random writes of 4 KiB, depth 1" "$device" --rw=randwrite --bs=4k --iodepth=1
    measure "$who" "$mode, sequential writes of 768 KiB, depth 4" "$device" --rw=write --bs=768k --iodepth=4
    measure "$who" "$mode, random reads of 4 KiB, depth 16" "$device" --rw=randread --bs=4k --iodepth=16
}

# sync_speed : MiB/s of a rebuild of MD, from its own words
rebuild_md() {
    local spare began amount
    amount=$(($(cat /sys/block/md0/md/component_size) / 1024))
    spare=$(nvme_serial lab3)
    mdadm -q /dev/md0 --fail "$spare"
    mdadm -q /dev/md0 --remove "$spare"
    mdadm -q --zero-superblock "$spare"
    echo 2000000 >/sys/block/md0/md/sync_speed_max
    began=$(date +%s%N)
    mdadm -q /dev/md0 --add "$spare"
    wait_for 240 grep -q '\[UUUU\]' /proc/mdstat
    result["$1 rebuild, idle"]=$((amount * 1000000000 / ($(date +%s%N) - began)))
    say "MD: rebuild: ${result["$1 rebuild, idle"]} MiB/s"
}

say "MD"
# The drives are new files of zeros: parity matches without a resync.
# shellcheck disable=SC2086
mdadm -q --create /dev/md0 --run --level=5 --raid-devices=4 --chunk=64 --assume-clean --write-journal "$log" $members
echo 8192 >/sys/block/md0/md/stripe_cache_size
echo write-back >/sys/block/md0/md/journal_mode
workloads md write-back /dev/md0
echo write-through >/sys/block/md0/md/journal_mode
workloads md write-through /dev/md0
rebuild_md md
mdadm -q --stop /dev/md0
# shellcheck disable=SC2086
for device in $members $log; do
    mdadm -q --zero-superblock "$device"
    blkdiscard -z -f "$device"
done

say "Brindle"
# serve MODE : writes a configuration and serves it
configure() {
    cat >$WORK/compare.yaml <<YAML
version: 1
name: compare
reactors: {count: 1, memory: 128MiB}
devices:
$(n=0; for device in $members; do echo "  - {name: d$n, kind: block, path: $device}"; n=$((n + 1)); done)
  - {name: log, kind: block, path: $log}
arrays:
  - name: a0
    level: raid5
    members: [d0, d1, d2, d3]
    chunk: 64KiB
    log: {devices: [log], mode: $1, lanes: 1}
    volumes:
      - {name: v0, size: ${VOLUME:-1GiB}}
listeners:
  - {name: main, protocol: nvme-tcp, address: 127.0.0.1:4420}
subsystems:
  - {nqn: "$NQN", listeners: [main], hosts: any, namespaces: [{nsid: 1, volume: a0/v0}]}
control: {socket: $WORK/control.sock}
YAML
}
serve() {
    configure "$1"
    (cd $WORK && exec /run/in/brindle serve compare.yaml --create >serve.out 2>serve.log) &
    server=$!
    wait_for 30 grep -q '^Status:' $WORK/serve.out || { cat $WORK/serve.log; fail "brindle does not serve"; }
    nvme connect -t tcp -a 127.0.0.1 -s 4420 -n $NQN --reconnect-delay=1 --ctrl-loss-tmo=60
    wait_for 15 nvme_nqn $NQN
    device=$(nvme_nqn $NQN)
}
stop() {
    nvme disconnect -n $NQN >/dev/null
    kill -TERM $server
    wait $server || { tail -5 $WORK/serve.log; fail "the stop was not clean"; }
}
serve write-back
# A zone is zeroed before its first write goes to the members; MD's were known to hold zeros.
fio --name=fill --filename="$device" --direct=1 --ioengine=libaio --rw=write --bs=768k --iodepth=4 --output-format=json >/dev/null
workloads brindle write-back "$device"
say "killed with much in the log"
timeout 3 fio --name=k --filename="$device" --direct=1 --ioengine=libaio --rw=randwrite --bs=4k --iodepth=16 --time_based \
    --runtime=30 --output-format=json >/dev/null 2>&1 || :
kill -KILL $server
wait $server 2>/dev/null || :
nvme disconnect -n $NQN >/dev/null
began=$(date +%s%N)
serve write-back
say "served again after $(((($(date +%s%N) - began)) / 1000000)) ms; $(grep -m1 -i 'recovered' $WORK/serve.log || :)"
stop
serve write-through
workloads brindle write-through "$device"
stop

for key in "${!result[@]}"; do
    case $key in "md "*) ;; *) continue ;; esac
    what=${key#md }
    [ -n "${result["brindle $what"]:-}" ] || continue
    case $what in *" tail") unit=us ;; *) unit=IOPS ;; esac
    echo "= $what|$unit|${result[$key]}|${result["brindle $what"]}"
done | sort
