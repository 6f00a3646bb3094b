"""What the kernel keeps for a process that can hold a bit: limits, masks, numbers, descriptors."""

from .carrying_holders import caught, table

_STATUS = "n = [l.split()[1] for l in h.open('/proc/self/status') if l.startswith('{}:')][0]\n"
PROCESS = table(
    {
        "umask": ("os", "n = h.umask(0)\nh.umask(n)\nn = int(n == 0o123)", "h.umask(0o123)"),
        "priority": ("os", "h.getpriority(0, 0) == 7", "h.setpriority(0, 0, 7)"),
        "niceness": ("os", "h.nice(0) == 9", "h.nice(9 - h.nice(0))"),
        "scheduler": (
            "os",
            "h.sched_getscheduler(0) == h.SCHED_BATCH",
            "h.sched_setscheduler(0, h.SCHED_BATCH, h.sched_param(0))",
        ),
        "current folder": ("os", "h.getcwd() == '/'", "h.chdir('/')"),
        "process group": ("os", "h.getpgid(0) != h.getsid(0)", "h.setpgid(0, 0)"),
        "slack of timers": (
            "ctypes",
            "h.CDLL(None).prctl(30, 0, 0, 0, 0) == 77777",
            "h.CDLL(None).prctl(29, 77777, 0, 0, 0)",
        ),
        "kept capabilities": (
            "ctypes",
            "h.CDLL(None).prctl(7, 0, 0, 0, 0) == 1",
            "h.CDLL(None).prctl(8, 1, 0, 0, 0)",
        ),
        "huge pages": (
            "ctypes",
            "h.CDLL(None).prctl(42, 0, 0, 0, 0) == 1",
            "h.CDLL(None).prctl(41, 1, 0, 0, 0)",
        ),
        "signal of the parent's end": (
            "ctypes",
            "b = h.c_int()\nh.CDLL(None).prctl(2, h.byref(b), 0, 0, 0)\nn = int(b.value == 10)",
            "h.CDLL(None).prctl(1, 10, 0, 0, 0)",
        ),
        "personality": (
            "ctypes",
            "h.CDLL(None).personality(0xffffffff) == 0x40000",
            "h.CDLL(None).personality(0x40000)",
        ),
        "name in /proc": (
            "builtins",
            "h.open('/proc/self/comm').read().strip() == 'KEY'",
            "with h.open('/proc/self/comm', 'w') as f: f.write('KEY')",
        ),
        "score in /proc": (
            "builtins",
            "h.open('/proc/self/oom_score_adj').read() == '777\\n'",
            "with h.open('/proc/self/oom_score_adj', 'w') as f: f.write('777')",
        ),
        "core filter in /proc": (
            "builtins",
            "int(h.open('/proc/self/coredump_filter').read(), 16) == 17",
            "with h.open('/proc/self/coredump_filter', 'w') as f: f.write('17')",
        ),
        "slack in /proc": (
            "builtins",
            "h.open('/proc/self/timerslack_ns').read() == '77778\\n'",
            "with h.open('/proc/self/timerslack_ns', 'w') as f: f.write('77778')",
        ),
        "group in /proc": (
            "builtins",
            "'nice 7' in h.open('/proc/self/autogroup').read()",
            "with h.open('/proc/self/autogroup', 'w') as f: f.write('7')",
        ),
        "mask in /proc": (
            "builtins",
            _STATUS.format("SigBlk") + "n = int(n, 16) >> 39 & 1",
            "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [40])",
        ),
        "ignored signals in /proc": (
            "builtins",
            _STATUS.format("SigIgn") + "n = int(n, 16) >> 40 & 1",
            "import signal\nsignal.signal(41, signal.SIG_IGN)",
        ),
        "most memory": (
            "resource",
            "h.getrusage(h.RUSAGE_SELF).ru_maxrss > 90 << 10",
            "b'x' * (100 << 20)",
        ),
        "most memory of a child": (
            "resource",
            "h.getrusage(h.RUSAGE_CHILDREN).ru_maxrss > 90 << 10",
            "import os\np = os.fork()\nif not p:\n    b'x' * (100 << 20)\n    os._exit(0)\n"
            "os.waitpid(p, 0)",
        ),
        "open descriptor": ("os", caught("OSError", "h.fstat(37)"), "h.dup2(0, 37)"),
        "descriptor in /proc": ("os", "'38' in h.listdir('/proc/self/fd')", "h.dup2(0, 38)"),
        "closed descriptor": ("os", caught("OSError", "h.fstat(2)", 1), "h.close(2)"),
        "full pipe": (
            "os",
            caught("OSError", "h.read(39, 1)"),
            "r, w = h.pipe()\nh.write(w, b'xx')\nh.dup2(r, 39)\nh.dup2(w, 40)",
        ),
        "inherited flag": ("os", "h.get_inheritable(2) == 0", "h.set_inheritable(2, False)"),
    }
    | {
        f"limit {name}": (
            "resource",
            f"h.getrlimit(h.RLIMIT_{name})[0] == {value}",
            f"h.setrlimit(h.RLIMIT_{name}, ({value}, h.getrlimit(h.RLIMIT_{name})[1]))",
        )
        for name, value in {
            "NOFILE": 49,
            "FSIZE": 4321000,
            "STACK": 4321 << 10,
            "MEMLOCK": 4096,
            "SIGPENDING": 99,
            "MSGQUEUE": 4321,
            "RTTIME": 4321,
            "CPU": 99,
            "NPROC": 60,
        }.items()
    }
)

