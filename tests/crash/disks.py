"""Disks that lose power: ext4 on a loop device whose writes since the last flush are forgotten, torn, or never left memory.

Everything is mounted in a mount namespace and runs in a process namespace of this program alone (`enter`): whatever ends
it, its processes die with it, its mounts go, and the loop devices, which clear themselves, follow.
"""
import fcntl
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time

from load import brokers

EATMYDATA = ("/usr/lib/%s-linux-gnu/libeatmydata.so" % os.uname().machine, "/usr/lib/libeatmydata.so")
FS_IOC_SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2
INSIDE = "MILLRACE_CRASH_INSIDE"
NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private")
LIMIT = 120             # seconds: a device that takes longer is broken


class Unusable(Exception):
    """This machine cannot do it; the text says what is missing."""


def enter():
    """Runs this program again in namespaces of its own; returns there. Elsewhere, Unusable."""
    if os.environ.get(INSIDE):
        return
    for program in ("unshare", "mount", "umount", "mkfs.ext4", "e2fsck"):
        if not shutil.which(program):
            raise Unusable("%s is not installed" % program)
    if os.geteuid() != 0:
        raise Unusable("mounting needs root")
    probe = subprocess.run([*NAMESPACES, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        raise Unusable("no namespaces: " + probe.stderr.strip())
    os.environ[INSIDE] = "1"
    os.execvp(NAMESPACES[0], [*NAMESPACES, sys.executable, *sys.argv])


def eatmydata():
    for path in EATMYDATA:
        if os.path.exists(path):
            return path
    raise Unusable("libeatmydata is not installed")


def run(*command):
    """A command that must work; its words when it does not."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError("%s: %s" % (" ".join(command[:1]), (done.stderr or done.stdout).strip()))


def started(command, **kw):
    """A process that dies with us."""
    return subprocess.Popen([*brokers.DIE_WITH_US, *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL, **kw)


def end(process):
    if process and process.poll() is None:
        process.kill()
    if process:
        process.wait()


class Shutdown:
    """Loop-mounted ext4 that FS_IOC_SHUTDOWN switches off without flushing its log: buffered writes that were not synced are
    gone. A direct write always survives it, hence the setting."""
    start_deaths, audit_deaths = 0.05, 0.05
    settings = ("journal.direct_io=off",)
    size = 256 << 20

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="millrace-power-")
        self.image, self.mounted = self.folder + "/disk.img", self.folder + "/mnt"
        self.data = self.mounted + "/data"
        self.cut_done = False
        os.mkdir(self.mounted)
        with open(self.image, "wb") as image:
            image.truncate(self.size)
        run("mkfs.ext4", "-qF", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.image)

    def mount(self, device):
        """ext4 replays its log here. Devices are taken by others too, so a second attempt may find a free one."""
        for attempt in range(20):
            try:
                return run("mount", "-o", "loop", device, self.mounted)
            except OSError as error:
                if self.is_dead() or "loop" not in str(error) or attempt == 19:
                    raise
                time.sleep(0.05 * attempt)
        return None

    def up(self, chain):
        self.cut_done = False
        self.mount(self.image)

    def steady(self):
        pass

    def is_dead(self):
        return self.cut_done

    def plug(self, chain, work, target):
        pause = chain.random.random() * 0.01
        since = []

        def ended(load):
            if load.confirmed >= target and not self.cut_done:
                since.append(time.monotonic())
                if since[-1] - since[0] >= pause:
                    self.cut(chain.server)
                    self.cut_done = True
            return self.cut_done and self.settled(since)
        return ended

    def settled(self, since):
        return True

    def cut(self, server):
        """With the broker: an fdatasync of a growing file that is under way when the switch comes may return success for
        what is lost (ext4 finds its aborted log committed), and a broker that lives on would confirm by it. SIGKILL marks
        every thread before it returns, so what the broker said was said before the cut."""
        fd = os.open(self.mounted, os.O_RDONLY)
        try:
            server.process.kill()
            fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def expects_end(self, chain):
        return self.cut_done

    def death(self, chain, work):
        chain.server.gone()

    def unmount(self, at):
        """Not asked first whether it is mounted: a dead device does not even answer that."""
        if subprocess.run(["umount", at], capture_output=True, check=False).returncode:
            subprocess.run(["umount", "-l", at], capture_output=True, check=False)

    def down(self, chain):
        self.unmount(self.mounted)

    def torn(self):
        return None

    def remove(self):
        self.unmount(self.mounted)
        shutil.rmtree(self.folder, ignore_errors=True)


class Forgetful(Shutdown):
    """nbdkit's cache filter under nbdfuse, a loop device and ext4: what was not flushed dies with nbdkit."""
    settings = ()

    def __init__(self):
        for program in ("nbdkit", "nbdfuse"):
            if not shutil.which(program):
                raise Unusable("%s is not installed" % program)
        super().__init__()
        self.server = self.fuse = None
        self.fuse_folder, self.socket, self.ready = self.folder + "/fuse", self.folder + "/socket", self.folder + "/ready"
        self.nbdkit = ["nbdkit", "-f", "-U", self.socket, "-P", self.ready]     # the process id is written when it listens
        os.mkdir(self.fuse_folder)

    def command(self):
        return [*self.nbdkit, "--filter=cache", "file", self.image, "cache=writeback"]

    def wait_for(self, path, process):
        began = time.monotonic()
        while not os.path.exists(path):
            if process.poll() is not None or time.monotonic() - began > LIMIT:
                raise OSError("%s did not come" % os.path.basename(path))
            time.sleep(0.002)       # polled: neither tells when it is ready

    def up(self, chain):
        self.cut_done = False
        for left in (self.socket, self.ready):
            if os.path.exists(left):
                os.unlink(left)
        self.server = started(self.command(), env=dict(os.environ, TMPDIR=self.folder))
        self.wait_for(self.ready, self.server)
        self.fuse = started(["nbdfuse", self.fuse_folder + "/disk", "--unix", self.socket])
        self.wait_for(self.fuse_folder + "/disk", self.fuse)
        self.mount(self.fuse_folder + "/disk")

    def is_dead(self):
        return self.server.poll() is not None

    def cut(self, server):
        end(self.server)

    def settled(self, since):
        """After the cut the load goes on until the broker notices, or shows for a second that it does not."""
        return time.monotonic() - since[0] > 1

    def down(self, chain):
        end(self.server)
        self.unmount(self.mounted)
        end(self.fuse)              # it aborts when its server dies
        self.unmount(self.fuse_folder)

    def remove(self):
        self.down(None)
        super().remove()


class Torn(Forgetful):
    """The same over nbdkit_forget.c, which dies at a chosen write and keeps a seeded part of what was not flushed."""

    def __init__(self, plugin):
        if not os.path.exists(plugin):
            raise Unusable("%s is not built" % plugin)
        self.plugin = plugin
        super().__init__()
        self.control = self.folder + "/control"
        self.set_control(0, 0)

    def set_control(self, writes, seed):
        self.armed = writes > 0
        with open(self.control, "r+b" if os.path.exists(self.control) else "wb") as control:
            control.write(struct.pack("=QQ", writes, seed))

    def is_dead(self):
        """The broker may see the dead disk before we see the dead process, so the count is asked: 0 is the cut."""
        with open(self.control, "rb") as control:
            if self.armed and struct.unpack("=Q", control.read(8))[0] == 0:
                self.server.wait(LIMIT)
        return super().is_dead()

    def command(self):
        return [*self.nbdkit, self.plugin, "file=" + self.image, "control=" + self.control,
                "report=" + self.folder + "/report"]

    def up(self, chain):
        """Now and then the power goes off while the disk is mounted or the broker reads its journal."""
        r = chain.random
        early = chain.cycles and r.random() < 0.25
        self.set_control(r.randrange(1, 40) if early else 0, r.getrandbits(63))
        super().up(chain)

    def steady(self):
        self.set_control(0, 0)
        if self.is_dead():
            raise OSError("the power went off")

    def plug(self, chain, work, target):
        r, since = chain.random, []
        writes, seed = r.randrange(1, 120), r.getrandbits(63)

        def ended(load):
            if load.confirmed >= target and not since:
                self.set_control(writes, seed)
                since.append(0)
            if since and not self.cut_done and self.is_dead():
                self.cut_done = True
                since[0] = time.monotonic()
            return self.cut_done and self.settled(since)
        return ended

    def expects_end(self, chain):
        self.cut_done = self.cut_done or self.is_dead()
        return self.cut_done

    def torn(self):
        """(cuts, sectors not flushed, sectors of them that survived)"""
        try:
            with open(self.folder + "/report") as report:
                rows = [list(map(int, line.split())) for line in report]
        except OSError:
            rows = []
        return len(rows), sum(row[1] for row in rows), sum(row[2] for row in rows)


class Recorded(Forgetful):
    """The same over nbdkit_record.c, which forgets nothing and logs all that it does."""
    size = 96 << 20

    def __init__(self, plugin):
        if not os.path.exists(plugin):
            raise Unusable("%s is not built" % plugin)
        self.plugin = plugin
        super().__init__()
        self.log, self.count, self.first = self.folder + "/log", self.folder + "/count", self.folder + "/first.img"
        shutil.copyfile(self.image, self.first)
        with open(self.count, "wb") as count:
            count.write(bytes(24))

    def command(self):
        return [*self.nbdkit, self.plugin, "file=" + self.image, "log=" + self.log, "count=" + self.count]

    def break_down(self):
        """From here on every flush fails."""
        self.set_failing(1)

    def set_failing(self, value):
        with open(self.count, "r+b") as count:
            count.seek(16)
            count.write(struct.pack("=Q", value))

    def up(self, chain):
        self.set_failing(0)
        super().up(chain)


class Failing(Forgetful):
    """nbdkit's error filter: from a moment on every write fails, and with it the sync of what was written through the page cache."""

    def __init__(self):
        super().__init__()
        self.trigger = self.folder + "/trigger"

    def command(self):
        return [*self.nbdkit, "--filter=error", "file", self.image, "error-pwrite=EIO", "error-pwrite-rate=100%",
                "error-pwrite-file=" + self.trigger]

    def break_down(self):
        with open(self.trigger, "wb"):
            pass

    def up(self, chain):
        if os.path.exists(self.trigger):
            os.unlink(self.trigger)
        super().up(chain)
