"""The disk as a power cut may have left it, at any moment of a log that nbdkit_record.c wrote."""
import bisect
import mmap
import struct
from collections import Counter, namedtuple

ENTRY = struct.Struct("=QII")
WRITE, FLUSH = 1, 2
SECTOR, WHOLE, CHUNK = 512, 4096, 1 << 20
SHARES = (0, 5, 50, 95, 100)           # per cent of the sectors of one write
ALL, EACH, LAST = 100, "each", "last"   # of all writes, drawn for each, all but a part of the last one
MODES = (5, 50, 95, ALL, EACH, EACH, LAST)
# What our files begin with: which of them a log has says what a workload made the broker do.
MAGIC = {b"MRGP": "groups", b"MRWF": "journal files", b"MRSB": "superblocks", b"MRSG": "segments", b"MRPG": "pages"}

# cut: entries that reached the disk before the power went; seed: which sectors of those not flushed survive, None: all.
State = namedtuple("State", "cut seed")


class Log:
    def __init__(self, path):
        with open(path, "rb") as source:
            self.bytes = mmap.mmap(source.fileno(), 0, prot=mmap.PROT_READ)
        self.entries, at = [], 0            # (kind, offset on the disk, bytes, where they stand in the log)
        while at < len(self.bytes):
            offset, length, kind = ENTRY.unpack_from(self.bytes, at)
            at += ENTRY.size
            self.entries.append((kind, offset, length, at))
            at += length
        self.flushes = [n for n, entry in enumerate(self.entries) if entry[0] == FLUSH]

    def flushed(self, cut):
        """How many of the first entries a flush among them made durable."""
        n = bisect.bisect_left(self.flushes, cut)
        return self.flushes[n - 1] + 1 if n else 0

    def apply(self, image, first, last):
        for kind, offset, length, at in self.entries[first:last]:
            if kind == WRITE:
                image[offset:offset + length] = self.bytes[at:at + length]

    def contents(self):
        found = Counter(writes=0, flushes=len(self.flushes), bytes=0)
        for kind, _, length, at in self.entries:
            if kind == WRITE:
                found["writes"] += 1
                found["bytes"] += length
                for block in range(at, at + length, 4096):
                    found[MAGIC.get(self.bytes[block:block + 4])] += 1
        return found


class Disk:
    """Goes through a log from front to back; `states` must come with growing cuts."""

    def __init__(self, first_image, log):
        with open(first_image, "rb") as source:
            self.image = bytearray(source.read())
        self.log, self.at = log, 0

    def write(self, path, state, random):
        """The image of one state; (sectors that were not flushed, those of them that survived)."""
        flushed = self.log.flushed(state.cut)
        self.log.apply(self.image, self.at, flushed)
        self.at = flushed
        with open(path, "wb") as sink:
            sink.truncate(len(self.image))
            view, zeros = memoryview(self.image), bytes(CHUNK)
            for at in range(0, len(view), CHUNK):
                if view[at:at + CHUNK] != zeros:
                    sink.seek(at)
                    sink.write(view[at:at + CHUNK])
            return self.tear(sink, flushed, state, random)

    def tear(self, sink, flushed, state, random):
        """The writes behind the last flush: a share of their sectors is drawn for all of them, or for each."""
        loose = [entry for entry in self.log.entries[flushed:state.cut] if entry[0] == WRITE]
        mode = ALL if state.seed is None else random.choice(MODES)
        sectors = kept = 0
        for number, (_, offset, length, at) in enumerate(loose):
            share = mode
            if mode == EACH:
                share = random.choice(SHARES)
            elif mode == LAST:
                share = 50 if number == len(loose) - 1 else 100
            done = 0
            while done < length:
                # ext4 keeps its own superblock in the first block, in two sectors under one checksum: it never tears
                size = min(length - done, WHOLE - offset - done if offset + done < WHOLE else SECTOR)
                sectors += 1
                if share == 100 or random.random() * 100 < share:
                    kept += 1
                    sink.seek(offset + done)
                    sink.write(self.log.bytes[at + done:at + done + size])
                done += size
        return sectors, kept


def chosen(log, phases, count, random):
    """Half of them exactly at a flush, half behind a write that none has flushed. phases: (entries, what began there): each kind of
    phase has its share, however many flushes it made; a kind with fewer than its share gives all it has."""
    starts = [at for at, _ in phases]
    cuts = {}                               # (kind of phase, exact) -> cuts
    for n, entry in enumerate(log.entries):
        if n >= starts[0]:
            kind = phases[bisect.bisect_right(starts, n) - 1][1], entry[0] == FLUSH
            cuts.setdefault(kind, []).append(n + 1)
    out = []
    for left, (kind, there) in zip(range(len(cuts), 0, -1), sorted(cuts.items(), key=lambda item: len(item[1]))):
        share = (count - len(out)) // left
        if kind[1]:
            out += [State(cut, None) for cut in random.sample(there, min(share, len(there)))]
        else:
            out += [State(random.choice(there), random.getrandbits(62)) for _ in range(min(share, 4 * len(there)))]
    return sorted(out, key=lambda state: state.cut)