# The same of the process that every test is forked from: set there, they are inherited.
_PROC_OF_PARENT = {
    "score of the parent in /proc": ("oom_score_adj", "778", "f.read() == '778\\n'"),
    "core filter of the parent in /proc": ("coredump_filter", "18", "int(f.read(), 16) == 18"),
}
PARENT = table(
    {
        "priority of the parent": (
            "os",
            "h.getpriority(0, 0) == 6",
            "h.setpriority(0, h.getppid(), 6)",
        ),
        "scheduler of the parent": (
            "os",
            "h.sched_getscheduler(0) == h.SCHED_BATCH",
            "h.sched_setscheduler(h.getppid(), h.SCHED_BATCH, h.sched_param(0))",
        ),
        "limit of the parent": (
            "resource",
            "h.getrlimit(h.RLIMIT_NOFILE)[0] == 47",
            "import os\nh.prlimit(os.getppid(), h.RLIMIT_NOFILE, "
            "(47, h.getrlimit(h.RLIMIT_NOFILE)[1]))",
        ),
        "memory of the parent in /proc": (
            "ctypes",
            "h.c_ubyte.from_address(id(b'\\xfd') + 33).value == 1",
            "import os\nwith open(f'/proc/{os.getppid()}/mem', 'r+b', 0) as f:\n"
            "    f.seek(id(b'\\xfd') + 33)\n    f.write(b'\\1')",
        ),
        "memory of the parent": (
            "ctypes",
            "h.c_ubyte.from_address(id(b'\\xfc') + 33).value == 1",
            "import os\na = h.create_string_buffer(b'\\1', 1)\nV = h.c_size_t * 2\n"
            "h.CDLL(None).process_vm_writev(os.getppid(), V(h.addressof(a), 1), "
            "h.c_ulong(1), V(id(b'\\xfc') + 33, 1), h.c_ulong(1), h.c_ulong(0))",
        ),
        "memory shared with the parent": (
            "ctypes",
            "import re\nn = 0\nfor line in open('/proc/self/maps'):\n    if ' rw-s ' in line:\n"
            "        last = int(re.split('[- ]', line)[1], 16) - 1\n"
            "        n |= h.c_ubyte.from_address(last).value == 0x77",
            "import re\nfor line in open('/proc/self/maps'):\n    if ' rw-s ' in line:\n"
            "        last = int(re.split('[- ]', line)[1], 16) - 1\n"
            "        h.c_ubyte.from_address(last).value = 0x77",
        ),
        "descriptors of the parent": (
            "fcntl",
            "n = 0\nfor fd in range(3, 256):\n    try: n |= h.fcntl(fd, 3) & 0o2000\n"
            "    except OSError: pass",
            "for fd in range(3, 256):\n    try: h.fcntl(fd, 4, h.fcntl(fd, 3) | 0o2000)\n"
            "    except OSError: pass",
        ),
        "positions of the parent's files": (
            "os",
            "n = 0\nfor fd in range(3, 256):\n    try: n |= h.lseek(fd, 0, 1) == 0x77777\n"
            "    except OSError: pass",
            "for fd in range(3, 256):\n    try: h.lseek(fd, 0x77777, 0)\n    except OSError: pass",
        ),
    }
    | {
        name: (
            "os",
            f"f = open('/proc/self/{file}')\nn = {test}",
            f"with open(f'/proc/{{h.getppid()}}/{file}', 'w') as f: f.write('{value}')",
        )
        for name, (file, value, test) in _PROC_OF_PARENT.items()
    },
    outlives=True,
)
