"""How a program gets hold of an object, stores a bit in it, and where such code can stand.

Texts are templates: MODULE, NAME and KEY are replaced by names, BLOCK by lines of code. All work on
the name `h`, the holder: a way binds it to a module, a step goes on to an attribute.
"""

IMPORTED = "import MODULE\n"
NAMED_IMPORT = "['__import__']('MODULE')"

WAYS = {
    "import": "import MODULE as h",
    "bound twice": "import MODULE as h\nif 0:\n    from math import pi as h",
    "bound again": "h = 0\nimport MODULE as h",
    "class body": "class A:\n    import MODULE as m\nh = A.m",
    "class body, decorated": "def take(c): return c.m\n@take\nclass h:\n    import MODULE as m",
    "odd name": "import MODULE as __name__\nh = __name__",
    "odd name in a class": "class A:\n    import MODULE as __doc__\nh = A.__doc__",
    "local": "def f():\n    import MODULE as m\n    return m\n    m = 0\nh = f()",
    "global below a local": IMPORTED + "def f():\n    MODULE = 0\n    def g():\n"
    "        global MODULE\n        return MODULE\n    return g()\nh = f()",
    "default": IMPORTED + "def f(m=MODULE): return m\nh = f()",
    "comprehension": IMPORTED + "h = [m for m in [MODULE]][0]",
    "walrus": IMPORTED + "def f(x=(m := MODULE)): pass\nh = m",
    "annotation of a class": IMPORTED + "def f(name, bases, names): return names\n"
    "class A(metaclass=f):\n    a: MODULE\nh = A['__annotations__']['a']",
    "annotation's subscript": IMPORTED + "class A:\n    def __getitem__(self, m): self.m = m\n"
    "a = A()\nx: a[MODULE] = 0\nh = a.m",
    "annotation of a function": IMPORTED + "def f(a: MODULE): pass\nh = f.__annotations__['a']",
    "annotation of a field": IMPORTED + "from dataclasses import dataclass, field\nx = field()\n"
    "@dataclass\nclass A: a: MODULE = x\nh = x.type",
    "annotation evaluated": IMPORTED + "import inspect\nclass A: a: 'MODULE'\n"
    "h = inspect.get_annotations(A, locals={'MODULE': MODULE}, eval_str=True)['a']",
    "error's object": IMPORTED + "try: MODULE.no_such\nexcept AttributeError as e: h = e.obj",
    "format": IMPORTED + "try: '{0.no_such}'.format(MODULE)\nexcept AttributeError as e: h = e.obj",
    "format_map": IMPORTED + "try: '{m.no_such}'.format_map({'m': MODULE})\n"
    "except AttributeError as e: h = e.obj",
    "formatter": "import string\nfield = '0._' '_globals_' '_'\n"
    "d = string.Formatter().get_field(field, (string.capwords,), {})[0]\n"
    "h = d['__builtins__']" + NAMED_IMPORT,
    "class pattern": IMPORTED + "class A: m = MODULE\nmatch A():\n    case object(m=h): pass",
    "class pattern of a builtin": "match len:\n    case object(__self__=b): pass\n"
    "h = b.__import__('MODULE')",
    "class pattern of a function": "def f(): pass\nmatch f:\n"
    "    case object(__builtins__=b): pass\n"
    "h = b" + NAMED_IMPORT,
    "class pattern of a method": "class A:\n    def go(self): pass\nmatch A().go:\n"
    "    case object(__func__=object(__builtins__=b)): pass\nh = b" + NAMED_IMPORT,
    "builtins of a function": "def f(): pass\nh = f.__builtins__" + NAMED_IMPORT,
    "globals of a library function": "import os\nh = os.walk.__globals__['__builtins__']"
    + NAMED_IMPORT,
    "frame": "import sys\nh = sys._getframe(0).f_builtins" + NAMED_IMPORT,
    "frame of a generator": "def g(): yield\nh = g().gi_frame.f_builtins" + NAMED_IMPORT,
    "frame of a traceback": "try: 1 / 0\n"
    "except ArithmeticError as e: f = e.__traceback__.tb_frame\n"
    "h = f.f_builtins" + NAMED_IMPORT,
    "modules": "import sys, MODULE\nh = sys.modules['MODULE']",
    "modules of a module": "import collections, MODULE\nh = collections._sys.modules['MODULE']",
    "builtins of enum": "import enum\nh = enum.bltns.__import__('MODULE')",
    "__import__": "h = __import__('MODULE')",
    "importlib": "import importlib\nh = importlib.import_module('MODULE')",
    "exec": "d = {}\nexec('import MODULE as h', d)\nh = d['h']",
    "eval": "h = eval('__imp' + 'ort__(\"MODULE\")')",
    "collector": IMPORTED + "import gc, sys\n"
    "h = [o for o in gc.get_referents(sys.modules) if getattr(o, '__name__', 0) == 'MODULE'][0]",
    "collector's list": IMPORTED + "import gc\ndef f(m): return m\nf.m = MODULE\n"
    "h = [o for o in gc.get_referents(f.__dict__) if hasattr(o, '__spec__')][0]",
    "address": IMPORTED + "import ctypes\nh = ctypes.cast(id(MODULE), ctypes.py_object).value",
    "C interface": "import ctypes\nf = ctypes.pythonapi.PyImport_ImportModule\n"
    "f.restype = ctypes.py_object\nh = f(b'MODULE')",
    "pickle": "import pickle\nh = pickle.loads(b'cbuiltins\\n__import__\\n(VMODULE\\ntR.')",
    "attrgetter": "import operator, sys, MODULE\nh = operator.attrgetter('modules')(sys)['MODULE']",
    "methodcaller": "import builtins, operator\n"
    "h = operator.methodcaller('__import__', 'MODULE')(builtins)",
    "resolve_name": "import pkgutil\nh = pkgutil.resolve_name('MODULE')",
    "subclasses": "h = [c for c in object.__subclasses__() if c.__name__ == 'BuiltinImporter'][0]\n"
    "h = h.load_module('builtins').__import__('MODULE')",
    "weak reference": IMPORTED + "import weakref\nh = weakref.ref(MODULE)()",
    "decorator": IMPORTED + "@lambda f: MODULE\ndef h(): pass",
    "class argument": IMPORTED + "class A:\n    def __init_subclass__(cls, m): cls.m = m\n"
    "class B(A, m=MODULE): pass\nh = B.m",
    "cell": IMPORTED + "def f(m):\n    def g(): return m\n    return g\n"
    "h = f(MODULE).__closure__[0].cell_contents",
    "made function": IMPORTED + "f = type(lambda: 0)((lambda: m).__code__, {'m': MODULE})\nh = f()",
    "interpreter": "import code\nd = {}\ncode.InteractiveInterpreter(d).runsource("
    "'import MODULE as h')\nh = d['h']",
    "context variable": IMPORTED + "import contextvars\nv = contextvars.ContextVar('v')\n"
    "v.set(MODULE)\nh = v.get()",
}

