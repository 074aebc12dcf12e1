# Scenario: the power of all drives is cut, and what they were not told to keep is lost, by the kernel's own account of what they
# were told. Every member and log copy lies behind dm-log-writes; when the power goes, all drives stand still before the server
# dies, each of them is put together anew from its record, with writes that were not flushed lost, torn or kept by lot, and the
# server starts on that. What it had answered is there, and what it had not is old or new, again and again, also after a cut
# during recovery and with a member lost in the same moment. In the end drives lie about flushes, and that is noticed.
TARGET_HOST=127.0.0.1 PORT=4420 NQN=nqn.2026-01.io.brindle:dropped
. /run/in/scenario.sh

SEED=${SEED:-1}
CHECKSUMS=${CHECKSUMS:-off}
WORK=/dev/shm/dropped
DRIVES="d0 d1 d2 d3 l0 l1"
MEMBER=32M LOG=16M RECORD=1G
RANDOM=$SEED
# Without compiled modules Python takes a second more for each start.
export PYTHONPYCACHEPREFIX=/tmp/python PYTHONDONTWRITEBYTECODE=
mkdir -p $WORK/base $WORK/live $WORK/records
cd $WORK
modprobe -a loop dm-mod dm-log-writes
# What a failure leaves behind, for whoever looks at it.
trap '[ $? = 0 ] || tar -Sc base records ledger all_fates serve.log | gzip -1 >/run/out/dropped.tar.gz' EXIT

# The image of each drive, as it is without power, is in base; those that have none are lost. A drive at work is a copy of it,
# in live. The loop devices below stay.
present() { (cd base && ls); }
for drive in $DRIVES; do
    case $drive in d*) size=$MEMBER ;; l*) size=$LOG ;; esac
    truncate -s "$size" "base/$drive" "live/$drive"
    truncate -s $RECORD "records/$drive"
    data=$(losetup -f --show "live/$drive")
    record=$(losetup -f --show "records/$drive")
    echo "$drive,,,rw,0 $(blockdev --getsz "$data") log-writes $data $record" >"recorded.$drive"
    echo "$drive,,,rw,0 $(blockdev --getsz "$data") linear $data 0" >"plain.$drive"
done

# power_on recorded|plain : every drive as it was left, behind the kernel's record of what it is told from now on, or without
power_on() {
    local drive
    rm -f cut
    cp --sparse=always base/* live/
    dmsetup create --concise "$(for drive in $(present); do cat "$1.$drive"; done | paste -sd ';')"
    dmsetup mknodes
    for drive in $(present); do [ -b "/dev/mapper/$drive" ] || fail "no device for $drive"; done
}

# start_in MODE : starts the server, and does not wait for it
start_in() {
    cat >test.yaml <<YAML
version: 1
name: dropped
reactors: {count: 1, memory: 128MiB}
devices:
$(for drive in $DRIVES; do echo "  - {name: $drive, kind: block, path: /dev/mapper/$drive}"; done)
arrays:
  - name: a0
    level: raid5
    members: [d0, d1, d2, d3]
    chunk: 64KiB
    checksums: $CHECKSUMS
    log: {devices: [l0, l1], mode: $1, lanes: 2}
    destage: {age: 300ms, full_stripe_delay: 50ms}
    volumes: [{name: v0, size: 24MiB}]
listeners:
  - {name: main, protocol: nvme-tcp, address: 127.0.0.1:$PORT}
subsystems:
  - {nqn: "$NQN", listeners: [main], hosts: any, namespaces: [{nsid: 1, volume: a0/v0}]}
control: {socket: $WORK/control.sock}
YAML
    start_server --create
}

serving_now() { grep -q '^Status:' serve.out 2>/dev/null; }
# serving : whether hosts are served, soon; false at once if the server ends
serving() {
    local tries
    for ((tries = 0; tries < 300; tries++)); do
        ! serving_now || return 0
        kill -0 "$server" 2>/dev/null || return 1
        sleep 0.1
    done
    return 1
}

# is_dead : whether no thread of the server will run again; those that wait for a drive die as soon as it has answered
is_dead() { ! grep -hs '^State:' "/proc/$server/task/"*/status | grep -qv '[DZX] ('; }
are_quiet() { ! cat /sys/block/dm-*/inflight | grep -q '[1-9]'; }

# cut_power : all drives stand still, one after the other in any order, before the server dies. So what the server has
# seen complete was complete at each drive before its mark; what was under way then is behind it.
cut_power() {
    local drive drives lot=$RANDOM
    mapfile -t drives < <(present | shuf --random-source=<(yes "$lot"))
    touch cut
    dmsetup suspend --nolockfs "${drives[@]}"
    for drive in "${drives[@]}"; do dmsetup message "$drive" 0 mark cut; done
    kill -KILL "$server"
    wait_for 10 is_dead || fail "the server does not die"
    dmsetup resume "${drives[@]}"
    wait "$server" 2>/dev/null || :
    nvme disconnect -n "$NQN" >/dev/null || :
    wait_for 10 are_quiet || fail "drives are still at work"
    wait_for 10 dmsetup remove "${drives[@]}" || fail "drives are still in use"
}

