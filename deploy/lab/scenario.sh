# The common part of the scenarios, sourced by each in the guest. A scenario runs as root against the server that the
# variables PORT and NQN name, and fails at its first command that fails. The server is not its affair: it asks for its
# death by a line `@kill`, and sees no more of it than any host does.
. /usr/share/lab/lib.sh
set -euo pipefail

# A target of the guest's own kernel can stand in for the server, to test a scenario itself.
HOST=${TARGET_HOST:-$HOST}
MOUNT=/mnt
# The tree that is copied is Python's own; it must not grow while it is.
export PYTHONDONTWRITEBYTECODE=1
TREE=/usr/lib/python3.13

say() { echo "-- $*"; }
fail() { echo "FAILED: $*"; exit 1; }

# device : the namespace's block device
device() { nvme_nqn "$NQN"; }

# connect [OPTION...] : connects; a lost connection is tried again each second, for two minutes
connect() {
    modprobe nvme-tcp
    nvme connect -t tcp -a "$HOST" -s "$PORT" -n "$NQN" --reconnect-delay=1 --ctrl-loss-tmo=120 "$@"
    wait_for 15 device
    [ -b "$(device)" ] || fail "no block device for $NQN"
}
disconnect() { nvme disconnect -n "$NQN" | grep -q 'disconnected 1' || fail "nvme disconnect"; }

# For a server in the guest, which a scenario starts itself, with test.yaml in its folder.
brindle() { /run/in/brindle "$@"; }
# start_server [OPTION...] : starts it; it is $server then, and says what it does in serve.out and serve.log
start_server() {
    rm -f serve.out
    (exec /run/in/brindle serve test.yaml "$@" >serve.out 2>serve.log) &
    server=$!
}
# serve [OPTION...] : starts it, and waits until hosts are served
serve() {
    start_server "$@"
    wait_for 60 grep -q '^Status:' serve.out || { cat serve.log; fail "brindle does not serve"; }
}
stop_server() {
    kill -TERM "$server"
    wait "$server" || { tail -5 serve.log; fail "the stop was not clean"; }
}
# kill_server : it dies, and its host is told nothing
kill_server() {
    kill -KILL "$server" 2>/dev/null || :
    wait "$server" 2>/dev/null || :
    nvme disconnect -n "$NQN" >/dev/null || :
}

# is_live : whether every controller is connected
is_live() { ! grep -L '^live$' /sys/class/nvme/nvme*/state | grep -q .; }
reconnects() { dmesg | grep -c 'Successfully reconnected' || :; }

make_filesystem() {
    mkfs.ext4 -q -F "$(device)"
    mount "$(device)" $MOUNT
}

# unpack_tree NAME : a real tree of some hundred files, packed and unpacked onto the volume; its checksums in /tmp/NAME
unpack_tree() {
    mkdir "$MOUNT/$1"
    tar -C "$TREE" -cf - . | tar -C "$MOUNT/$1" -xf -
    sync
    (cd "$TREE" && find . -type f -print0 | sort -z | xargs -0 sha256sum) >"/tmp/$1"
    say "$(wc -l <"/tmp/$1") files unpacked into $1"
}
check_tree() {
    (cd "$MOUNT/$1" && sha256sum --quiet -c "/tmp/$1") || fail "tree $1 differs"
    say "tree $1 is whole"
}

# Forgets what the page cache knows, so that the volume itself must answer.
forget() {
    sync
    echo 3 >/proc/sys/vm/drop_caches
}

# reopen [OPTION...] : unmounts, disconnects, connects again, checks the file system, mounts it
reopen() {
    umount $MOUNT
    disconnect
    connect "$@"
    e2fsck -f -n "$(device)" >/tmp/fsck 2>&1 || { cat /tmp/fsck; fail "fsck finds errors"; }
    say "fsck: clean"
    mount "$(device)" $MOUNT
}

# writer_start : writes files one after the other, each fsynced and then entered into /tmp/synced with its checksum,
# until writer_stop
writer_start() {
    mkdir -p $MOUNT/synced
    rm -f /tmp/stop
    cat >/tmp/writer.py <<'PYTHON'
import hashlib, os, sys, time
folder, ledger = sys.argv[1:3]
count = sum(1 for _ in open(ledger)) if os.path.exists(ledger) else 0
while not os.path.exists("/tmp/stop"):
    body = os.urandom(4096 * (1 + count % 12) + count % 4096)
    name = f"{folder}/{count}"
    with open(name, "wb") as out:
        out.write(body)
        out.flush()
        os.fsync(out.fileno())
    # The entry is made only now: the file is promised from here on.
    with open(ledger, "a") as out:
        out.write(f"{hashlib.sha256(body).hexdigest()}  {name}\n")
    count += 1
    # A fast machine must not fill the volume while the server is away and back.
    time.sleep(0.02)
PYTHON
    python3 /tmp/writer.py $MOUNT/synced /tmp/synced &
    writer=$!
}
writer_stop() {
    touch /tmp/stop
    wait "$writer" || fail "a write failed"
}
synced() { if [ -e /tmp/synced ]; then wc -l </tmp/synced; else echo 0; fi; }
# more_synced COUNT : whether at least COUNT files have been synced
more_synced() { [ "$(synced)" -ge "$1" ]; }
check_synced() {
    sha256sum --quiet -c /tmp/synced || fail "a file that fsync had promised differs"
    say "$(synced) fsynced files are whole"
}

# kill_in_mid_write [DRIVE] : the server is killed while the writer writes, and comes back (without DRIVE); returns when
# the writer goes on
kill_in_mid_write() {
    local before
    before=$(reconnects)
    wait_for 60 more_synced $(($(synced) + 15)) || fail "the writer does not get on"
    echo "@kill $*"
    wait_for 60 eval '[ "$(reconnects)" -gt '"$before"' ]' || fail "the host did not reconnect"
    wait_for 30 is_live || fail "a controller is not live"
    wait_for 60 more_synced $(($(synced) + 15)) || fail "the writer did not go on"
    say "killed and back, $(synced) files synced"
}