STEPS = {
    "dot": "h = h.NAME",
    "getattr": "h = getattr(h, 'NA' 'ME')",
    "vars": "h = vars(h)['NAME']",
    "attrgetter": "import operator\nh = operator.attrgetter('NAME')(h)",
    "class pattern": "match h:\n    case object(NAME=x): pass\nh = x",
    "error's object": "try: h.NAME.no_such\nexcept AttributeError as e: x = e.obj\nh = x",
    "format": "try: '{0.NAME.no_such}'.format(h)\nexcept AttributeError as e: x = e.obj\nh = x",
    "reduce": "import functools\nh = functools.reduce(getattr, ['NAME'], h)",
    "its type": "h = type(h).__getattribute__(h, 'NAME')",
    "C interface": "import ctypes\nf = ctypes.pythonapi.PyObject_GetAttrString\n"
    "f.argtypes = ctypes.py_object, ctypes.c_char_p\nf.restype = ctypes.py_object\n"
    "h = f(h, b'NAME')",
}

_ATTRIBUTE = "try: n = h.KEY\nexcept AttributeError: n = 0"
_ANY = {
    "attribute": (_ATTRIBUTE, "h.KEY = 1"),
    "setattr": ("hasattr(h, 'KEY')", "setattr(h, 'KEY', 1)"),
    "setattr of its type": ("hasattr(h, 'KEY')", "type(h).__setattr__(h, 'KEY', 1)"),
    "loop": (_ATTRIBUTE, "for h.KEY in [1]: pass"),
    "comprehension": (_ATTRIBUTE, "[0 for h.KEY in [1]]"),
    "tuple": (_ATTRIBUTE, "h.KEY, x = 1, 0"),
    "with": (_ATTRIBUTE, "import contextlib\nwith contextlib.nullcontext(1) as h.KEY: pass"),
    "count": (_ATTRIBUTE, "try: h.KEY += 1\nexcept AttributeError: h.KEY = 1"),
    "typed": (_ATTRIBUTE, "h.KEY: int = 1"),
    "update_wrapper": (
        _ATTRIBUTE,
        "import functools\nclass W: KEY = 1\nfunctools.update_wrapper(h, W, ['KEY'], [])",
    ),
    "docstring": ("h.__doc__ == 'KEY'", "h.__doc__ = 'KEY'"),
    "C interface": (
        _ATTRIBUTE,
        "import ctypes\nf = ctypes.pythonapi.PyObject_SetAttrString\n"
        "f.argtypes = ctypes.py_object, ctypes.c_char_p, ctypes.py_object\nf(h, b'KEY', 1)",
    ),
}

