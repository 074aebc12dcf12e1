#!/usr/bin/env bash
# Brindle beside the kernel's own RAID: MD RAID-5 with a journal, and Brindle RAID-5 with a log, on emulated drives, three
# members and parity, one log device, chunks of 64 KiB, a volume of 384 MiB. Brindle is reached as a host reaches it, over NVMe/TCP
# through the guest's loopback; MD is used in place, which is all in its favour. The guest is emulated: only ratios mean anything.
#
# Run by `cargo xtask compare md`, which puts the binary at /run/in/brindle, in three guests. PHASE=crash: MD writes until the line
# `@crash`, at which the power is cut. PHASE=md, on the same drives: it comes back and is measured. PHASE=brindle, on new ones:
# the same of Brindle. Lines that begin with `=` are results:
#   = WHO|WHAT|UNIT|FIGURE
. /usr/share/lab/lib.sh
set -euo pipefail

SECONDS_EACH=${SECONDS_EACH:-10}
NQN=nqn.2026-01.io.brindle:compare
WORK=/run/compare
# A member's share of the volume, in KiB: whole chunks.
SHARE=131072
# When logged data goes to the members, unless said otherwise: the default.
DESTAGE='{age: 5s}'
# What is written before sustained writes are measured, more than the log holds.
ROUND=210m
mkdir -p $WORK

say() { echo "-- $*"; }
fail() { echo "FAILED: $*"; exit 1; }
brindle() { /run/in/brindle "$@"; }
now_ms() { echo $(($(date +%s%N) / 1000000)); }

# note WHO WHAT UNIT FIGURE : a result
note() { echo "= $1|$2|$3|$4"; }

modprobe -a nvme nvme-tcp raid456
for drive in lab0 lab1 lab2 lab3 lab4; do wait_for 10 nvme_serial $drive; done
members=$(for drive in lab0 lab1 lab2 lab3; do nvme_serial $drive; done)
last=$(nvme_serial lab3)
log=$(nvme_serial lab4)

load() { fio --name=m --direct=1 --ioengine=libaio --randrepeat=1 --norandommap --output-format=json "$@"; }

# measure WHO WHAT DEVICE FIO-OPTION... : write or read IOPS, and the 99.9th percentile of the latency in microseconds
measure() {
    local who=$1 what=$2 device=$3 iops tail
    shift 3
    load --filename="$device" --time_based --runtime="$SECONDS_EACH" --ramp_time=2 "$@" >$WORK/fio.json || fail "fio on $device"
    read -r iops tail <<<"$(python3 - <<'PYTHON'
import json
job = json.load(open("/run/compare/fio.json"))["jobs"][0]
side = max((job["read"], job["write"]), key=lambda side: side["total_ios"])
print(round(side["iops"]), round(side["clat_ns"]["percentile"]["99.900000"] / 1000))
PYTHON
)"
    note "$who" "$what" IOPS "$iops"
    note "$who" "$what: p99.9" us "$tail"
}

# workloads WHO MODE DEVICE : what is measured in one mode of the log
workloads() {
    local who=$1 mode=$2 device=$3
    measure "$who" "$mode, random writes of 4 KiB, depth 16" "$device" --rw=randwrite --bs=4k --iodepth=16
    measure "$who" "$mode, random writes of 4 KiB, depth 1" "$device" --rw=randwrite --bs=4k --iodepth=1
    measure "$who" "$mode, sequential writes of 768 KiB, depth 4" "$device" --rw=write --bs=768k --iodepth=4
    measure "$who" "$mode, random reads of 4 KiB, depth 16" "$device" --rw=randread --bs=4k --iodepth=16
}

# sustained WHO DEVICE : random writes once the log has gone round, so that what goes to the members is in the figure
sustained() {
    load --filename="$2" --rw=randwrite --bs=4k --iodepth=16 --io_size=$ROUND >/dev/null || fail "fio on $2"
    measure "$1" "write-back, random writes of 4 KiB, depth 16, log gone round" "$2" --rw=randwrite --bs=4k --iodepth=16
}