# restore FATE [DRIVE=FATE]... : the drives are from now on what is left of them, each with the fate of all or its own: one of
# powercut.py, or `gone`
restore() {
    local of_all=$1 drive own fate fates=()
    shift
    for drive in $(present); do
        fate=$of_all
        for own in "$@"; do case $own in "$drive="*) fate=${own#*=} ;; esac; done
        if [ "$fate" = gone ]; then rm "base/$drive"; else fates+=("$drive=$fate"); fi
    done
    python3 /run/in/powercut.py "$SEED$RANDOM" base records cut "${fates[@]}" >fates || fail "the drives cannot be put together"
    cat fates >>all_fates
    say "$of_all${*:+ $*}: $(awk '{ d += $4; f += $6; k += $8; l += $10; t += $12 } END {
        print d " writes durable by " f " flushes; of the others " k " are there, " l " lost, " t " torn" }' fates)"
}

# write_for SECONDS : all is checked, then load
write_for() {
    : >writer.out
    python3 /run/in/stamped.py write "$(device)" ledger "$SEED" cut >writer.out 2>&1 &
    writer=$!
    wait_for 60 grep -q 'answered blocks' writer.out || { cat writer.out; fail "the check does not come to an end"; }
    sleep "$1"
    kill -0 "$writer" 2>/dev/null || { cat writer.out; tail -20 serve.log; fail "the writer has ended"; }
}

# round MODE SECONDS : starts, reads all that was answered, writes, and has its power cut
round() {
    power_on recorded
    start_in "$1"
    serving || { tail -20 serve.log; fail "brindle does not serve"; }
    connect
    write_for "$2"
    cut_power
    wait "$writer" || { cat writer.out; fail "the writer failed"; }
    say "$1: $(sed "N;s/\n/; /" writer.out)"
    ! grep -q '^0 writes' writer.out || fail "no write was answered"
}

# has_written COUNT : whether the drives have completed so many writes since they have power
has_written() { [ "$(cat /sys/block/dm-*/stat | awk '{ writes += $5 } END { print writes }')" -ge "$1" ]; }

# cut_at_start MODE WRITES : has its power cut while it recovers, after so many writes to the drives
cut_at_start() {
    power_on recorded
    start_in "$1"
    until has_written "$2" || serving_now; do sleep 0.02; done
    ! serving_now || say "recovered sooner"
    cut_power
    say "cut while it starts"
}

# unplug : the server dies, and drives that are not recorded are taken away
unplug() {
    kill_server
    # shellcheck disable=SC2046
    wait_for 10 dmsetup remove $(present) || fail "drives are still in use"
}

# examine WANTED FATE [DRIVE=FATE]... : what would have become of the drives otherwise, tried apart: `whole`, all that was answered
# is there; `noticed`, it is not, which the check must see, or the server refuses to serve it
examine() {
    local wanted=$1 found
    shift
    rm -rf kept
    cp -r --sparse=always base kept
    cp ledger kept.ledger
    restore "$@"
    power_on plain
    start_in write-back
    if ! serving; then
        found=noticed
        tail -1 serve.log >verdict
    else
        connect >/dev/null
        if python3 /run/in/stamped.py check "$(device)" ledger >verdict 2>&1; then found=whole; else found=noticed; fi
    fi
    say "$found: $(tail -1 verdict)"
    [ $found = "$wanted" ] || { cat verdict; tail -20 serve.log; fail "it should be $wanted"; }
    unplug
    rm -rf base
    mv kept base
    mv kept.ledger ledger
}

# scrub : the parities of all stripes match
scrub() {
    power_on plain
    start_in write-back
    serving || { tail -20 serve.log; fail "brindle does not serve"; }
    brindle array scrub a0 start --repair none --yes --follow --config test.yaml >scrub.out || { cat scrub.out; fail "scrub"; }
    say "scrub: $(tail -1 scrub.out)"
    tail -1 scrub.out | grep -q '^ended.*nothing wrong$' || fail "parities do not match"
    unplug
}

say "seed $SEED, checksums $CHECKSUMS"
round write-back 2
restore some
round write-back 2
examine whole some d1=gone
restore none
cut_at_start write-back 5
restore some
scrub
round write-through 2
restore some
round write-back 2
# A mirrored log bears one copy that breaks its promises. Where all do, or members, that shows: the check has teeth.
examine whole some l1=lies
examine noticed some l0=lies l1=lies
examine noticed some d0=lies d1=lies d2=lies d3=lies
restore some d2=gone
round write-back 2
restore some

power_on plain
start_in write-back
serving || { tail -20 serve.log; fail "brindle does not serve"; }
connect
python3 /run/in/stamped.py check "$(device)" ledger || fail "something that was answered is lost"
disconnect
stop_server
# Nothing would be proved if nothing had been lost: neither of members nor of the log.
for drives in d l; do
    awk -v of="^$drives" '$1 ~ of && $2 != "lies" { lost += $10 + $12; flushes += $6 } END { exit !(lost && flushes) }' all_fates ||
        fail "no write of any $drives was lost"
done
say "done"
