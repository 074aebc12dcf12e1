"""Writes that can be told apart, and what must be read of them after a crash.

    stamped.py check DEVICE LEDGER               reads all of the device and compares it with the ledger
    stamped.py write DEVICE LEDGER SEED STOP     checks, says so, then writes at depth until the device fails, which it may only
                                                 do once the file STOP is there; tells how many writes were answered
    stamped.py load DEVICE LEDGER SEED SECONDS   writes at depth for so long, without an error

Each block of 4 KiB says where it belongs and which write made it; every eighth write writes zeros instead. The ledger, a file in
memory that outlives the writer, knows of each block which write was answered last and which was sent last. A write lies within
one atomic unit of 64 KiB, and a unit has one under way at most. So after a crash a block is what was answered last, or what was
sent and not answered; and a write that was not answered is there as a whole, or not at all. The check takes what it has found
into the ledger: what was read once must not go away again, at the next crash.
"""

import array
import ctypes
import errno
import itertools
import math
import mmap
import os
import random
import struct
import sys
import threading
import time

BLOCK = 4096
UNIT = 16
# Blocks of one read of the check.
READ = 256
THREADS = 16
# A write's number is that of the writer's run and, in so many bits, its own in that run: none is ever used again.
RUN_BITS = 20
# Of fallocate(2): zeros, and the size stays.
KEEP_SIZE, ZERO_RANGE = 1, 16
TOLD_MAX = 10

libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class Ledger:
    """The number of the writer's run; of each block the last write that was sent and the last that was answered."""

    def __init__(self, path, blocks):
        if not os.path.exists(path):
            with open(path, "wb") as file:
                file.truncate(4 * (1 + 2 * blocks))
        with open(path, "r+b") as file:
            numbers = memoryview(mmap.mmap(file.fileno(), 0)).cast("I")
        if len(numbers) != 1 + 2 * blocks:
            sys.exit(f"{path} is not about {blocks} blocks")
        self.run = numbers[:1]
        self.sent = numbers[1 : 1 + blocks]
        self.answered = numbers[1 + blocks :]


def content(block, number):
    """What a write leaves in a block."""
    if number % 8 == 0:
        return bytes(BLOCK)
    return struct.pack("<QQQQ", 0x6265646C6E697262, block, number, block * number ^ 0x5555) * (BLOCK // 32)


def open_device(path):
    fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    return fd, os.lseek(fd, 0, os.SEEK_END) // BLOCK


def send(fd, memory, first, count, number):
    """One write command."""
    if number % 8 == 0:
        if libc.fallocate(fd, KEEP_SIZE | ZERO_RANGE, first * BLOCK, count * BLOCK) != 0:
            raise OSError(ctypes.get_errno(), "fallocate")
        return
    memory[: count * BLOCK] = b"".join(content(first + at, number) for at in range(count))
    if os.pwritev(fd, [memoryview(memory)[: count * BLOCK]], first * BLOCK) != count * BLOCK:
        raise OSError(errno.EIO, "a short write")


def write(fd, ledger, seed, until):
    """Writes from many threads, each in units of its own, until then or until the device fails; the first failure, or none."""
    ledger.run[0] += 1
    numbers = itertools.count((ledger.run[0] << RUN_BITS) + 1)
    failures, answers = [], itertools.count()
    rows = len(ledger.sent) // UNIT // THREADS

    def work(thread):
        chance = random.Random(f"{seed} {ledger.run[0]} {thread}")
        memory = mmap.mmap(-1, UNIT * BLOCK)
        while not failures and time.monotonic() < until:
            count = chance.choice([1, 1, 1, 2, 5, UNIT])
            first = (thread + THREADS * chance.randrange(rows)) * UNIT + chance.randrange(UNIT - count + 1)
            number = next(numbers)
            this = array.array("I", [number]) * count
            ledger.sent[first : first + count] = this
            try:
                send(fd, memory, first, count, number)
            except OSError as error:
                failures.append(error)
                return
            ledger.answered[first : first + count] = this
            next(answers)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{next(answers)} writes were answered", flush=True)
    return failures[0] if failures else None


def check(fd, ledger):
    """Compares all blocks with the ledger, and takes into it what has become of writes that were not answered."""
    memory = mmap.mmap(-1, READ * BLOCK)
    wrong, count = [], {"answered": 0, "new": 0, "old": 0}
    for start in range(0, len(ledger.sent), READ):
        try:
            if os.preadv(fd, [memory], start * BLOCK) != READ * BLOCK:
                raise OSError(errno.EIO, "a short read")
        except OSError as error:
            wrong.append(f"blocks {start} to {start + READ - 1}: {error}")
            continue
        for at in range(0, READ, UNIT):
            check_unit(memory[at * BLOCK : (at + UNIT) * BLOCK], start + at, ledger, wrong, count)
    print(f"{count['answered']} answered blocks are there; of those in writes without an answer {count['new']} are new, "
          f"{count['old']} old", flush=True)
    if wrong:
        print("\n".join(wrong[:TOLD_MAX]))
        sys.exit(f"{len(wrong)} mistakes")


def check_unit(found, first, ledger, wrong, count):
    """Compares the blocks of one atomic unit."""
    sent = ledger.sent[first : first + UNIT].tolist()
    answered = ledger.answered[first : first + UNIT].tolist()
    if sent == answered and found == b"".join(content(first + at, answered[at]) for at in range(UNIT)):
        count["answered"] += sum(1 for number in answered if number)
        return
    states = {"new": 0, "old": 0}
    for at in range(UNIT):
        block = first + at
        this, old, new = found[at * BLOCK : (at + 1) * BLOCK], content(block, answered[at]), content(block, sent[at])
        if this not in (old, new):
            what = "neither old nor new" if old != new else "not what was answered"
            wrong.append(f"block {block} is {what}: {describe(this, block, answered[at])}")
        elif sent[at] == answered[at]:
            count["answered"] += answered[at] != 0
        else:
            is_new = this == new
            # Zeros over zeros do not tell.
            states["new" if is_new else "old"] += old != new
            ledger.answered[block] = ledger.sent[block] = sent[at] if is_new else answered[at]
    if states["new"] and states["old"]:
        wrong.append(f"blocks {first} to {first + UNIT - 1}: a write without an answer is there in part")
    for state, blocks in states.items():
        count[state] += blocks


def describe(found, block, answered):
    """Words for what a block holds instead."""
    _, place, number, _ = struct.unpack_from("<QQQQ", found)
    if found == bytes(BLOCK):
        what = "zeros"
    elif found == content(block, number):
        what = "an older write" if number < answered else "a later write"
    elif place < 1 << 32 and found == content(place, number):
        what = f"what belongs in block {place}"
    else:
        what = "something else"
    return f"{what} (found {number:#x}, answered {answered:#x})"


def main():
    match sys.argv[1:]:
        case ["check", device, path]:
            fd, blocks = open_device(device)
            check(fd, Ledger(path, blocks))
        case ["write", device, path, seed, stop]:
            fd, blocks = open_device(device)
            ledger = Ledger(path, blocks)
            check(fd, ledger)
            failure = write(fd, ledger, seed, math.inf)
            if not os.path.exists(stop):
                sys.exit(f"a write failed: {failure}")
        case ["load", device, path, seed, seconds]:
            fd, blocks = open_device(device)
            failure = write(fd, Ledger(path, blocks), seed, time.monotonic() + float(seconds))
            if failure:
                sys.exit(f"a write failed: {failure}")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