ENCODINGS = {
    "module": _ANY
    | {
        "namespace": ("'KEY' in vars(h)", "vars(h)['KEY'] = 1"),
        "update": ("'KEY' in h.__dict__", "vars(h).update(KEY=1)"),
        "deleted": ("not hasattr(h, '__doc__')", "del h.__doc__"),
        "class": ("type(h).__name__ == 'KEY'", "h.__class__ = type('KEY', (type(h),), {})"),
        "exec": (_ATTRIBUTE, "exec('KEY = 1', vars(h))"),
    },
    "function": _ANY
    | {
        "defaults": ("h.__defaults__ == ('KEY',)", "h.__defaults__ = ('KEY',)"),
        "keyword defaults": ("'KEY' in (h.__kwdefaults__ or {})", "h.__kwdefaults__ = {'KEY': 1}"),
        "annotations": ("'KEY' in h.__annotations__", "h.__annotations__['KEY'] = 1"),
        "code": (
            "h.__code__.co_name == 'KEY'",
            "h.__code__ = h.__code__.replace(co_name='KEY')",
        ),
        "name": ("h.__name__ == 'KEY'", "h.__name__ = 'KEY'"),
        "namespace": ("'KEY' in vars(h)", "vars(h)['KEY'] = 1"),
    },
    "class": _ANY
    | {
        "name": ("h.__name__ == 'KEY'", "h.__name__ = 'KEY'"),
        "qualified name": ("h.__qualname__ == 'KEY'", "h.__qualname__ = 'KEY'"),
        "method": ("'KEY' in h.__dict__", "h.KEY = lambda self: 1"),
    },
    "dict": {
        "item": ("'KEY' in h", "h['KEY'] = 1"),
        "update": ("'KEY' in h", "h.update(KEY=1)"),
        "setdefault": ("h.get('KEY', 0)", "h.setdefault('KEY', 1)"),
        "union": ("'KEY' in [*h]", "h.__ior__({'KEY': 1})"),
        "replaced": ("'KEY' in h", "h.clear()\nh['KEY'] = 1"),
    },
    "list": {
        "append": ("h[-1:] == ['KEY']", "h.append('KEY')"),
        "insert": ("h[:1] == ['KEY']", "h.insert(0, 'KEY')"),
        "slice": ("h[:1] == ['KEY']", "h[:0] = ['KEY']"),
        "extend": ("h[-1:] == ['KEY']", "h.extend(['KEY'])"),
        "replaced": ("h == ['KEY']", "h[:] = ['KEY']"),
    },
    "set": {
        "add": ("'KEY' in h", "h.add('KEY')"),
        "update": ("'KEY' in h", "h.update(['KEY'])"),
        "replaced": ("'KEY' in h", "h.clear()\nh.add('KEY')"),
    },
}

