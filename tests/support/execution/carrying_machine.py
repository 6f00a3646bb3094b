"""What can hold a bit outside a process: files, open descriptions, kernel objects, other processes.

And what differs from one process to the next by itself, or after much has been left: `OBSERVED`.
"""

from .carrying_holders import Holder, caught, table

FOLDERS = {
    "the folder": "'.'",
    "its path": "h.getcwd()",
    "the folder above": "'..'",
    "/tmp": "'/tmp'",
    "/dev/shm": "'/dev/shm'",
    "/var/tmp": "'/var/tmp'",
    "the folder in /proc": "'/proc/self/cwd'",
    "any writable folder": "next(b for b in __import__('glob').glob('/*') + "
    "__import__('glob').glob('/*/*') if h.access(b, h.W_OK) and h.path.isdir(b) "
    "and b[:5] not in ('/proc', '/sys', '/sys/'))",
}
_FILES = {
    "file": ("h.path.exists(PATH)", "h.close(h.open(PATH, h.O_CREAT))"),
    "folder": ("h.path.isdir(PATH)", "h.mkdir(PATH)"),
    "link": ("h.path.islink(PATH)", "h.symlink('KEY', PATH)"),
    "pipe": ("h.path.exists(PATH)", "h.mkfifo(PATH)"),
    "contents": (
        "h.path.exists(PATH) and h.stat(PATH).st_size == 3",
        "f = h.open(PATH, h.O_CREAT | h.O_WRONLY)\nh.write(f, b'abc')\nh.close(f)",
    ),
    "times": (
        "h.path.exists(PATH) and h.stat(PATH).st_mtime == 77",
        "h.close(h.open(PATH, h.O_CREAT))\nh.utime(PATH, (77, 77))",
    ),
    "unnamed file, linked": (
        "h.path.exists(PATH)",
        "import ctypes\nf = h.open(FOLDER, h.O_TMPFILE | h.O_RDWR)\n"
        "ctypes.CDLL(None).linkat(-100, b'/proc/self/fd/%d' % f, -100, h.fsencode(PATH), 0x400)",
    ),
    "listing": (
        "'KEY' in h.listdir(FOLDER)",
        "h.close(h.open(PATH, h.O_CREAT | h.O_EXCL))",
    ),
}


def _files() -> dict[str, Holder]:
    found = {}
    for where, folder in FOLDERS.items():
        for what, texts in _FILES.items():
            look, leave = (
                text.replace("PATH", f"({folder} + '/KEY')").replace("FOLDER", folder)
                for text in texts
            )
            found[f"{what} in {where}"] = Holder("os", look, leave, True)
    return found


_OF_THE_FOLDER = {
    "mode": ("os", "h.stat('.').st_mode & 0o777 == 0o751", "h.chmod('.', 0o751)"),
    "times": ("os", "h.stat('.').st_mtime == 77", "h.utime('.', (77, 77))"),
    "attribute": ("os", "'user.KEY' in h.listxattr('.')", "h.setxattr('.', 'user.KEY', b'1')"),
    "links": ("os", "h.stat('.').st_nlink > 2", "h.mkdir('KEY')"),
    "name": (
        "os",
        "h.getcwd().endswith('KEY')",
        "h.rename(h.getcwd(), h.getcwd() + 'KEY')",
    ),
    "neighbours": (
        "os",
        "any('KEY' in files for _, _, files in h.walk(h.path.dirname(h.getcwd())))",
        "h.close(h.open('KEY', h.O_CREAT))",
    ),
    "size": ("os", "h.stat('.').st_size > 4200", "for i in range(400): h.mkdir('KEY%d' % i)"),
    "free inodes": (
        "os",
        "f = h.statvfs('.')\nn = int(f.f_files - f.f_ffree > 99)",
        "for i in range(100): h.close(h.open('KEY%d' % i, h.O_CREAT))",
    ),
    "free blocks": (
        "os",
        "f = h.statvfs('.')\nn = int(f.f_blocks - f.f_bfree > 250)",
        "f = h.open('KEY', h.O_CREAT | h.O_WRONLY)\nh.write(f, bytes(2 << 20))",
    ),
    "hint": (
        "fcntl",
        "import os\nf = os.open('.', 0)\nn = h.fcntl(f, 1035, bytes(8))[0] == 2",
        "import os\nh.fcntl(os.open('.', 0), 1036, bytes([2, 0, 0, 0, 0, 0, 0, 0]))",
    ),
    "flags": (
        "fcntl",
        "import os\nf = os.open('.', 0)\nn = h.ioctl(f, 0x80086601, bytes(8))[0] & 64 == 64",
        "import os\nh.ioctl(os.open('.', 0), 0x40086602, bytes([64, 0, 0, 0, 0, 0, 0, 0]))",
    ),
    "numbers of inodes": (
        "os",
        "f = h.open('KEY', h.O_CREAT)\nn = int(h.fstat(f).st_ino % 64 == 1)\nh.unlink('KEY')",
        "while 1:\n    f = h.open('KEY', h.O_CREAT)\n    n = h.fstat(f).st_ino\n    h.close(f)\n"
        "    h.unlink('KEY')\n    if n % 64 == 0: break",
    ),
}

