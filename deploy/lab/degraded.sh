# Scenario: the server is killed in mid-write and comes back without one of its drives; then it is killed once more.
# What a degraded array serves is what the whole one held, and what is written to it survives the next kill too.
. /run/in/scenario.sh

connect
make_filesystem
unpack_tree tree

writer_start
kill_in_mid_write d1
forget
check_tree tree
unpack_tree second
kill_in_mid_write
writer_stop

forget
check_synced
reopen
check_synced
check_tree tree
check_tree second
umount $MOUNT
disconnect
say "done"
