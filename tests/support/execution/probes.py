"""Programs that reach for what is not theirs; each prints what it got hold of, then "end".

They are told in FACTS where things are (see weaker.py), and are bounded.
"""

_ATTEMPT = """
import contextlib, ctypes, fcntl, os, resource, signal, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *words):
    if libc.syscall(FACTS["calls"][name], *words) == -1:
        raise OSError(ctypes.get_errno(), "refused")
def attempt(name, action):
    try: action()
    except (OSError, ValueError): return
    print("got", name)
others = sorted({*FACTS["processes"], FACTS["judge"]})
"""

_READ = """
here, judge = FACTS["here"], FACTS["judge"]
files = [here + "/private.txt", FACTS["problems"], FACTS["cases"], "/etc/passwd", "/etc/hostname"]
files += [f"/proc/{pid}/{name}" for pid in others for name in ("mem", "environ", "maps")]
files += [f"/proc/{pid}/root{here}/private.txt" for pid in (judge, 1, "self")]
files += [f"/proc/{judge}/cwd/private.txt", f"/proc/{judge}/fd/1", "../../../here/private.txt"]
for path in files:
    attempt(path, lambda: os.close(os.open(path, os.O_RDONLY)))
for path in (here, FACTS["scratch"], os.path.dirname(FACTS["problems"]), "/var", "/sys", "/home"):
    attempt(path, lambda: os.listdir(path))
attempt("descriptor", lambda: os.readlink(f"/proc/{judge}/fd/1"))
os.symlink(here, "link")
attempt("link", lambda: os.listdir("link"))
"""

# In namespaces there is one process to see; elsewhere the machine's /proc shows the others' names.
_SEE = """
def check(own):
    if not FACTS["namespaces"]: return
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in own: print("got process", name)
    for pid in {*range(1, 50), *others} - own:
        for name in ("stat", "cmdline", "environ", "ns/pid", "root", "fd"):
            if os.path.lexists(f"/proc/{pid}/{name}"): print("got", pid, name)
    for name in os.listdir("/outer"): print("got outer", name)
    if set(os.listdir("/proc")) - {"self", "thread-self"} != {str(pid) for pid in own}:
        print("got", os.listdir("/proc"))
check({os.getpid()})
"""

# Only files of the test's own are put at risk.
_WRITE = """
here = FACTS["here"]
private = here + "/private.txt"
for place in (here, FACTS["scratch"], FACTS["scratch"] + "/..", "..", "/proc/self/cwd/.."):
    planted = place + "/planted"
    attempt("file " + planted, lambda: open(planted, "w"))
    attempt("folder " + planted, lambda: os.mkdir(planted))
    attempt("link " + planted, lambda: os.symlink("/", planted))
    attempt("pipe " + planted, lambda: os.mkfifo(planted))
open("own", "w").close()
attempt("append", lambda: open(private, "ab"))
attempt("truncate", lambda: os.truncate(private, 0))
attempt("replace", lambda: os.replace("own", private))
attempt("hard link", lambda: os.link(private, "other"))
attempt("attribute", lambda: os.setxattr(private, "user.planted", b"1"))
attempt("move", lambda: os.rename(private, "private"))
attempt("remove", lambda: os.unlink(private))
"""

_OWNER = """
for path in (FACTS["here"] + "/private.txt", FACTS["here"]):
    attempt("mode of " + path, lambda: os.chmod(path, 0o777))
    attempt("times of " + path, lambda: os.utime(path, (0, 0)))
    attempt("owner of " + path, lambda: os.chown(path, os.getuid(), os.getgid()))
"""

_SYSTEM = """
for base, _, names in os.walk("/proc"):
    if base.startswith(("/proc/self", "/proc/thread-self", f"/proc/{os.getpid()}")): continue
    for path in [base + "/" + name for name in names]:
        if not os.path.islink(path) and not path.endswith("/timerslack_ns"):
            attempt(path, lambda: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK)))
"""

