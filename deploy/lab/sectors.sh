# Scenario: a volume that hosts address in sectors of 512 bytes. Writes begin and end within the blocks of the array, also
# while the server is killed; nothing beside them changes.
. /run/in/scenario.sh

connect
dev=$(device)
nvme id-ns "$dev" >/tmp/id-ns
grep -q 'lbads:9 .*(in use)' /tmp/id-ns || { cat /tmp/id-ns; fail "the logical block is not 512 bytes"; }
[ "$(blockdev --getss "$dev")" = 512 ] || fail "the kernel sees another block size"
grep . /sys/block/"$(basename "$dev")"/queue/{physical_block_size,minimum_io_size,optimal_io_size}

say "sectors and their neighbours"
head -c 65536 /dev/urandom >/tmp/bytes
dd if=/tmp/bytes of="$dev" bs=64k oflag=direct status=none
for at in 0 7 8 13; do
    head -c 1536 /dev/urandom >/tmp/part
    dd if=/tmp/part of="$dev" bs=512 seek=$at oflag=direct status=none
    dd if=/tmp/part of=/tmp/bytes bs=512 seek=$at conv=notrunc status=none
done
# A part of a block becomes zeros; a discard takes whole blocks alone.
blkdiscard -z -o $((21 * 512)) -l $((6 * 512)) "$dev"
dd if=/dev/zero of=/tmp/bytes bs=512 seek=21 count=6 conv=notrunc status=none
cmp <(dd if="$dev" bs=64k count=1 iflag=direct status=none) /tmp/bytes || fail "a sector beside what was written has changed"

say "fio"
fio --name=sectors --filename="$dev" --offset=16m --size=4m --rw=randwrite --bsrange=512-16k --blockalign=512 --direct=1 \
    --ioengine=libaio --iodepth=16 --verify=crc32c --verify_fatal=1 --randseed=7 --output=/tmp/fio || { cat /tmp/fio; fail fio; }
grep -E '^ *(read|write):' /tmp/fio

say "a file system of 1 KiB blocks, and a death"
mkfs.ext4 -q -F -b 1024 "$dev"
mount "$dev" $MOUNT
unpack_tree tree
writer_start
kill_in_mid_write
writer_stop
forget
check_synced
reopen
check_synced
check_tree tree
umount $MOUNT
disconnect
say "done"
