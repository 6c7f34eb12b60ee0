# ruff: noqa: E501 (programs on one line each)
"""Programs that use too much time, memory or files, or none to be found: name -> (program, tests, the reward it deserves)."""

HOLDS = ["assert f(1) == 1"]
HONEST = "def f(n): return n\n"
WRONG = ["assert f(1) == 41", "assert f(2) == 42"]
TRIED = """
def tried(attack):
    try:
        attack()
    except BaseException as fault:
        return 'refused'
    return 'done'
"""
REFUSED = ["assert run() == 'refused'"]


def refused(body: str) -> tuple[str, list[str], float]:
    """An attack that must fail."""
    indented = "\n".join("    " + line for line in body.splitlines())
    return f"{TRIED}\ndef attack():\n{indented}\ndef run(): return tried(attack)", REFUSED, 1.0


RESOURCES: dict[str, tuple[str, list[str], float]] = {
    "endless loop": ("def f(n):\n    while True: pass", WRONG, 0),
    "endless loop at the top": ("while True: pass", WRONG, 0),
    "sleep": ("import time\ndef f(n): time.sleep(100)", WRONG[:1], 0),
    "swallows the alarm": (
        "def f(n):\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass",
        WRONG[:1],
        0,
    ),
    "switches the alarm off": (
        "import signal\ndef f(n):\n    signal.setitimer(signal.ITIMER_REAL, 0); signal.setitimer(signal.ITIMER_PROF, 0)\n    while True: pass",
        WRONG[:1],
        0,
    ),
    "blocks signals": (
        "import signal\ndef f(n):\n    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))\n    while True: pass",
        WRONG[:1],
        0,
    ),
    "fork bomb": ("import os\ndef f(n):\n    while True:\n        try: os.fork()\n        except OSError: pass", WRONG[:1], 0),
    "counts its forks": (
        "import os, time\ndef f(n):\n    made = 0\n    for _ in range(100):\n        try:\n            if os.fork() == 0:\n                time.sleep(9); os._exit(0)\n            made += 1\n        except OSError: break\n    return made < 20",
        ["assert f(1)"],
        1,
    ),
    "threads": (
        "import threading, time\ndef f(n):\n    made = 0\n    for _ in range(200):\n        try:\n            threading.Thread(target=time.sleep, args=(9,), daemon=True).start(); made += 1\n        except RuntimeError: break\n    return made < 20",
        ["assert f(1)"],
        1,
    ),
    "memory": (HONEST + "x = bytearray(1 << 33)", HOLDS, 0),
    "memory, step by step": ("def f(n):\n    x = []\n    while True: x.append(bytearray(1 << 20))", WRONG, 0),
    "memory of a caught kind": (
        "def f(n):\n    try:\n        return len(bytearray(1 << 33))\n    except MemoryError:\n        return n",
        HOLDS,
        1,
    ),
    "a large number": ("def f(n): return 9**9**9", WRONG[:1], 0),
    "a number of too many digits": ("def f(n): return [10**100000]", WRONG, 0),
    "a large set": ("def f(n): return set(range(10**6))", WRONG, 0),
    "stops all it can": (
        "import os\ndef f(n):\n    for p in range(1, 50):\n        try: os.kill(p, 19)\n        except OSError: pass\n    return 0",
        WRONG[:1],
        0,
    ),
    "spins in threads": (
        "import threading\ndef f(n):\n    def g():\n        while True: pass\n    for _ in range(8): threading.Thread(target=g, daemon=True).start()\n    g()",
        WRONG[:1],
        0,
    ),
    "errors without end": ("import os\ndef f(n):\n    while True: os.write(2, b'x' * 65536)", WRONG[:1], 0),
    "a null pointer": ("import ctypes\ndef f(n): ctypes.string_at(0)", WRONG[:1], 0),
    "becomes a shell": ("import os\ndef f(n): os.execv('/bin/sh', ['sh', '-c', 'echo 41'])", WRONG[:1], 0),
    "a large string": ("def f(n): return 'x' * (1 << 22)", WRONG, 0),
    "a deep list": ("def f(n):\n    x = []\n    for _ in range(100000): x = [x]\n    return x", WRONG, 0),
    "a list that holds itself": ("def f(n):\n    x = []\n    x.append(x)\n    return x", WRONG, 0),
    "an endless generator": ("def f(n):\n    while True: yield n", ["assert list(f(1)) == [1]"], 0),
    "deep recursion in C": (
        "import sys\ndef f(n):\n    sys.setrecursionlimit(10**9)\n    g = lambda: g()\n    return g()",
        WRONG,
        0,
    ),
    "a pattern that backtracks": ("import re\ndef f(n): return re.match('(a+)+$', 'a' * 40 + 'b')", WRONG[:1], 0),
    "prints without end": ("def f(n):\n    while True: print('x' * 10000)", WRONG[:1], 0),
    "prints much, honestly": ("def f(n):\n    print('x' * 10_000_000)\n    return n", HOLDS, 1),
    "a large file": refused("open('big', 'wb').write(b'x' * (64 << 20))"),
    "many files": refused("for n in range(100):\n    open(f'f{n}', 'wb').write(b'x' * (1 << 20))"),
    "many descriptors": refused("keep = [open('/dev/null') for _ in range(1000)]"),
    "shared memory": refused("open('/dev/shm/x', 'wb').write(b'x' * 1000)"),
    "kills itself": ("import os, signal\ndef f(n): os.kill(os.getpid(), signal.SIGKILL)", WRONG, 0),
    "stops itself": ("import os, signal\ndef f(n): os.kill(os.getpid(), signal.SIGSTOP)", WRONG[:1], 0),
    "aborts": ("import os\ndef f(n): os.abort()", WRONG, 0),
    "closes all descriptors": ("import os\ndef f(n):\n    os.closerange(0, 65536)\n    return n", HOLDS, 0),
    "an exception that cannot be printed": (
        "class E(Exception):\n    def __str__(self): return self.__str__()\ndef f(n): raise E",
        WRONG,
        0,
    ),
    "disarms all clocks": (
        "import signal, resource\ndef f(n):\n    for t in range(3): signal.setitimer(t, 0)\n    for s in range(1, 65):\n        try: signal.signal(s, signal.SIG_IGN)\n        except (OSError, ValueError): pass\n    while True: pass",
        WRONG,
        0,
    ),
    "spins in children that nobody waits for": (
        "import os, signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\ndef f(n):\n    while True:\n        if os.fork() == 0:\n            t = time.time()\n            while time.time() - t < .1: pass\n            os._exit(0)\n        time.sleep(.1)",
        WRONG,
        0,
    ),
    "spins in daemons": (
        "import os\ndef f(n):\n    for _ in range(14):\n        if os.fork() == 0:\n            os.setsid()\n            while True: pass\n    return 0",
        WRONG,
        0,
    ),
    "holds memory in many processes": (
        "import os, time\ndef f(n):\n    for _ in range(12):\n        if os.fork() == 0:\n            x = b'x' * (400 << 20)\n            time.sleep(9)\n    time.sleep(9)\n    return 0",
        WRONG[:1],
        0,
    ),
    "sleeps deafly": (
        "import time, signal\ndef f(n):\n    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))\n    time.sleep(1000)",
        WRONG,
        0,
    ),
    "numbers that collide": (
        "def f(n): return {k * (2**61 - 1): 1 for k in range(3000)}",
        ["assert f(1) == {1: 2}", "x = f(1)\nassert x == {1: 2}"],
        0,
    ),
    "sleeps when it is loaded": ("import time\ntime.sleep(100)\ndef f(n): return n + 40", WRONG, 0),
    "an endless answer": (
        "import os\ndef f(n):\n    for fd in range(3, 40):\n        try:\n            while True: os.write(fd, b'[' * 65536)\n        except OSError: pass",
        WRONG[:1],
        0,
    ),
    "a deep answer": (
        "import os\ndef f(n):\n    for fd in range(3, 40):\n        try: os.write(fd, b'[' * 60000 + b'\\n')\n        except OSError: pass",
        WRONG[:1],
        0,
    ),
    "leaves a daemon": (
        "import os, time\ndef f(n):\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0: time.sleep(3600)\n        os._exit(0)\n    return n",
        HOLDS,
        1,
    ),
}
