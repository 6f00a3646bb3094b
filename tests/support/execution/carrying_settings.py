"""Settings, registries and caches of an interpreter that can hold a bit."""

from .carrying_holders import caught, table

SETTINGS = table(
    {
        "recursion limit": ("sys", "h.getrecursionlimit() == 4321", "h.setrecursionlimit(4321)"),
        "switch interval": ("sys", "h.getswitchinterval() > 0.4", "h.setswitchinterval(0.5)"),
        "digits of integers": (
            "sys",
            "h.get_int_max_str_digits() == 4321",
            "h.set_int_max_str_digits(4321)",
        ),
        "flags of dlopen": ("sys", "h.getdlopenflags() == 258", "h.setdlopenflags(258)"),
        "origin of coroutines": (
            "sys",
            "h.get_coroutine_origin_tracking_depth() == 3",
            "h.set_coroutine_origin_tracking_depth(3)",
        ),
        "hooks of generators": (
            "sys",
            "h.get_asyncgen_hooks().firstiter is not None",
            "h.set_asyncgen_hooks(firstiter=print)",
        ),
        "profile function": ("sys", "h.getprofile()", "h.setprofile(lambda *a: None)"),
        "trace function": ("sys", "h.gettrace()", "h.settrace(lambda *a: None)"),
        "hook of exceptions": ("sys", "h.excepthook is print", "h.excepthook = print"),
        "hook of display": ("sys", "h.displayhook is print", "h.displayhook = print"),
        "hook of lost exceptions": (
            "sys",
            "h.unraisablehook is print",
            "h.unraisablehook = print",
        ),
        "hook of breakpoints": ("sys", "h.breakpointhook is print", "h.breakpointhook = print"),
        "flag of bytecode": ("sys", "h.dont_write_bytecode == 7", "h.dont_write_bytecode = 7"),
        "length of tracebacks": ("sys", "hasattr(h, 'tracebacklimit')", "h.tracebacklimit = 7"),
        "loaded module": ("sys", "'colorsys' in h.modules", "import colorsys"),
        "made module": ("sys", "'KEY' in h.modules", "h.modules['KEY'] = h"),
        "attribute of a stream": ("sys", "hasattr(h.stdin, 'KEY')", "h.stdin.KEY = 1"),
        "audit hook": (
            "sys",
            "seen = []\nh.audit('KEY', seen)\nn = len(seen)",
            "h.addaudithook(lambda e, a: e == 'KEY' and a[0].append(1))",
        ),
        "reference count": (
            "sys",
            "h.getrefcount(h.float_info) > 900",
            "import gc\na = [h.float_info] * 1000\na.append(a)\ngc.freeze()",
        ),
        "environment": ("os", "'KEY' in h.environ", "h.environ['KEY'] = '1'"),
        "C environment": (
            "ctypes",
            "h.CDLL(None).getenv(b'KEY')",
            "h.CDLL(None).setenv(b'KEY', b'1', 1)",
        ),
        "locale": (
            "locale",
            "h.setlocale(h.LC_TIME) != 'C'",
            "h.setlocale(h.LC_TIME, 'C.UTF-8')",
        ),
        "precision": ("decimal", "h.getcontext().prec == 7", "h.getcontext().prec = 7"),
        "default context": ("decimal", "h.DefaultContext.Emax == 7", "h.DefaultContext.Emax = 7"),
        "random state": ("random", "h.Random(77).getstate() == h.getstate()", "h.seed(77)"),
        "warning filters": (
            "warnings",
            "h.filters and h.filters[0][0] == 'always'",
            "h.simplefilter('always')",
        ),
        "cache of patterns": (
            "re",
            "any('KEY' in k for k in h._cache)",
            "h.compile('KEY')",
        ),
        "cache of file patterns": (
            "fnmatch",
            "h._compile_pattern.cache_info().misses",
            "h.fnmatch('a', 'KEY*')",
        ),
        "cache of dates": (
            "_strptime",
            "'%yKEY' in h._regex_cache",
            "import time\ntime.strptime('01KEY', '%yKEY')",
        ),
        "key of a cache of dates": (
            "_strptime",
            "class S(str):\n    n = 0\n    def __hash__(self): return 7\n"
            "    def __eq__(self, other):\n        self.n = other.n = 1\n        return False\n"
            "s = S('%d')\nimport time\ntime.strptime('1', s)\nn = s.n",
            "pass",
        ),
        "key of a cache of types": (
            "typing",
            "class K:\n    n = 0\n    def __call__(self): pass\n"
            "    def __hash__(self): return 7\n    def __eq__(self, other):\n"
            "        if type(other).__name__ == 'K': self.n = other.n = 1\n        return False\n"
            "k = K()\nh.List[k]\nn = k.n",
            "pass",
        ),
        "overloads": (
            "typing",
            "def f(): pass\nn = len(h.get_overloads(f))",
            "@h.overload\ndef f(): pass",
        ),
        "extension of pickles": (
            "copyreg",
            "('KEY', 'KEY') in h._extension_registry",
            "h.add_extension('KEY', 'KEY', 77)",
        ),
        "codec": (
            "codecs",
            caught("LookupError", "h.lookup('KEY')"),
            "import codecs\nu = codecs.lookup('utf-8')\n"
            "h.register(lambda name, u=u: u if name == 'KEY' else None)",
        ),
        "handler of codecs": (
            "codecs",
            caught("LookupError", "h.lookup_error('KEY')"),
            "h.register_error('KEY', print)",
        ),
        "signal handler": (
            "signal",
            "h.getsignal(h.SIGUSR1) == h.SIG_IGN",
            "h.signal(h.SIGUSR1, h.SIG_IGN)",
        ),
        "signal mask": (
            "signal",
            "h.SIGUSR1 in h.pthread_sigmask(h.SIG_BLOCK, [])",
            "h.pthread_sigmask(h.SIG_BLOCK, [h.SIGUSR1])",
        ),
        "pending signal": (
            "signal",
            "h.SIGUSR2 in h.sigpending()",
            "h.pthread_sigmask(h.SIG_BLOCK, [h.SIGUSR2])\nh.raise_signal(h.SIGUSR2)",
        ),
        "timer": ("signal", "h.getitimer(h.ITIMER_REAL)[0] > 0", "h.setitimer(h.ITIMER_REAL, 60)"),
        "virtual timer": (
            "signal",
            "h.getitimer(h.ITIMER_VIRTUAL)[0] > 0",
            "h.setitimer(h.ITIMER_VIRTUAL, 60)",
        ),
        "alarm": ("signal", "n = h.alarm(0) > 0", "h.alarm(60)"),
        "thresholds of the collector": (
            "gc",
            "h.get_threshold()[0] == 4321",
            "h.set_threshold(4321)",
        ),
        "flags of the collector": ("gc", "h.get_debug() == 4", "h.set_debug(4)"),
        "finaliser of a finaliser": (
            "gc",
            "n = 0",
            "class B:\n    def __del__(self): print(1, end='')\nclass A:\n"
            "    def __del__(self, B=B):\n        b = B()\n        b.me = b\n"
            "a = A()\na.me = a\ndel a",
        ),
        "stack of threads": ("threading", "h.stack_size() == 1 << 20", "h.stack_size(1 << 20)"),
        "trace of threads": ("threading", "h.gettrace() is print", "h.settrace(print)"),
        "living thread": (
            "threading",
            "any(t.name == 'KEY' for t in h.enumerate())",
            "import time\nh.Thread(target=time.sleep, args=(2,), name='KEY', daemon=True).start()",
        ),
        "context": (
            "contextvars",
            "any(v.name == 'KEY' for v in h.copy_context())",
            "h.ContextVar('KEY').set(1)",
        ),
        "fault handler": ("faulthandler", "h.is_enabled()", "h.enable(file=2)"),
        "memory trace": ("tracemalloc", "h.is_tracing()", "h.start()"),
        "size of fields": ("csv", "h.field_size_limit() == 4321", "h.field_size_limit(4321)"),
        "dialect": (
            "csv",
            "'KEY' in h.list_dialects()",
            "h.register_dialect('KEY', delimiter='|')",
        ),
        "time limit of sockets": ("socket", "h.getdefaulttimeout()", "h.setdefaulttimeout(5)"),
        "name of an open socket": (
            "socket",
            "s = h.socket(h.AF_UNIX)\n" + caught("OSError", "s.connect('\\0KEY')"),
            "s = h.socket(h.AF_UNIX)\ns.bind('\\0KEY')\ns.listen()\ns.detach()",
        ),
        "level of logs": ("logging", "h.getLogger().level == 7", "h.getLogger().setLevel(7)"),
        "logger": ("logging", "'KEY' in h.root.manager.loggerDict", "h.getLogger('KEY')"),
        "type of files": (
            "mimetypes",
            "h.guess_type('a.KEY')[0]",
            "h.add_type('text/KEY', '.KEY')",
        ),
        "time zone": (
            "time",
            "h.tzname[0] == 'ABC'",
            "import os\nos.environ['TZ'] = 'ABC-3'\nh.tzset()",
        ),
        "abstract class": ("numbers", "isinstance('', h.Number)", "h.Number.register(str)"),
        "abstract class of containers": (
            "collections",
            "import collections.abc\nn = isinstance(0, h.abc.Sized)",
            "h.abc.Sized.register(int)",
        ),
        "dispatch": (
            "pkgutil",
            "str in h.iter_importer_modules.registry",
            "h.iter_importer_modules.register(str, print)",
        ),
        "class made a dataclass": (
            "random",
            "repr(h.Random(1))[0] != '<'",
            "import dataclasses\ndataclasses.dataclass(h.Random)",
        ),
        "subclasses": (
            "builtins",
            "any(c.__name__ == 'KEY' for c in h.Exception.__subclasses__())",
            "import gc\ntype('KEY', (h.Exception,), {})\ngc.freeze()",
        ),
        "enumeration in another module": (
            "enum",
            "import math\nn = hasattr(math, 'KEY')",
            "E = h.Enum('E', 'KEY', module='math')\nh.global_enum(E)",
        ),
        "mapped memory": (
            "ctypes",
            "h.CDLL(None).mincore(h.c_void_p(0x123400000000), h.c_size_t(4096), b'12345678') == 0",
            "h.CDLL(None).mmap(h.c_void_p(0x123400000000), h.c_size_t(4096), 3, 0x32, -1, "
            "h.c_long(0))",
        ),
        "memory of an object": (
            "ctypes",
            "h.c_ubyte.from_address(id(b'\\xfe') + 33).value == 1",
            "h.c_ubyte.from_address(id(b'\\xfe') + 33).value = 1",
        ),
        "last error": ("ctypes", "h.get_errno() == 77", "h.set_errno(77)"),
        "flag of the interpreter": (
            "ctypes",
            "h.c_int.in_dll(h.pythonapi, 'Py_InspectFlag').value == 7",
            "h.c_int.in_dll(h.pythonapi, 'Py_InspectFlag').value = 7",
        ),
    }
)