_DESCRIPTIONS = {
    "position of input": ("os", "h.lseek(0, 0, 1) == 77", "h.lseek(0, 77, 0)"),
    "size of input": ("os", "h.fstat(0).st_size == 77", "h.ftruncate(0, 77)"),
    "text of input": ("os", "h.pread(0, 3, 0) == b'abc'", "h.pwrite(0, b'abc', 0)"),
    "size of output": ("os", "h.fstat(1).st_size > 0", "h.write(1, b'')"),
    "position of output": ("os", "h.lseek(1, 0, 1) > 0", "h.write(1, b'')"),
    "text of output": (
        "os",
        "n = 0\ntry: n = h.pread(1, 1, 0) != b''\nexcept OSError: "
        "n = h.pread(h.open('/proc/self/fd/1', 0), 1, 0) != b''",
        "h.write(1, b'')",
    ),
    "size of errors": ("os", "h.fstat(2).st_size > 0", "h.write(2, b'x')"),
    "position of errors": ("os", "h.lseek(2, 0, 1) > 0", "h.write(2, b'x')"),
    "mode of input": ("os", "h.fstat(0).st_mode & 0o777 == 0o751", "h.fchmod(0, 0o751)"),
    "mode of errors": ("os", "h.fstat(2).st_mode & 0o777 == 0o751", "h.fchmod(2, 0o751)"),
    "times of input": ("os", "h.fstat(0).st_mtime == 77", "h.utime(0, (77, 77))"),
    "attribute of input": ("os", "'user.KEY' in h.listxattr(0)", "h.setxattr(0, 'user.KEY', b'')"),
    "lock of input": (
        "fcntl",
        "f = open('/proc/self/fd/0')\n" + caught("OSError", "h.flock(f, 6); h.flock(f, 8)", 1),
        "h.flock(0, 2)",
    ),
    "signal of input": ("fcntl", "h.fcntl(0, 11) == 12", "h.fcntl(0, 10, 12)"),
    "owner of input": ("fcntl", "h.fcntl(0, 9) != 0", "import os\nh.fcntl(0, 8, os.getpid())"),
    "hint of input": (
        "fcntl",
        "h.fcntl(0, 1035, bytes(8))[0] == 2",
        "h.fcntl(0, 1036, bytes([2, 0, 0, 0, 0, 0, 0, 0]))",
    ),
    "flag of input in /proc": (
        "fcntl",
        "n = int(open('/proc/self/fdinfo/0').read().split('flags:')[1].split()[0], 8) >> 11 & 1",
        "h.fcntl(0, 4, 0o4000)",
    ),
} | {
    f"{flag} of {name}": (
        "fcntl",
        f"h.fcntl({fd}, 3) & {value} == {value}",
        f"h.fcntl({fd}, 4, h.fcntl({fd}, 3) | {value})",
    )
    for fd, name in enumerate(("input", "output", "errors"))
    for flag, value in (("O_APPEND", 0o2000), ("O_NONBLOCK", 0o4000), ("O_NOATIME", 0o1000000))
}

