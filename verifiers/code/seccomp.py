"""A seccomp filter that refuses a few dozen system calls to untrusted programs, as the bytes that `bwrap --seccomp` reads.

The namespaces already refuse most of them. The filter also closes what a process may do to the others in its sandbox (ptrace,
reading their memory), parts of the kernel that no honest program needs, and sockets.
"""

import struct
from functools import lru_cache

# Instructions of the kernel's packet filter language (linux/bpf_common.h).
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# What a filter returns (linux/seccomp.h): refusing gives EPERM, and "no such call" gives ENOSYS.
_ALLOW, _REFUSE, _NO_SUCH_CALL, _KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
# Offsets of the fields of struct seccomp_data, in bytes.
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _FIRST_ARGUMENT_OFFSET = 0, 4, 16
_X32 = 0x40000000
"""Numbers from here on are those of x32, a second way to the calls of x86_64."""
_CLONE, _CLONE3 = (56, 220), 435
"""The number of clone on x86_64 and aarch64, and of clone3 on both."""
_FCNTL = (72, 25)
"""The number of fcntl on x86_64 and aarch64."""
_SECOND_ARGUMENT_OFFSET = 24
_LOCKS = (5, 6, 7, 36, 37, 38, 1024, 1026, 1031)
"""Commands of fcntl that are refused: locks and leases of files, notices of changes, and larger pipes (linux/fcntl.h)."""
_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET."""

# name: (number on x86_64, number on aarch64), None where there is no such call. Source: the syscall tables of Linux 6.12.
_CALLS: dict[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440),
    "kcmp": (312, 272), "pidfd_getfd": (438, 438), "socket": (41, 198), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "setns": (308, 268),
    "unshare": (272, 97), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142), "swapon": (167, 224),
    "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60), "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264), "personality": (135, 92), "syslog": (103, 116), "sethostname": (170, 161),
    "setdomainname": (171, 162), "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "lookup_dcookie": (212, 18), "fanotify_init": (300, 262), "mbind": (237, 235), "set_mempolicy": (238, 237),
    "migrate_pages": (256, 238), "move_pages": (279, 239), "iopl": (172, None), "ioperm": (173, None),
    "modify_ldt": (154, None), "uselib": (134, None),
    # Memory of the kernel that no limit of a process counts, and ways to the files of the machine beyond reading them.
    "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180), "io_setup": (206, 0),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "inotify_init": (253, None), "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27), "fanotify_mark": (301, 263), "flock": (73, 32), "statmount": (457, 457),
    "listmount": (458, 458), "sync": (162, 81), "syncfs": (306, 267), "quotactl_fd": (443, 443), "seccomp": (317, 277),
    "clock_adjtime": (305, 266), "process_mrelease": (448, 448), "set_mempolicy_home_node": (450, 450),
    "cachestat": (451, 451), "vmsplice": (278, 75), "readahead": (187, 213),
}  # fmt: skip
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""The kernel's number of an architecture (linux/audit.h), and its column in the table above."""


def _instruction(code: int, value: int, when_true: int = 0, when_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, when_true, when_false, value)


@lru_cache(maxsize=2)
def seccomp_filter(machine: str) -> bytes | None:
    """The filter for an architecture, named as by `platform.machine()`; None for one that is not in the table."""
    if machine not in _ARCHITECTURES:
        return None
    architecture, column = _ARCHITECTURES[machine]
    refused = sorted(number for numbers in _CALLS.values() if (number := numbers[column]) is not None)
    program = [
        _instruction(_LOAD, _ARCHITECTURE_OFFSET),
        _instruction(_EQUAL, architecture, 1, 0),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER_OFFSET),
    ]
    if machine == "x86_64":
        program += [_instruction(_AT_LEAST, _X32, 0, 1), _instruction(_RETURN, _KILL)]
    # The flags of clone show whether it asks for a namespace. clone3 keeps them in memory that a filter cannot read, so it is
    # said not to exist, and the C library uses clone.
    program += [
        _instruction(_EQUAL, _CLONE3, 0, 1),
        _instruction(_RETURN, _NO_SUCH_CALL),
        _instruction(_EQUAL, _CLONE[column], 0, 4),
        _instruction(_LOAD, _FIRST_ARGUMENT_OFFSET),
        _instruction(_ANY_BIT, _NAMESPACES, 0, 1),
        _instruction(_RETURN, _REFUSE),
        _instruction(_RETURN, _ALLOW),
    ]
    commands = [_instruction(_EQUAL, command, 0, 1) + _instruction(_RETURN, _REFUSE) for command in _LOCKS]
    program += [
        _instruction(_EQUAL, _FCNTL[column], 0, 2 + 2 * len(_LOCKS)),
        _instruction(_LOAD, _SECOND_ARGUMENT_OFFSET),
        *commands,
        _instruction(_RETURN, _ALLOW),
    ]
    for number in refused:
        program += [_instruction(_EQUAL, number, 0, 1), _instruction(_RETURN, _REFUSE)]
    return b"".join([*program, _instruction(_RETURN, _ALLOW)])