# How far the rebuild is, in MiB; empty once it is over.
rebuilt_md() { awk '$1 != "none" { print int($1 / 2048) }' /sys/block/md0/md/sync_completed; }
rebuilt_brindle() {
    brindle array rebuild a0 status --json --config $WORK/compare.yaml | python3 -c '
import json, sys
rebuild = json.load(sys.stdin)["rebuild"]
print("" if rebuild is None else rebuild["done_bytes"] >> 20)'
}
# replaced_WHO : the last member goes, and comes back as a new one; its rebuild begins
replaced_md() {
    mdadm -q /dev/md0 --fail "$last"
    wait_for 10 mdadm -q /dev/md0 --remove "$last"
    mdadm -q --zero-superblock "$last"
    mdadm -q /dev/md0 --add "$last"
}
replaced_brindle() {
    brindle drive fail d3 --yes --config $WORK/compare.yaml >/dev/null
    brindle drive replace d3 d3 --force --yes --config $WORK/compare.yaml >/dev/null
}
is_rebuilding() { [ -n "$("rebuilt_$1")" ]; }
# is_whole WHO : no member is missing or being rebuilt
is_whole() {
    case $1 in
        md) grep -q '\[UUUU\]' /proc/mdstat ;;
        brindle) brindle status --json $WORK/compare.yaml | python3 -c '
import json, sys
array = json.load(sys.stdin)["arrays"][0]
sys.exit(array["rebuild"] is not None or array["state"] != "optimal")' ;;
    esac
}

# watch_rebuild WHO : tells again and again how far it is, until it is over
watch_rebuild() {
    local at
    while at=$("rebuilt_$1"); do
        echo "$(now_ms) ${at:-$((SHARE / 1024))}"
        [ -n "$at" ] || return 0
        sleep 0.3
    done
}

# rebuilds WHO DEVICE : the rate of a rebuild with nothing else to do; then under load, with what the load had of it
rebuilds() {
    local who=$1 began watcher
    began=$(now_ms)
    "replaced_$who"
    wait_for 300 is_whole "$who" || fail "$who does not come to an end with its rebuild"
    note "$who" "rebuild, idle" MiB/s $((SHARE * 1000 / 1024 / ($(now_ms) - began)))
    "replaced_$who"
    wait_for 20 is_rebuilding "$who" || fail "$who does not rebuild"
    watch_rebuild "$who" >$WORK/watched &
    watcher=$!
    measure "$who" "random writes of 4 KiB, depth 4, during a rebuild" "$2" --rw=randwrite --bs=4k --iodepth=4
    kill $watcher 2>/dev/null || :
    wait $watcher 2>/dev/null || :
    note "$who" "rebuild under these writes" MiB/s "$(awk 'NR == 1 { t = $1; m = $2 } END { printf "%.1f", ($2 - m) * 1000 / ($1 - t) }' $WORK/watched)"
    wait_for 600 is_whole "$who" || fail "$who does not come to an end with its rebuild"
}

# recovered WHO MILLISECONDS BYTES : how long it took until all was served again with so much in the log
recovered() {
    [ "$3" -gt 1048576 ] || fail "$1: next to nothing was in the log"
    note "$1" "recovery" ms "$2"
    note "$1" "recovery: what was in the log" MiB $(($3 >> 20))
    note "$1" "recovery, for each GiB of that" s "$(awk "BEGIN { printf \"%.1f\", $2 / 1000 / ($3 / 1073741824) }")"
}

# journal_bytes DEVICE : how much an MD journal has from its tail to its head, read as recovery reads it: blocks that name their
# own place and follow one another, each with what it says is behind it
journal_bytes() {
    python3 - "$1" <<'PYTHON'
import struct, sys
device = open(sys.argv[1], "rb")
def read(sector):
    device.seek(sector * 512)
    return device.read(4096)
superblock = read(8)
assert struct.unpack_from("<I", superblock)[0] == 0xA92B4EFC
start, size = struct.unpack_from("<QQ", superblock, 128)
tail, = struct.unpack_from("<Q", superblock, 152)
size -= size % 8
at, total, expected = tail, 0, None
while total < size:
    block = read(start + at)
    magic, _, _, _, _, used, sequence, place = struct.unpack_from("<IIBBHIQQ", block)
    if magic != 0x6433C509 or place != at or expected not in (None, sequence):
        break
    sectors, offset = 8, 32
    while offset < used:
        kind, _, length = struct.unpack_from("<HHI", block, offset)
        if kind == 2:
            offset += 8 + length
        else:
            sectors += length
            offset += 16 + length // 8 * 4
    expected = sequence + 1
    at, total = (at + sectors) % size, total + sectors
print(total * 512)
PYTHON
}