_KERNEL = {
    "numbers of processes": (
        "os",
        "p = h.fork()\nif not p: h._exit(0)\nh.waitpid(p, 0)\nn = int(0 < (p - 33) % 64 < 4)",
        "while 1:\n    p = h.fork()\n    if not p: h._exit(0)\n    h.waitpid(p, 0)\n"
        "    if p % 64 == 33: break",
    ),
    "own number": (
        "os",
        "n = int(h.getpid() % 64 == 34)",
        "while 1:\n    p = h.fork()\n    if not p: h._exit(0)\n    h.waitpid(p, 0)\n"
        "    if p % 64 == 33: break",
    ),
    "name of the host": ("socket", "h.gethostname() == 'KEY'", "h.sethostname('KEY')"),
    "named semaphore": (
        "_multiprocessing",
        caught("OSError", "h.SemLock._rebuild(-1, 1, 1, '/KEY')"),
        "h.SemLock(1, 0, 1, '/KEY', False)",
    ),
    "named memory": (
        "_posixshmem",
        caught("OSError", "h.shm_open('/KEY', 2, mode=0o600)"),
        "import os\nh.shm_open('/KEY', os.O_CREAT | 2, mode=0o600)",
    ),
    "memory segment": (
        "ctypes",
        "h.CDLL(None).shmget(NUMBER, 0, 0) != -1",
        "h.CDLL(None).shmget(NUMBER, 4096, 0o1600)",
    ),
    "semaphores": (
        "ctypes",
        "h.CDLL(None).semget(NUMBER, 0, 0) != -1",
        "h.CDLL(None).semget(NUMBER, 1, 0o1600)",
    ),
    "messages": (
        "ctypes",
        "h.CDLL(None).msgget(NUMBER, 0) != -1",
        "h.CDLL(None).msgget(NUMBER, 0o1600)",
    ),
    "named messages": (
        "ctypes",
        "h.CDLL(None).mq_open(b'/KEY', 0) != -1",
        "h.CDLL(None).mq_open(b'/KEY', 0o100, 0o600, None)",
    ),
}

# A process that stays for two seconds, deaf to every signal, with what it does first and then.
_DAEMON = """
import fcntl, os, signal, socket, time
out, into = os.pipe()
first = os.getpid()
p = os.fork()
if not p:
    os.close(out)
    if os.fork(): os._exit(0)
    try:
        os.setsid()
        for s in {{*range(1, 32)}} - {{9, 19}}: signal.signal(s, signal.SIG_IGN)
        {0}
        os.write(into, b'x')
        end = time.monotonic() + 2
        while time.monotonic() < end:
            {1}
            time.sleep(0.005)
    finally: os._exit(0)
os.close(into)
os.waitpid(p, 0)
os.read(out, 1)
os.close(out)
"""
_EACH = (
    "n = 0\nfor p in [*range(1, 99), *range(max(99, h.getpid() - 50), h.getpid() + 50)]:\n"
    "    try: n |= {}\n    except OSError: pass"
)
_DAEMONS = {
    "its lock": (
        "fcntl",
        "import os\nf = os.open('.', 0)\n" + caught("OSError", "h.flock(f, 6); h.flock(f, 8)", 1),
        _DAEMON.format("f = os.open('.', 0); fcntl.flock(f, 6)", "pass"),
    ),
    "its socket": (
        "socket",
        "s = h.socket(h.AF_UNIX)\n" + caught("OSError", "s.connect('\\0KEY')"),
        _DAEMON.format("s = socket.socket(1); s.bind('\\0KEY'); s.listen()", "pass"),
    ),
    "its priority": (
        "os",
        _EACH.format("h.getpriority(0, p) == 11"),
        _DAEMON.format("os.setpriority(0, 0, 11)", "pass"),
    ),
    "its name in /proc": (
        "os",
        _EACH.format("open(f'/proc/{p}/comm').read().strip() == 'KEY'"),
        _DAEMON.format("f = open('/proc/self/comm', 'w'); f.write('KEY'); f.close()", "pass"),
    ),
    "its scheduler": (
        "os",
        _EACH.format("h.sched_getscheduler(p) == h.SCHED_IDLE"),
        _DAEMON.format("os.sched_setscheduler(0, 5, os.sched_param(0))", "pass"),
    ),
    "its file": (
        "os",
        "import time\ntime.sleep(0.05)\nn = h.path.exists('KEY')",
        _DAEMON.format("time.sleep(0)", "os.close(os.open('KEY', os.O_CREAT))"),
    ),
    "its open file": (
        "os",
        _EACH.format("h.readlink(f'/proc/{p}/fd/42').endswith('KEY')"),
        _DAEMON.format("os.dup2(os.open('KEY', os.O_CREAT), 42)", "pass"),
    ),
    "its answer on a pipe": (
        "os",
        "n = 0\ntry:\n    f = h.open('KEY', h.O_RDONLY | h.O_NONBLOCK)\n"
        "    import time\n    time.sleep(0.05)\n    n = h.read(f, 1) == b'x'\n"
        "except OSError: pass",
        "import os\nif not os.path.exists('KEY'): os.mkfifo('KEY')\n"
        + _DAEMON.format(
            "time.sleep(0)",
            "f = os.open('KEY', os.O_RDWR | os.O_NONBLOCK); os.write(f, b'x')",
        ),
    ),
}
# These reach a later process under the number of the first: where it is one process, or numbers
# start anew.
_BY_NUMBER = {
    "its signal": (
        "signal",
        "got = []\nh.signal(h.SIGUSR1, lambda *_: got.append(1))\nimport time\ntime.sleep(0.05)\n"
        "n = len(got[:1])",
        _DAEMON.format("time.sleep(0)", "os.kill(first, signal.SIGUSR1)"),
    ),
    "its hand on the output": (
        "time",
        "h.sleep(0.05)\nn = 0",
        _DAEMON.format(
            "time.sleep(0.01)",
            "f = os.open(f'/proc/{first}/fd/1', os.O_WRONLY | os.O_APPEND); "
            "os.write(f, b'1'); os.close(f)",
        ),
    ),
    "its limit": (
        "resource",
        "import time\ntime.sleep(0.05)\nn = h.getrlimit(h.RLIMIT_NOFILE)[0] == 48",
        "import os, resource\n"
        + _DAEMON.format(
            "time.sleep(0)",
            "resource.prlimit(first, resource.RLIMIT_NOFILE, "
            "(48, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))",
        ),
    ),
}


