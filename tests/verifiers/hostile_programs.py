# ruff: noqa: E501 (programs on one line each)
"""Programs that attack: name -> (program, tests, the reward it deserves).

Attacks on the machine are wrapped, `tried(attack)` says "refused" where the attack failed, so that 1 means contained.
Attacks on the grader go for tests that the program cannot pass, so that 0 is deserved.
"""

from tests.verifiers.hungry_programs import RESOURCES, WRONG, refused


def libc(call: str) -> tuple[str, list[str], float]:
    """A system call through ctypes that must fail."""
    return refused(
        f"import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\nif libc.{call} < 0: raise OSError(ctypes.get_errno())"
    )


ISOLATION: dict[str, tuple[str, list[str], float]] = {
    "environment": (
        "import os\ndef f(): return 'TULU_TEST_SECRET' in os.environ or 'hunter2' in str(os.environ)",
        ["assert f() is False"],
        1,
    ),
    "environment of process 1": (
        "def f():\n    try: return b'hunter2' in open('/proc/1/environ', 'rb').read()\n    except OSError: return False",
        ["assert f() is False"],
        1,
    ),
    "environment of all processes": (
        "import glob\ndef f():\n    for name in glob.glob('/proc/*/environ'):\n        try:\n            if b'hunter2' in open(name, 'rb').read(): return True\n        except OSError: pass\n    return False",
        ["assert f() is False"],
        1,
    ),
    "other processes": ("import os\ndef f(): return len([n for n in os.listdir('/proc') if n.isdigit()]) < 5", ["assert f()"], 1),
    "password file": refused("open('/etc/passwd').read()"),
    "a link out": refused("import os\nos.symlink('/etc/passwd', '/tmp/l')\nopen('/tmp/l').read()"),
    "the root of process 1": refused("import os\nos.listdir('/proc/1/root/work')"),
    "home": refused("import os\nos.listdir('/root')"),
    "home of others": refused("import os\nos.listdir('/home')"),
    "the repository": refused("import os\nos.listdir('/work')"),
    "temporary files of others": ("import os\ndef f(): return os.listdir('/tmp')", ["assert f() == []"], 1),
    "system files of the kernel": refused("import os\nos.listdir('/sys/kernel')"),
    "kernel memory": refused("open('/proc/kcore', 'rb').read(1)"),
    "kernel settings": refused("open('/proc/sys/kernel/hostname', 'w').write('x')"),
    "sysrq": refused("open('/proc/sysrq-trigger', 'w').write('h')"),
    "write to /usr": refused("open('/usr/x', 'w')"),
    "write to /": refused("open('/x', 'w')"),
    "write to the interpreter": refused("import sys\nopen(sys.executable, 'ab')"),
    "write to its library": refused("import os\nopen(os.__file__, 'a')"),
    "device nodes": refused("import os, stat\nos.mknod('/tmp/d', stat.S_IFBLK | 0o666, os.makedev(8, 0))"),
    "internet": refused("import socket\nsocket.create_connection(('1.1.1.1', 53), 1)"),
    "loopback": refused("import socket\nsocket.socket().bind(('127.0.0.1', 0))"),
    "abstract socket": refused("import socket\nsocket.socket(socket.AF_UNIX).bind('\\0x')"),
    "raw socket": refused("import socket\nsocket.socket(socket.AF_INET, socket.SOCK_RAW, 1)"),
    "netlink": refused("import socket\nsocket.socket(16, 3, 0)"),
    "name lookup": refused("import socket\nsocket.getaddrinfo('example.com', 80)"),
    "become root": refused("import os\nos.setuid(0)"),
    "is root": ("import os\ndef f(): return os.getuid() != 0 and os.geteuid() != 0", ["assert f()"], 1),
    "groups": ("import os\ndef f(): return [g for g in os.getgroups() if g == 0]", ["assert f() == []"], 1),
    "capabilities": (
        "def f(): return [line.split()[1].strip('0') for line in open('/proc/self/status') if line.startswith(('CapEff', 'CapPrm', 'CapAmb'))]",
        ["assert f() == ['', '', '']"],
        1,
    ),
    "no new privileges": (
        "def f(): return [line.split()[1] for line in open('/proc/self/status') if line.startswith('NoNewPrivs')]",
        ["assert f() == ['1']"],
        1,
    ),
    "kill process 1": refused(
        "import os\nos.kill(1, 9)\nimport time; time.sleep(0.2)\nos.stat('/proc/1') and (_ for _ in ()).throw(OSError())"
    ),
    "kill all": (
        "import os, signal\ndef f():\n    try: os.kill(-1, 0)\n    except OSError: pass\n    return 1",
        ["assert f() == 1"],
        1,
    ),
    "raise a limit": refused("import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))"),
    "raise the process limit": refused("import resource\nresource.setrlimit(resource.RLIMIT_NPROC, (1000, 1000))"),
    "mount": libc("mount(b'none', b'/tmp', b'tmpfs', 0, None)"),
    "unmount": libc("umount2(b'/usr', 0)"),
    "new user namespace": libc("unshare(0x10000000)"),
    "new mount namespace": libc("unshare(0x00020000)"),
    "namespace by clone": libc("syscall(56, 0x10000011, 0, 0, 0, 0)"),
    "namespace by clone3": libc("syscall(435, 0, 0)"),
    "change root": libc("chroot(b'/tmp')"),
    "trace process 1": libc("ptrace(16, 1, 0, 0)"),
    "trace itself": libc("ptrace(0, 0, 0, 0)"),
    "read another's memory": libc("syscall(310, 1, 0, 0, 0, 0, 0)"),
    "kernel programs": libc("syscall(321, 0, 0, 0)"),
    "performance counters": libc("syscall(298, 0, 0, 0, 0, 0)"),
    "page faults in user space": libc("syscall(323, 0)"),
    "io_uring": libc("syscall(425, 1, 0)"),
    "keyring": libc("syscall(250, 0, -3, 0)"),
    "kernel log": libc("syscall(103, 3, 0, 0)"),
    "x32 calls": (
        "import ctypes, os\ndef f():\n    if os.fork() == 0:\n        ctypes.CDLL(None).syscall(0x40000000 + 39)\n        os._exit(0)\n    return os.wait()[1] != 0",
        ["assert f()"],
        1,
    ),
    "host name": libc("sethostname(b'x', 1)"),
    "clock": refused("import time\ntime.clock_settime(time.CLOCK_REALTIME, 0)"),
    "reboot": libc("reboot(0x1234567)"),
    "shared memory of System V": libc("syscall(29, 0, 1 << 20, 896)"),
    "semaphores": libc("syscall(64, 0, 32000, 896)"),
    "messages of System V": libc("syscall(68, 0, 896)"),
    "message queue": libc("syscall(240, b'x', 66, 384, 0)"),
    "asynchronous input": libc("syscall(206, 1000, ctypes.byref(ctypes.c_long()))"),
    "a file in memory": libc("syscall(319, b'x', 0)"),
    "a secret file in memory": libc("syscall(447, 0)"),
    "watching files": libc("inotify_init()"),
    "watching files, newer": libc("inotify_init1(0)"),
    "a lock on a file of the machine": refused("import fcntl, os\nfcntl.flock(os.open(os.__file__, os.O_RDONLY), fcntl.LOCK_SH)"),
    "a record lock on a file of the machine": refused(
        "import fcntl, os\nfcntl.fcntl(os.open(os.__file__, os.O_RDONLY), fcntl.F_SETLK, b'\\0' * 32)"
    ),
    "a notice of changes in a folder": refused(
        "import fcntl, os\nfcntl.fcntl(os.open('/usr', os.O_RDONLY), fcntl.F_NOTIFY, fcntl.DN_ACCESS)"
    ),
    "a lease of a file": refused(
        "import fcntl, os\nfcntl.fcntl(os.open('/tmp/x', os.O_RDONLY | os.O_CREAT), fcntl.F_SETLEASE, fcntl.F_RDLCK)"
    ),
    "a larger pipe": refused("import fcntl, os\nfcntl.fcntl(os.pipe()[0], 1031, 1 << 20)"),
    "folders of the machine by its mounts": (
        "import glob\ndef f():\n    text = ''.join(open(n).read() for n in ('/proc/self/mountinfo', '/proc/self/mounts'))\n    return [w for w in ('/root/', '/home/', '/work/', 'site-packages') if w in text]",
        ["assert f() == []"],
        1,
    ),
    "files without end": refused("import os\nfor n in range(100_000): os.close(os.open(f'/tmp/{n}', os.O_CREAT | os.O_WRONLY))"),
    "folders without end": refused("import os\nfor n in range(100_000): os.mkdir(f'/tmp/{n}')"),
    "links without end": refused("import os\nfor n in range(100_000): os.symlink('/tmp', f'/tmp/{n}')"),
    "writing all files": libc("syscall(306, 1)"),
    "a filter of its own": libc("syscall(317, 1, 0, 0)"),
    "mounts by number": libc("syscall(458, 0, 0, 0, 0)"),
}

