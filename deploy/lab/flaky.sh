# Scenario: a member that writes something else than it was told, then one that cannot write; both by the kernel's dm-flakey. With
# checksums what the first has spoilt is found and put right from the others, by reads and by a scrub, and no host notices; the
# second is excluded, hosts write on without an error, and it is rebuilt when it is well again.
TARGET_HOST=127.0.0.1 PORT=4420 NQN=nqn.2026-01.io.brindle:flaky
. /run/in/scenario.sh

WORK=/dev/shm/flaky
DRIVES="d0 d1 d2 d3 l0"
# Without compiled modules Python takes a second more for each start.
export PYTHONPYCACHEPREFIX=/tmp/python PYTHONDONTWRITEBYTECODE=
mkdir -p $WORK
cd $WORK
modprobe -a loop dm-mod dm-flakey

for drive in $DRIVES; do
    truncate -s 32M "$drive"
    data=$(losetup -f --show "$drive")
    echo "0 $(blockdev --getsz "$data")" >"size.$drive"
    echo "$data" >"data.$drive"
    dmsetup create "$drive" --table "$(cat "size.$drive") linear $data 0"
done
dmsetup mknodes
# turn DRIVE well | FEATURE [VALUE] : what the drive does from now on
turn() {
    local drive=$1 table
    shift
    table="flakey $(cat "data.$drive") 0 0 3600 $# $*"
    [ "$1" != well ] || table="linear $(cat "data.$drive") 0"
    dmsetup suspend --nolockfs "$drive"
    dmsetup load "$drive" --table "$(cat "size.$drive") $table"
    dmsetup resume "$drive"
}

# A member that gives back what is wrong is not given up here for that.
cat >test.yaml <<YAML
version: 1
name: flaky
reactors: {count: 1, memory: 128MiB}
devices:
$(for drive in $DRIVES; do echo "  - {name: $drive, kind: block, path: /dev/mapper/$drive}"; done)
arrays:
  - name: a0
    level: raid5
    members: [d0, d1, d2, d3]
    checksums: on
    drives: {max_read_errors: 10000}
    log: {devices: [l0], mode: write-back, lanes: 2}
    destage: {age: 300ms, full_stripe_delay: 50ms}
    volumes: [{name: v0, size: 24MiB}]
listeners:
  - {name: main, protocol: nvme-tcp, address: 127.0.0.1:$PORT}
subsystems:
  - {nqn: "$NQN", listeners: [main], hosts: any, namespaces: [{nsid: 1, volume: a0/v0}]}
control: {socket: $WORK/control.sock}
YAML
load() { python3 /run/in/stamped.py load "$(device)" ledger 1 "$1" || fail "a write failed"; }
check() { python3 /run/in/stamped.py check "$(device)" ledger || { tail -20 serve.log; fail "something that was answered is lost"; }; }
# told EXPRESSION : of the array, from what the server says of itself
told() {
    brindle status --json test.yaml >status.json
    python3 -c 'import json, sys
status = json.load(open("status.json"))
array, devices = status["arrays"][0], {device["name"]: device for device in status["devices"]}
print('"$1"')'
}
is_told() { [ "$(told "$1")" = True ]; }
scrub() {
    brindle array scrub a0 start --repair located --yes --follow --config test.yaml >scrub.out || { cat scrub.out; fail "scrub"; }
    tail -1 scrub.out
}

drained() { wait_for 60 is_told 'array["log"]["dirty_bytes"] == 0' || fail "the log is not emptied"; }

serve --create
connect
load 2
say "d2 spoils three of ten writes"
turn d2 random_write_corrupt 300000000
load 3
drained
turn d2 well
check
wrong=$(told 'devices["d2"]["errors"]["wrong_blocks"]')
[ "$wrong" -gt 0 ] || fail "nothing wrong was read of d2"
is_told 'all(devices[name]["errors"]["wrong_blocks"] == 0 for name in ("d0", "d1", "d3"))' || fail "others were wrong too"
is_told 'array["state"] == "optimal"' || fail "the array is not whole"
say "$wrong blocks of d2 were wrong, and no host noticed; $(scrub)"
scrub | grep -q 'nothing wrong$' || { cat scrub.out; fail "a scrub has left something wrong"; }
kill_server
serve
connect
check

say "d1 cannot write"
turn d1 error_writes
load 3
check
is_told 'array["missing_members"] == [1]' || { brindle status test.yaml; fail "d1 is not excluded"; }
turn d1 well
brindle drive replace d1 d1 --force --yes --config test.yaml
wait_for 60 is_told 'array["state"] == "optimal" and array["rebuild"] is None' || fail "d1 is not rebuilt"
check
drained
scrub | grep -q 'nothing wrong$' || { cat scrub.out; fail "what was rebuilt does not match"; }
kill_server
serve
connect
check
disconnect
stop_server
say "done"