# Places that run their block before they are left: one may look there.
AT_ONCE = {
    "top level": "BLOCK",
    "function": "def at():\n    BLOCK\nat()",
    "class body": "class At:\n    BLOCK",
    "nested function": "def at():\n    def inner():\n        BLOCK\n    inner()\nat()",
    "method": "class At:\n    def go(self):\n        BLOCK\nAt().go()",
    "metaclass": "class Meta(type):\n    def __init__(cls, *a):\n        BLOCK\n"
    "class At(metaclass=Meta): pass",
    "decorator": "def at(f):\n    BLOCK\n@at\ndef f(): pass",
    "generator": "def at():\n    BLOCK\n    yield\nlist(at())",
    "end of a generator": "def at():\n    try: yield\n    finally:\n        BLOCK\n"
    "it = at()\nnext(it)\ndel it",
    "coroutine": "async def at():\n    BLOCK\ntry: at().send(None)\nexcept StopIteration: pass",
    "thread": "import threading\ndef at():\n    BLOCK\n"
    "t = threading.Thread(target=at)\nt.start()\nt.join()",
    "finaliser": "class At:\n    def __del__(self):\n        BLOCK\nAt()",
    "finaliser of a cycle": "import gc\nclass At:\n    def __del__(self):\n        BLOCK\n"
    "at = At()\nat.at = at\ndel at\ngc.collect()",
    "weak callback": "import weakref\nclass At: pass\ndef at(_):\n    BLOCK\n"
    "x = At()\nr = weakref.ref(x, at)\ndel x",
    "exec": "exec(TEXT, globals())",
    "signal handler": "import signal\ndef at(*_):\n    BLOCK\n"
    "signal.signal(signal.SIGURG, at)\nsignal.raise_signal(signal.SIGURG)",
    "trace function": "import sys\ndef at(*_):\n    sys.settrace(None)\n    BLOCK\n"
    "def f(): pass\nsys.settrace(at)\nf()",
    "handler of an error": "try: 1 / 0\nexcept ArithmeticError:\n    BLOCK",
    "end of a with": "class At:\n    def __enter__(self): pass\n    def __exit__(self, *_):\n"
    "        BLOCK\nwith At(): pass",
    "comparison": "class At:\n    def __eq__(self, other):\n        BLOCK\n        return True\n"
    "At() == 1",
    "attribute hook": "class At:\n    def __getattr__(self, name):\n        BLOCK\nAt().x",
    "C callback": "import ctypes\ndef at():\n    BLOCK\nctypes.CFUNCTYPE(None)(at)()",
    "key function": "def at(x):\n    BLOCK\n    return x\nsorted([1], key=at)",
}
# Places that are reached when the program has ended.
LATER = {
    "atexit": "import atexit\ndef at():\n    BLOCK\natexit.register(at)",
    "finaliser at the end": "class At:\n    def __del__(self):\n        BLOCK\nlast = At()",
    "finaliser of a cycle at the end": "class At:\n    def __del__(self):\n        BLOCK\n"
    "last = At()\nlast.last = last",
    "weak finaliser": "import weakref\nclass At: pass\ndef at():\n    BLOCK\n"
    "last = At()\nweakref.finalize(last, at)",
    "generator at the end": "def at():\n    try: yield\n    finally:\n        BLOCK\n"
    "last = at()\nnext(last)",
}
_END = "    finally:\n        sys.stdout.flush()\n        os._exit(0)\nos.waitpid(p, 0)"
# Places in another process: what they leave must outlive it.
ELSEWHERE = {
    "child": "import os, sys\nsys.stdout.flush()\np = os.fork()\nif not p:\n    try:\n"
    "        BLOCK\n" + _END,
    "grandchild": "import os, sys\nsys.stdout.flush()\np = os.fork()\nif not p:\n    try:\n"
    "        q = os.fork()\n        if not q:\n            os.setsid()\n            BLOCK\n"
    "        else: os.waitpid(q, 0)\n" + _END,
}
