# Scenario: a host uses the volume as hosts do. nvme-cli's commands, a file system with a real tree, fio's verification,
# then disconnect, reconnect with digests, and everything is still there.
. /run/in/scenario.sh

say "discovery"
modprobe nvme-tcp
nvme discover -t tcp -a "$HOST" -s "$PORT" >/tmp/discovery
grep -q "subnqn: *$NQN\$" /tmp/discovery || { cat /tmp/discovery; fail "the subsystem is not discovered"; }

connect
dev=$(device)
controller=/dev/$(basename "$dev" | sed 's/n[0-9]*$//')
say "connected: $dev"

nvme list | grep -q "^$dev" || { nvme list; fail "nvme list"; }
nvme id-ctrl "$controller" >/tmp/id-ctrl
grep -E '^(mn|sn|fr|subnqn|mdts|vwc|ioccsz|maxcmd) ' /tmp/id-ctrl
grep -q "^subnqn *: $NQN\$" /tmp/id-ctrl || fail "id-ctrl names another subsystem"
nvme id-ns "$dev" >/tmp/id-ns
grep -E '^(nsze|nguid|eui64|nsfeat|nawun|nabspf|noiob) ' /tmp/id-ns
grep -q 'lbads:12 .*(in use)' /tmp/id-ns || fail "the block is not 4096 bytes"
grep -Eq '^nguid *: 0*$' /tmp/id-ns && fail "the NGUID is zero"
nvme ns-descs "$dev" | grep -q '^uuid' || fail "no UUID among the namespace's descriptors"
nvme smart-log "$controller" >/tmp/smart-log
grep -q '^critical_warning[[:space:]]*: 0$' /tmp/smart-log || { cat /tmp/smart-log; fail "smart-log"; }
nvme get-feature "$controller" -f 7 >/dev/null || fail "the number of queues"
nvme error-log "$controller" -e 1 >/dev/null || fail "error-log"
nvme fw-log "$controller" >/dev/null || fail "fw-log"

say "atomic writes"
# Kernels from 6.11 on know them; the chunk of the lab's arrays is 64 KiB. With native multipath it is the path's own disk that
# says what the namespace can do; the disk above it passes that on only in later kernels, and is then held to the same.
name=$(basename "$dev")
head=/sys/block/$name/queue
path=$(echo /sys/block/"${name%n*}"c*n"${name##*n}"/queue)
[ -e "$path" ] || path=$head
if [ -e "$path/atomic_write_unit_max_bytes" ]; then
    grep . "$path"/atomic_write_*
    [ "$(cat "$path/atomic_write_unit_max_bytes")" = 65536 ] || fail "the kernel takes no atomic writes of a chunk"
    [ "$(cat "$path/atomic_write_boundary_bytes")" = 65536 ] || fail "the kernel sees another boundary"
    case $(cat "$head/atomic_write_unit_max_bytes") in
        0) say "this kernel's multipath does not pass atomic writes on" ;;
        65536) ;;
        *) fail "the kernel takes atomic writes of another size" ;;
    esac
fi

say "bytes, zeros, flush"
size=$(blockdev --getsize64 "$dev")
[ "$(blockdev --getss "$dev")" = 4096 ] || fail "the kernel sees another block size"
head -c 1048576 /dev/urandom >/tmp/bytes
dd if=/tmp/bytes of="$dev" bs=128k seek=3 oflag=direct status=none
nvme flush "$dev" >/dev/null
cmp <(dd if="$dev" bs=128k skip=3 count=8 iflag=direct status=none) /tmp/bytes || fail "what was written is not read"
blkdiscard -z -o $((3 * 131072 + 8192)) -l 65536 "$dev"
dd if=/dev/zero of=/tmp/bytes bs=8k seek=1 count=8 conv=notrunc status=none
# A discard; the kernel says so only where the drive offers it.
grep -q '^0$' "$head/discard_max_bytes" && fail "the kernel sees no discard"
blkdiscard -o $((3 * 131072 + 524288)) -l 131072 "$dev"
dd if=/dev/zero of=/tmp/bytes bs=128k seek=4 count=1 conv=notrunc status=none
cmp <(dd if="$dev" bs=128k skip=3 count=8 iflag=direct status=none) /tmp/bytes || fail "zeros"
dd if=/tmp/bytes of="$dev" bs=4k count=16 seek=$((size / 4096 - 16)) oflag=direct status=none
cmp <(dd if="$dev" bs=4k skip=$((size / 4096 - 16)) iflag=direct status=none) <(head -c 65536 /tmp/bytes) || fail "the last blocks"
nvme read "$dev" -s $((size / 4096)) -c 0 -z 4096 >/dev/null 2>&1 && fail "a read beyond the end succeeds"

say "file system"
make_filesystem
unpack_tree tree
forget
check_tree tree

say "fio"
fio --name=mixed --filename=$MOUNT/fio --size=12m --rw=randwrite --bsrange=4k-128k --blockalign=4k --direct=1 \
    --ioengine=libaio --iodepth=16 --verify=crc32c --verify_fatal=1 --randseed=7 --output=/tmp/fio || { cat /tmp/fio; fail fio; }
grep -E '^ *(read|write):' /tmp/fio

say "again, with digests"
reopen --hdr-digest --data-digest
check_tree tree
fio --name=mixed --filename=$MOUNT/fio --size=12m --rw=randwrite --bsrange=4k-128k --blockalign=4k --direct=1 \
    --ioengine=libaio --iodepth=16 --verify=crc32c --verify_fatal=1 --verify_only --randseed=7 --output=/tmp/fio ||
    { cat /tmp/fio; fail "fio after the reconnect"; }
unpack_tree second
forget
check_tree second
umount $MOUNT
disconnect
say "done"