# MD
settings_md() {
    echo 8192 >/sys/block/md0/md/stripe_cache_size
    echo "$1" >/sys/block/md0/md/journal_mode
}
if [ "$PHASE" = crash ]; then
    # The drives are new files of zeros: parity matches without a resync.
    # shellcheck disable=SC2086
    mdadm -q --create /dev/md0 --run --level=5 --raid-devices=4 --chunk=64 --size=$SHARE --assume-clean --write-journal "$log" $members
    settings_md write-back
    (sleep 20 && echo @crash) &
    load --filename=/dev/md0 --rw=randwrite --bs=4k --iodepth=16 --time_based --runtime=60 >/dev/null
    fail "the power was not cut"
fi
if [ "$PHASE" = md ]; then
    journal=$(journal_bytes "$log")
    began=$(now_ms)
    # shellcheck disable=SC2086
    mdadm -q --assemble /dev/md0 --run $members "$log"
    dd if=/dev/md0 of=/dev/null bs=4k count=1 iflag=direct status=none
    ended=$(now_ms)
    dmesg | grep 'md/raid:md0: recovering' || fail "MD recovered nothing"
    recovered md $((ended - began)) "$journal"
    # A member that fails while the journal is or was in write-back ends this kernel's thread of the array (a BUG in
    # r5c_make_stripe_write_out): so the array begins anew, in write-through, for its rebuilds. Nor is it stopped after the load.
    mdadm -q --stop /dev/md0
    # shellcheck disable=SC2086
    mdadm -q --assemble /dev/md0 --run $members "$log"
    rebuilds md /dev/md0
    settings_md write-back
    workloads md write-back /dev/md0
    sustained md /dev/md0
    settings_md write-through
    workloads md write-through /dev/md0
    exit 0
fi

# Brindle
# configure MODE [DESTAGE]
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
    destage: ${2:-$DESTAGE}
    volumes:
      - {name: v0, size: $((3 * SHARE))KiB}
listeners:
  - {name: main, protocol: nvme-tcp, address: 127.0.0.1:4420}
subsystems:
  - {nqn: "$NQN", listeners: [main], hosts: any, namespaces: [{nsid: 1, volume: a0/v0}]}
control: {socket: $WORK/control.sock}
YAML
}
# serve MODE [DESTAGE] : $server is the process, $device what the host sees, $served_ms how long it took until hosts were served
serve() {
    local began
    configure "$@"
    rm -f $WORK/serve.out
    began=$(now_ms)
    (cd $WORK && exec /run/in/brindle serve compare.yaml --create >serve.out 2>serve.log) &
    server=$!
    wait_for 60 grep -q '^Status:' $WORK/serve.out || { cat $WORK/serve.log; fail "brindle does not serve"; }
    served_ms=$(($(now_ms) - began))
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
load --filename="$device" --rw=write --bs=768k --iodepth=4 >/dev/null
workloads brindle write-back "$device"
sustained brindle "$device"
stop
# MD knows no age at which data has to leave the journal.
serve write-back '{age: 10min}'
timeout 20 fio --name=k --filename="$device" --direct=1 --ioengine=libaio --rw=randwrite --bs=4k --iodepth=16 --time_based \
    --runtime=60 --output-format=json >/dev/null 2>&1 || :
kill -KILL $server
wait $server 2>/dev/null || :
nvme disconnect -n $NQN >/dev/null
serve write-back '{age: 10min}'
grep 'recovered from the log' $WORK/serve.log || fail "Brindle recovered nothing"
recovered brindle "$served_ms" "$(brindle log status a0 --json --config $WORK/compare.yaml | python3 -c '
import json, sys
print(sum(lane["used_bytes"] for lane in json.load(sys.stdin)["lanes"]))')"
stop
serve write-back
rebuilds brindle "$device"
stop
serve write-through
workloads brindle write-through "$device"
stop