_SOCKETS = """
for family in ("UNIX", "INET", "INET6", "NETLINK", "PACKET", "ALG", "VSOCK"):
    family = getattr(socket, "AF_" + family)
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
        attempt(f"socket {family} {kind}", lambda: socket.socket(family, kind))
for path in (sys.executable or "/bin/sh", "/bin/true", "/proc/self/exe"):
    attempt("exec " + path, lambda: os.execv(path, [path]))
attempt("exec descriptor", lambda: os.execve(os.open("/proc/self/exe", os.O_RDONLY), ["x"], {}))
"""

# Numbers of the host mean nothing in a namespace, and its first process only seems to be signalled:
# what counts there is that the processes are as they were.
_SIGNALS = """
seen = [int(name) for name in os.listdir("/proc") if name.isdigit()]
own = os.getpid()
def prlimit(pid): resource.prlimit(pid, resource.RLIMIT_NOFILE, (8, 8))
for pid in [pid for pid in (*others, *seen) if pid != own] + [-1]:
    for action in (
        lambda: os.kill(pid, signal.SIGKILL),
        lambda: os.kill(pid, signal.SIGSTOP),
        lambda: os.kill(-abs(pid), signal.SIGKILL),
        lambda: call("tkill", pid, 9), lambda: call("tgkill", pid, pid, 9),
        lambda: call("rt_sigqueueinfo", pid, 9, ctypes.byref(ctypes.create_string_buffer(128))),
        lambda: signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGKILL),
        lambda: prlimit(pid),
        lambda: os.sched_setaffinity(pid, {0}),
        lambda: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0)),
        lambda: os.setpriority(os.PRIO_PROCESS, pid, 19),
        lambda: os.setpriority(os.PRIO_PGRP, abs(pid), 19),
        lambda: call("ioprio_set", 1, pid, 3 << 13),
        lambda: call("ptrace", 16, pid, 0, 0),
        lambda: open(f"/proc/{pid}/comm", "w").write("planted"),
        lambda: open(f"/proc/{pid}/oom_score_adj", "w").write("999"),
    ):
        try: action()
        except (OSError, ValueError): continue
        if pid in others: print("got hold of", pid)
"""

_USER = """
if os.fork() == 0:
    for who in (0, os.getuid()):
        for which in (os.PRIO_USER, os.PRIO_PGRP):
            with contextlib.suppress(OSError): os.setpriority(which, who, 19)
        with contextlib.suppress(OSError): call("ioprio_set", 3, who, 3 << 13)
    os._exit(0)
os.wait()
"""

# A descriptor's owner is sent a signal of one's choice when something can be read from it.
_DESCRIPTOR_OWNER = """
for pid in (*others, os.getppid()):
    for command, value in ((8, pid), (15, struct.pack("ii", 1, pid))):
        ours, theirs = socket.socketpair()
        with contextlib.suppress(OSError):
            fcntl.fcntl(ours, command, value)
            fcntl.fcntl(ours, 10, signal.SIGKILL)
            fcntl.fcntl(ours, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
            theirs.send(b"x")
    with contextlib.suppress(OSError):
        ours, theirs = socket.socketpair()
        fcntl.ioctl(ours, 0x8901, struct.pack("i", pid))
        fcntl.fcntl(ours, 10, signal.SIGKILL)
        fcntl.fcntl(ours, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        theirs.send(b"x")
"""

_DAEMONS = """
import time
def daemon():
    if os.fork() == 0:
        os.setsid()
        for fd in range(64):
            with contextlib.suppress(OSError): os.close(fd)
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            with contextlib.suppress(OSError): signal.signal(number, signal.SIG_IGN)
        libc.prctl(36, 1, 0, 0, 0)
        if os.fork() == 0:
            time.sleep(60)
        time.sleep(60)
for _ in range(4): daemon()
"""

PROBES = {
    name: f"{_ATTEMPT}{code}\nprint('end')"
    for name, code in {
        "read": _READ,
        "see": _SEE,
        "write": _WRITE,
        "owner": _OWNER,
        "system": _SYSTEM,
        "sockets_and_exec": _SOCKETS,
        "signals": _SIGNALS,
        "user_priority": _USER,
        "descriptor_owner": _DESCRIPTOR_OWNER,
        "daemons": _DAEMONS,
    }.items()
}
