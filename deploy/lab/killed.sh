# Scenario: the server is killed with SIGKILL in mid-write, several times, and started again while the host retries.
# Nothing that fsync promised is gone, the file system is clean, and direct I/O in flight at the kill reads back right.
. /run/in/scenario.sh

connect
make_filesystem
unpack_tree tree

writer_start
for round in 1 2 3; do
    for attempt in 1 2 3; do
        fio --name=direct --filename=$MOUNT/fio --size=6m --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=16 \
            --verify=crc32c --verify_fatal=1 --randseed="$round" --output=/tmp/fio &
        direct=$!
        kill_in_mid_write
        code=0
        wait "$direct" || code=$?
        # In the emulated guest fio itself may crash, which says nothing of the server; an error that it finds is an exit code.
        [ "$code" -gt 128 ] || break
        say "fio itself was ended by signal $((code - 128)) in round $round, attempt $attempt"
    done
    [ "$code" = 0 ] || { cat /tmp/fio; fail "fio through the kill"; }
done
writer_stop

forget
check_synced
reopen
check_synced
check_tree tree
umount $MOUNT
disconnect
say "done"