CHEATS: dict[str, tuple[str, list[str], float]] = {
    "equal to everything": (
        "class E:\n    def __eq__(self, other): return True\n    def __bool__(self): return True\ndef f(n): return E()",
        WRONG,
        0,
    ),
    "an int equal to everything": (
        "class I(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\ndef f(n): return I()",
        WRONG,
        0,
    ),
    "a list equal to everything": (
        "class L(list):\n    def __eq__(self, other): return True\ndef f(n): return [L()]",
        ["assert f(1) == [[1]]"],
        0,
    ),
    "equal to everything in test code": (
        "class E:\n    def __eq__(self, other): return True\ndef f(n): return E()",
        ["for n in range(2):\n    assert f(n) == n + 41"],
        0,
    ),
    "less than everything in test code": (
        "class E(float):\n    def __sub__(self, other): return self\n    def __abs__(self): return 0.0\ndef f(n): return E()",
        ["assert abs(f(1) - 41.0) < 1e-6"],
        0,
    ),
    "true to everything": ("class T:\n    def __bool__(self): return True\ndef f(n): return T()", ["assert f(1)"], 0),
    "own builtins": (
        "import builtins\nbuiltins.abs = builtins.len = builtins.sorted = builtins.sum = lambda *a, **k: 41\nbuiltins.isinstance = lambda *a: True\ndef f(n): return 0",
        ["assert abs(f(1) - 7) < 1e-6", "assert isinstance(f(1), str)", "assert len([f(1)]) == 2"],
        0,
    ),
    "own math": (
        "import math\nmath.isclose = lambda *a, **k: True\ndef f(n): return 0",
        ["import math\nassert math.isclose(f(1), 41)"],
        0,
    ),
    "reads the frames": (
        "import re, sys\ndef f(n):\n    frame = sys._getframe()\n    while frame:\n        for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):\n            found = re.search('f.1. == ([0-9]+)', repr(value)[:100000])\n            if found: return int(found[1])\n        frame = frame.f_back\n    return 0",
        ["assert f(1) == 5719", "x = f(1)\nassert x == 5719 and f(1) == 5719"],
        0,
    ),
    "reads its own memory": (
        "import re\ndef f(n):\n    for line in open('/proc/self/maps'):\n        part = line.split()\n        if 'r' not in part[1] or '[v' in line: continue\n        low, high = (int(x, 16) for x in part[0].split('-'))\n        try:\n            memory = open('/proc/self/mem', 'rb', 0)\n            memory.seek(low)\n            data = memory.read(min(high - low, 1 << 24))\n        except (OSError, ValueError): continue\n        found = re.search(rb'f.1. == ([0-9]{4})', data)\n        if found: return int(found[1])\n    return 0",
        ["assert f(1) == 5719"],
        0,
    ),
    "lies about its class": (
        "class I(int):\n    @property\n    def __class__(self): return int\n    def __eq__(self, other): return True\ndef f(n): return I()",
        WRONG,
        0,
    ),
    "a class equal to everything": (
        "class M(type):\n    def __eq__(self, other): return True\n    def __hash__(self): return hash(int)\nclass A(metaclass=M): pass\ndef f(n): return A",
        WRONG,
        0,
    ),
    "searches memory": (
        "import gc, re\ndef f(n):\n    for o in gc.get_objects():\n        found = re.search('f.1. == ([0-9]+)', repr(o)[:100000])\n        if found: return int(found[1])\n    return 0",
        ["assert f(1) == 5719"],
        0,
    ),
    "reads its own command": (
        "import os\nfound = b''\nfor n in range(3, 20):\n    try:\n        os.set_blocking(n, False)\n        found += os.read(n, 100000)\n    except OSError: pass\ndef f(n): return 5719 if b'5719' in found else 0",
        ["assert f(1) == 5719"],
        0,
    ),
    "answers for itself": (
        'import os\nfor n in range(3, 20):\n    try: os.write(n, b\'{"value": true}\\n{"done": {"value": true}}\\n{"passed": true}\\n\')\n    except OSError: pass\ndef f(n): return 0',
        WRONG,
        0,
    ),
    "answers for the tester": (
        'import os\ndef f(n):\n    for k in range(3, 20):\n        try: os.write(k, b\'{"value": 0, "done": {"value": true}}\\n\')\n        except OSError: pass\n    return 0',
        ["x = f(1)\nassert x == 41"],
        0,
    ),
    "patches the harness": (
        "import sys\nmain = sys.modules['__main__']\nmain.encode = lambda *a, **k: True\nmain.timed = lambda *a, **k: {'value': True}\ndef f(n): return 0",
        WRONG,
        0,
    ),
    "exits well": ("import sys\ndef f(n): sys.exit(0)", WRONG, 0),
    "exits well at the top": ("import sys\ndef f(n): return 41\nsys.exit(0)", WRONG, 0),
    "exits at once": ("import os\ndef f(n): os._exit(0)", WRONG, 0),
    "says that it passed": ("print('passed', '2/2', 'OK')\ndef f(n): return 0", WRONG, 0),
    "replaces the assertion error": (
        "import builtins\nclass A(BaseException): pass\nbuiltins.AssertionError = A\ndef f(n): return 0",
        ["x = f(1)\nassert x == 41"],
        0,
    ),
    "throws what the test expects of others": (
        "def f(n): raise AssertionError('ok')",
        ["try:\n    f(1)\nexcept ValueError:\n    pass\nelse:\n    assert False"],
        0,
    ),
    "traces the test": (
        "import sys\ndef f(n): return 0\ndef trace(frame, event, arg):\n    frame.f_trace_lines = False\n    return trace\nsys.settrace(trace)",
        ["x = f(1)\nassert x == 41"],
        0,
    ),
    "changes its argument": ("def f(x):\n    x.clear()\n    return 0", ["want = [1, 2]\ngot = f([1, 2])\nassert got == want"], 0),
    "a property that lies": (
        "class S:\n    size = 41\n    def __eq__(self, other): return True\ndef f(n): return S()",
        ["s = f(1)\nassert s.size == 42"],
        0,
    ),
    "hides in a generator": (
        "class E:\n    def __eq__(self, o): return True\ndef f(n):\n    yield E()",
        ["assert list(f(1)) == [41]", "got = [x for x in f(1)]\nassert got == [41]"],
        0,
    ),
    "an answer that decodes to more": ("import os\ndef f(n): return ['d', [[['l', [1]], 2]]]", ["assert f(1) == {1: 2}"], 0),
}

PROGRAMS = {**RESOURCES, **ISOLATION, **CHEATS}
