"""Attacks on this judge that do harm on their way, or will not end."""

from rlif_jax.problem import Verdict
from support.execution.own_attacks import (
    BADLY,
    CRASHED,
    ECHO,
    MEMORY,
    OUTPUT,
    PASSED,
    SECRET,
    SLOW,
    Attack,
)


def _harm(what: str, code: str, verdicts: set[Verdict] = {PASSED}) -> Attack:  # noqa: B006
    """A program that does harm before it gives the right answer."""
    return Attack(what, ECHO, verdicts, f"import os, signal, sys, time\n{code}\nprint(input())")


def _late(what: str, code: str) -> Attack:
    """A program that does not end once it has answered."""
    answer = "import os, sys, time\nprint(input(), flush=True)\n"
    return Attack(what, ECHO, {SLOW}, answer + code)


HARM = {
    "closed_folder": _harm("a folder that its owner cannot enter", "os.chmod('.', 0)"),
    "strange_names": _harm(
        "names that are no text, pipes, loops of links, sockets",
        "import socket\nfor name in (b'\\n\\r\\x1b[2J', b'\\xff' * 255, b'-rf', b' ', b'\"'):\n"
        "    os.mkdir(name)\n    os.mkfifo(name + b'/p')\n    os.symlink(b'..', name + b'/up')\n"
        "    os.chmod(name, 0)\n"
        "os.symlink('loop', 'loop')\nos.symlink('/', 'root')\nos.symlink('/proc/1', 'one')\n"
        "try: socket.socketpair()[0].bind('socket')\nexcept OSError: pass\n"
        "try: os.mknod('device', 0o60600, os.makedev(8, 0))\nexcept OSError: pass\n"
        "try: os.link(os.__file__, 'library')\nexcept OSError: pass",
    ),
    "deep_and_closed": _harm(
        "folders 600 deep that cannot be entered",
        "top = os.open('.', os.O_RDONLY)\ndeep = []\nfor _ in range(600):\n"
        "    os.mkdir('n'); os.chdir('n'); deep.append(os.getcwd() if len(deep) < 200 else '')\n"
        "os.fchdir(top)\nfor path in filter(None, reversed(deep)): os.chmod(path, 0)",
    ),
    "full_disk": _harm(
        "no room for whoever comes after",
        "try:\n    with open('big', 'wb') as big:\n"
        "        for _ in range(63): big.write(bytes(1 << 20))\nexcept OSError: pass\n"
        "try:\n    for n in range(8300): os.close(os.open(str(n), os.O_CREAT))\n"
        "except OSError: pass",
        {PASSED, SLOW},
    ),
    "own_limits": _harm(
        "limits that a supervisor could not live under",
        "import resource as r\nsys.stdout.flush()\n"
        "for kind in (r.RLIMIT_NPROC, r.RLIMIT_NOFILE, r.RLIMIT_FSIZE, r.RLIMIT_AS):\n"
        "    r.setrlimit(kind, (0, 0))",
        {PASSED, CRASHED, MEMORY},
    ),
    "no_time_left": _harm(
        "a limit that kills it in the limit's name",
        "import resource as r\nr.setrlimit(r.RLIMIT_CPU, (0, 0))\nwhile True: pass",
        {CRASHED, SLOW},
    ),
    "kills_itself": _harm(
        "to look as if the machine were short of memory", "os.kill(0, 9)", {CRASHED}
    ),
    "nameless_signal": _harm(
        "an end by a signal that has no name", "os.kill(os.getpid(), 40)", {CRASHED}
    ),
    "kills_everybody": _harm("every process in sight", "os.kill(-1, 9)", {PASSED, CRASHED}),
    "signals_to_the_first": _harm(
        "all signals to the first process and the parent",
        "for s in signal.Signals:\n    for pid in {1, os.getppid()} - {os.getpid()}:\n"
        "        try: os.kill(pid, s)\n        except OSError: pass",
    ),
    "parent_in_proc": _harm(
        "the supervisor's files in /proc",
        "for pid in (1, os.getppid()):\n    for name in ('mem', 'oom_score_adj', 'comm', 'sched',"
        " 'autogroup', 'clear_refs', 'coredump_filter', 'timerslack_ns', 'fd/3', 'attr/current'):\n"
        "        try: open(f'/proc/{pid}/{name}', 'r+b', 0).write(b'1'); bad = 1 / 0\n"
        "        except OSError: pass",
    ),
    "kernel_settings": _harm(
        "the kernel's settings",
        "for name in ('kernel/core_pattern', 'kernel/hostname', 'vm/drop_caches', 'fs/file-max',"
        " 'kernel/pid_max', 'kernel/ns_last_pid', 'user/max_pid_namespaces'):\n"
        "    try: open(f'/proc/sys/{name}', 'r+b', 0).write(b'1'); bad = 1 / 0\n"
        "    except OSError: pass",
    ),
    "seals": _harm(
        "files of the judge sealed, cut and stretched",
        "import fcntl\nfor fd in (0, 1, 2):\n    for seals in (1, 2, 4, 8, 16):\n"
        "        try: fcntl.fcntl(fd, 1033, seals)\n        except OSError: pass\n"
        "os.ftruncate(2, 60 << 20); os.lseek(2, 1 << 25, 0); os.write(2, b'end')",
    ),
    "stretched_output": _harm(
        "output of which most is a hole", "os.lseek(1, 60 << 20, 0); os.write(1, b'x')", {OUTPUT}
    ),
    "cut_input": _harm(
        "an input that is gone for the next run",
        "line = input()\nos.ftruncate(0, 0); os.pwrite(0, b'9', 0)\ninput = lambda: line",
    ),
    "late_output": _harm(
        "output after its end, by a process that stays behind",
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(0.7)\n"
        "        for _ in range(1000): os.write(1, b'late' * 1000)\n    os._exit(0)",
    ),
    "siblings": _harm(
        "children of the supervisor instead of its own",
        "import ctypes, platform\nnumber = {'x86_64': 56, 'aarch64': 220}[platform.machine()]\n"
        "clone = ctypes.CDLL(None).syscall\nfor _ in range(10):\n"
        "    if clone(number, 0x8000 | 17, 0, 0, 0, 0) == 0:\n"
        "        time.sleep(20); os._exit(0)",
    ),
    "misleading_names": _harm(
        "more processes than it may have, named so as to hide in a list",
        "import ctypes\nctypes.CDLL(None).prctl(15, b') Z 1 1 (\\n', 0, 0, 0)\n"
        "for _ in range(200):\n    if os.fork() == 0: time.sleep(20); os._exit(0)\n"
        "time.sleep(10)",
        {CRASHED, MEMORY},  # each could hold sockets, which count as memory
    ),
    "threads": _harm(
        "as many threads as there can be",
        "import threading\nwait = threading.Event()\ntry:\n    for _ in range(250):\n"
        "        threading.Thread(target=wait.wait, daemon=True).start()\n"
        "except (RuntimeError, MemoryError): pass",
        {PASSED, CRASHED, MEMORY},
    ),
    "watchers": _harm(
        "all watchers, counters, timers and pipes of the user",
        "import ctypes, select\nlibc = ctypes.CDLL(None)\n"
        "for make in (lambda: libc.inotify_init1(0), lambda: os.eventfd(0), select.epoll,"
        " lambda: libc.timerfd_create(1, 0), os.pipe, os.openpty):\n    kept = []\n    try:\n"
        "        for _ in range(300): kept.append(make())\n    except OSError: pass\n"
        "    os.closerange(3, 200)\n"
        "watch = libc.inotify_init1(0)\n"
        "for n in range(2000):\n    os.mkdir(str(n))\n"
        "    libc.inotify_add_watch(watch, str(n).encode(), 4095)",
        {PASSED, SLOW},
    ),
    "full_sockets": _harm(
        "memory of the kernel, in as many sockets as there can be, which nobody reads",
        "import socket\nkept = []\ntry:\n    while True: kept.append(socket.socketpair())\n"
        "except OSError: pass\nassert len(kept) > 29\n"
        "for pair in kept:\n    for end in pair:\n        end.setblocking(False)\n"
        "        try:\n            while end.send(bytes(1 << 16)): pass\n"
        "        except OSError: pass",
    ),
    "hidden_descriptors": _harm(
        "descriptors that travel in sockets when their process ends",
        "import socket\na, b = socket.socketpair()\ntry:\n    for _ in range(60):\n"
        "        c, d = socket.socketpair()\n"
        "        socket.send_fds(a, [b'x'], [c.fileno(), d.fileno(), a.fileno(), b.fileno()])\n"
        "except OSError: pass",
    ),
    "subreaper": _harm(
        "a nursery for orphans of its own",
        "import ctypes\nctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n"
        "for _ in range(20):\n    if os.fork() == 0:\n        if os.fork() == 0: time.sleep(20)\n"
        "        os._exit(0)",
    ),
    "own_filter": _harm(
        "a filter of its own that lets no system call through",
        "import ctypes, struct\nkill = ctypes.create_string_buffer(\n"
        "    struct.pack('HBBI', 6, 0, 0, 0x80000000), 8)\n"
        "header = struct.pack('HxxxxxxQ', 1, ctypes.addressof(kill))\n"
        "ctypes.CDLL(None).prctl(22, 2, header, 0, 0)",
        {CRASHED},
    ),
    "core_dump": _harm(
        "a core dump",
        "import resource as r\ntry: r.setrlimit(r.RLIMIT_CORE, (-1, -1))\n"
        "except (OSError, ValueError): pass\nos.abort()",
        {CRASHED},
    ),
    "out_of_memory_first": _harm(
        "to be chosen last, or first, when memory runs out",
        "for value in (b'-1000', b'1000'):\n"
        "    try: open('/proc/self/oom_score_adj', 'wb', 0).write(value)\n"
        "    except OSError: pass",
    ),
    "unfit_output": _harm(
        "a standard output that cannot be flushed",
        "class Out:\n    closed = False\n    def write(self, text): os.write(1, text.encode())\n"
        "    def flush(self): raise SystemExit(0)\nsys.stdout = Out()",
        {CRASHED},
    ),
    "poisoned_modules": _harm(
        "modules that the end of a program uses",
        "import atexit, gc\nclass Threading:\n    def _shutdown(self): raise KeyboardInterrupt\n"
        "sys.modules['threading'] = Threading()\ngc.get_objects = gc.collect = None\n"
        "atexit._run_exitfuncs = None",
        {PASSED, CRASHED},
    ),
    "raising_ends": _harm(
        "exceptions wherever nobody expects one",
        "import atexit, weakref\nclass A:\n    def __del__(self): raise SystemExit(3)\na = A()\n"
        "atexit.register(lambda: 1 / 0)\natexit.register(sys.exit, 4)\n"
        "class B: pass\nb = B()\nweakref.finalize(b, exec, 'raise KeyboardInterrupt')",
    ),
    "stopped_group": _harm("a pause from which nobody wakes it", "os.killpg(0, 19)", {SLOW}),
    "stopped_by_a_child": _harm(
        "the same, again and again, by a child",
        "if os.fork() == 0:\n    while os.getppid() != 1:\n        os.kill(os.getppid(), 19)\n"
        "        time.sleep(0.01)\n    os._exit(0)\ntime.sleep(0.5)",
        {SLOW},
    ),
    "headless": _late(
        "a process whose first thread has ended",
        "import ctypes, platform, threading\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "ctypes.CDLL(None).syscall({'x86_64': 60, 'aarch64': 93}[platform.machine()], 0)",
    ),
    "exit_function": _late(
        "time without end in an exit function",
        "import atexit\n@atexit.register\ndef hang():\n    while True: pass",
    ),
    "finalizer": _late(
        "time without end in a finalizer",
        "class A:\n    def __del__(self):\n        while True: pass\na = A()\na.a = a",
    ),
    "generator_end": _late(
        "time without end in a generator that is dropped",
        "def g():\n    try: yield\n    finally:\n        while True: pass\nit = g()\nnext(it)",
    ),
    "collector": _late(
        "time without end when garbage is collected, as it is at the end of one with finalizers",
        "import gc, weakref\ngc.callbacks.append(lambda *a: time.sleep(60))",
    ),
    "children_work": _late(
        "CPU time in children that it waits for",
        "for _ in range(3):\n    if os.fork() == 0:\n"
        "        while time.process_time() < 0.4: pass\n        os._exit(0)\n"
        "for _ in range(3): os.wait()",
    ),
    "hook": Attack(
        "a crash that its own hook hides",
        SECRET,
        BADLY,
        "import os, sys\nsys.excepthook = lambda *a: os._exit(0)\n1 / 0",
    ),
    "descriptor_search": Attack(
        "a descriptor of the judge's among all there can be, and the code of the program itself",
        SECRET,
        BADLY,
        "import os\nfor fd in range(1024):\n    for way in (os.O_RDWR, os.O_RDONLY):\n"
        "        try:\n            print(os.pread(fd, 9999, 0))\n"
        "            print(os.read(os.open(f'/proc/self/fd/{fd}', way), 9999))\n"
        "        except OSError: pass",
    ),
}
