"""What drives hold after their power was cut, put together from what the kernel recorded of them.

A drive with a volatile cache may lose whatever it was not told to keep: writes since the last flush, each of them or part of
it, in any order. The kernel's dm-log-writes records what a drive is told: a write gets into its record only when a flush that
began after its completion has completed, or at once if it was to be durable by itself (FUA). So whatever the record has before
a mark is durable there, and what comes behind it until the record's end is what the drive may have lost: writes without a
flush, and whatever was still on its way.

    powercut.py SEED IMAGES RECORDS MARK DRIVE=FATE...

brings the image IMAGES/DRIVE, as it was when the record RECORDS/DRIVE began, to what the drive holds after the mark MARK. FATE
says what became of that which it was free to lose:

    all     it all reached the drive
    none    none of it did
    some    some of it, by the seed: each write whole, not at all, or some of its sectors
    lies    none of it, nor the later half of what the drive had said is durable: a drive that breaks its promises, to see
            that somebody notices

It tells how many writes there were of each kind, and fails on a record that is not whole.
"""

import mmap
import random
import struct
import sys

MAGIC = 0x6A736677736872
VERSION = 1
SECTOR = 512
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
# What the kernel marks when the device is taken away and all of its record is written.
LAST_MARK = b"dm-log-writes-end"


class Entry:
    """One request as it was recorded: place and length in bytes, and its data, which a discard has none of. Or a mark's name."""

    def __init__(self, flags, place=0, length=0, data=None, mark=None):
        self.flags, self.place, self.length, self.data, self.mark = flags, place, length, data, mark


def read_record(path):
    """The entries of a record, in its order."""
    with open(path, "rb") as file:
        record = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    magic, version, count, unit = struct.unpack_from("<QQQI", record)
    if magic != MAGIC or version != VERSION:
        sys.exit(f"{path} is no record of dm-log-writes")
    entries, at = [], unit
    for _ in range(count):
        sector, sectors, flags, length = struct.unpack_from("<QQQQ", record, at)
        if flags & MARK:
            entries.append(Entry(flags, mark=bytes(record[at + 32 : at + 32 + length])))
            at += unit
            continue
        size = 0 if flags & DISCARD else sectors * unit
        entries.append(Entry(flags, sector * unit, sectors * unit, record[at + unit : at + unit + size]))
        at += unit + size
    if not entries or entries[-1].mark != LAST_MARK:
        sys.exit(f"{path} has no end: was there room for all of it?")
    return entries


def split(path, mark):
    """Writes that were durable at the mark, in order; those that were not, in an order they may have had; how many flushes."""
    entries = read_record(path)
    marks = [at for at, entry in enumerate(entries) if entry.mark == mark]
    if len(marks) != 1:
        sys.exit(f"{path} has the mark {mark.decode()} {len(marks)} times")
    before, behind = entries[: marks[0]], entries[marks[0] :]
    check_order(path, before)
    # A write that is durable by itself is recorded before earlier ones that are not. Where they overlap it was the later one:
    # nobody but who waits for all others has two writes of one place under way.
    behind.sort(key=lambda entry: entry.flags & FUA)
    flushes = sum(1 for entry in before if entry.flags & FLUSH)
    return [entry for entry in before if entry.length], [entry for entry in behind if entry.length], flushes


def check_order(path, entries):
    """Fails where the record does not tell which of two writes of one sector was the later one: see `split`."""
    durable, ranges = bytearray(), []
    for entry in entries:
        first, end = entry.place // SECTOR, (entry.place + entry.length) // SECTOR
        if entry.flags & FUA:
            durable.extend(bytes(max(0, end - len(durable))))
            durable[first:end] = b"\1" * (end - first)
            ranges.append((first, end))
        elif 1 in durable[first:end]:
            sys.exit(f"{path}: the order of two writes at {entry.place} is not known")
        if entry.flags & FLUSH:
            for first, end in ranges:
                durable[first:end] = bytes(end - first)
            ranges.clear()


def apply(image, entry, sectors=None):
    """Writes an entry, or those of its sectors that are named."""
    data = entry.data if not entry.flags & DISCARD else bytes(entry.length)
    if sectors is None:
        image[entry.place : entry.place + entry.length] = data
        return
    for sector in sectors:
        start = sector * SECTOR
        image[entry.place + start : entry.place + start + SECTOR] = data[start : start + SECTOR]


def put_together(image, durable, undecided, fate, chance):
    """Brings the image to what the drive holds; how many of the writes that it might lose were kept, lost, torn."""
    kept = lost = torn = 0
    if fate == "lies":
        lost = len(durable) - len(durable) // 2
        durable = durable[: len(durable) // 2]
    for entry in durable:
        apply(image, entry)
    for entry in undecided:
        lot = {"all": "kept", "none": "lost", "lies": "lost"}.get(fate) or chance.choice(["kept", "lost", "torn"])
        sectors = entry.length // SECTOR
        if lot == "kept":
            apply(image, entry)
            kept += 1
        elif lot == "torn" and sectors > 1:
            apply(image, entry, sorted(chance.sample(range(sectors), chance.randrange(1, sectors))))
            torn += 1
        else:
            lost += 1
    return kept, lost, torn


def main():
    seed, images, records, mark = sys.argv[1:5]
    for word in sys.argv[5:]:
        drive, fate = word.split("=")
        if fate not in ("all", "none", "some", "lies"):
            sys.exit(f"no such fate: {word}")
        durable, undecided, flushes = split(f"{records}/{drive}", mark.encode())
        chance = random.Random(f"{seed} {drive}")
        with open(f"{images}/{drive}", "r+b") as file, mmap.mmap(file.fileno(), 0) as image:
            kept, lost, torn = put_together(image, durable, undecided, fate, chance)
        print(f"{drive} {fate} durable {len(durable)} flushes {flushes} kept {kept} lost {lost} torn {torn}")


if __name__ == "__main__":
    main()