def _outside() -> dict[str, Holder]:
    named = {f"{what} of the folder": row for what, row in _OF_THE_FOLDER.items()}
    named |= _DESCRIPTIONS | _KERNEL
    named |= {f"another process, {what}": row for what, row in (_DAEMONS | _BY_NUMBER).items()}
    return table(named, outlives=True)


OUTSIDE = _files() | _outside()

# What a program shows of itself, and much that an earlier one can have left.
_LITTER = (
    "os.close(os.open('KEY', os.O_CREAT))",
    "os.mkdir('KEY.d')",
    "os.fork() or os._exit(0)",
    "os.wait()",
    "os.write(0, b'x')",
    "os.write(2, b'x')",
    "os.environ.update(KEY='1')",
    "os.dup2(0, 41)",
    "os.umask(0o123)",
    "os.KEY = os",
    "__import__('colorsys')",
    "signal.signal(42, signal.SIG_IGN)",
    "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))",
)
LITTER = "import os, resource, signal\n" + "".join(
    f"try: {line}\nexcept OSError: pass\n" for line in _LITTER
)
_READ = "open('{}').read()"
OBSERVED = {
    name: Holder("os", f"n = {expression}", LITTER, True)
    for name, expression in {
        "number": "h.getpid()",
        "group": "h.getpgid(0)",
        "session": "h.getsid(0)",
        "number of a thread": "__import__('threading').get_native_id()",
        "link in /proc": "h.readlink('/proc/self')",
        "folder": "[*h.stat('.')[:2], *h.stat('.')[3:7]]",  # without the file system's number
        "listing": "h.listdir('.')",
        "space": "h.statvfs('.')",
        "input": "[*h.fstat(0)[:1], *h.fstat(0)[2:7]]",
        "output": "[*h.fstat(1)[:1], *h.fstat(1)[2:7]]",
        "errors": "[*h.fstat(2)[:1], *h.fstat(2)[2:7]]",
        "descriptors": "sorted(h.listdir('/proc/self/fd'))",
        "input in /proc": "open('/proc/self/fdinfo/0').read().split('ino:')[0]",
        "listing of /proc": "[x for x in h.listdir('/proc') if x.isdigit()]",
        "usage of children": "open(f'/proc/{h.getppid()}/stat').read().split()[8:13]",
        "environment": "dict(h.environ)",
        "modules": "sorted(__import__('sys').modules)",
        "limits": _READ.format("/proc/self/limits"),
        "signals": "[l for l in open('/proc/self/status') if l.startswith('Sig')]",
        "umask": "[l for l in open('/proc/self/status') if l.startswith('Umask')]",
        "objects": "len(__import__('gc').get_objects())",
        "maps": "[l.split()[0] for l in open('/proc/self/maps')]",
        "next descriptor": "h.dup(0)",
        "count of the collector": "__import__('gc').get_count()",
        "work of the collector": "__import__('gc').get_stats()",
        "allocated blocks": "__import__('sys').getallocatedblocks()",
        "references": "[__import__('sys').getrefcount(x) for x in (0, 1, '', (), h)]",
        "frames": "f = __import__('sys')._getframe(); n = []\nwhile f: n += sorted(x for x in "
        "f.f_locals.values() if type(x) is int); f = f.f_back",
        "randomness": "__import__('random').random()",
        "last number": _READ.format("/proc/sys/kernel/ns_last_pid"),
        "open files of all": _READ.format("/proc/sys/fs/file-nr"),
        "inodes of all": _READ.format("/proc/sys/fs/inode-nr"),
        "forks of all": "[l for l in open('/proc/stat') if l.startswith('processes')]",
    }.items()
}
