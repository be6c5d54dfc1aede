"""Runs one Python program that nobody trusts, and says whether it ended without an error. Linux on x86-64 and arm64.

Reads {"program", "folder", "seconds", "memory", "files"} as JSON from standard input (bytes; `folder` is an empty folder of the
caller's) and prints {"status": "passed" | "failed" | "timed out" | "unavailable", "detail"}.

The program runs in namespaces of its own: no network device but its own loopback, no other process in sight, and a file
system that holds Python's standard library, read-only, and an empty /tmp. It has another user's rights and no capabilities;
a system call filter takes away new processes, other programs, sockets, mounts, namespaces and memory that limits do not count.
What shares a process with its tests can forge that they passed: the sandbox contains a program, it does not make it honest.
"""

import ctypes
import json
import os
import platform
import resource
import select
import signal
import struct
import sys
import sysconfig
import time

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
NOBODY = 65534

# Numbers of system calls: pivot_root, then what the filter refuses, by machine.
CALLS = {
    "x86_64": {
        "arch": 0xC000003E,
        "pivot_root": 155,
        "clone": 56,
        "clone3": 435,
        "refused": [
            *(41, 42, 43, 49, 50, 53, 288),  # socket, connect, accept, bind, listen, socketpair, accept4
            *(57, 58, 59, 322),  # fork, vfork, execve, execveat
            *(272, 308, 155, 161, 165, 166, 428, 429, 430, 431, 432, 442),  # unshare, setns, roots and mounts
            *(101, 310, 311, 312, 434),  # ptrace, process_vm_*, kcmp, pidfd_open
            *(29, 30, 64, 68, 319, 447),  # shmget, shmat, semget, msgget, memfd_create, memfd_secret
            *(248, 249, 250, 298, 321, 323, 425, 426, 427),  # keys, perf, bpf, userfaultfd, io_uring
        ],
    },
    "aarch64": {
        "arch": 0xC00000B7,
        "pivot_root": 41,
        "clone": 220,
        "clone3": 435,
        "refused": [
            *(198, 199, 200, 201, 202, 203, 242),
            *(221, 281),
            *(97, 268, 39, 40, 41, 51, 428, 429, 430, 431, 432, 442),
            *(117, 270, 271, 272, 434),
            *(186, 190, 194, 196, 279, 447),
            *(217, 218, 219, 241, 280, 282, 425, 426, 427),
        ],
    },
}

libc = ctypes.CDLL(None, use_errno=True)


class Unavailable(Exception):
    pass


def checked(result, what):
    if result != 0:
        raise Unavailable(f"{what}: {os.strerror(ctypes.get_errno())}")


def mount(source, target, kind, flags, data=None):
    encoded = [None if text is None else text.encode() for text in (source, target, kind, data)]
    checked(
        libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]),
        f"mount {target}",
    )


def enter():
    """New namespaces. Without root, one of users too, in which this user is nobody."""
    flags = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET
    user, group = os.geteuid(), os.getegid()
    if user != 0:
        flags |= NEWUSER
    checked(libc.unshare(flags), "namespaces (unshare)")
    if user != 0:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{NOBODY} {user} 1"),
            ("gid_map", f"{NOBODY} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def locked_flags(path):
    """The flags of a mount that a bind mount of it must keep."""
    status = os.statvfs(path).f_flag
    return (status & (1 | 2 | 4 | 8 | 1024 | 2048)) | ((1 << 21) if status & 4096 else 0)


def bind(source, target, extra):
    mount(source, target, None, MS_BIND)
    flags = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | extra | locked_flags(target)
    mount(None, target, None, flags)


def library_paths():
    """Python's standard library and the folders of shared libraries."""
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    paths |= {"/lib", "/lib64", "/usr/lib", "/usr/lib64", sysconfig.get_config_var("LIBDIR") or "/usr/lib"}
    kept = []
    for path in sorted(path for path in paths if path and os.path.isdir(path)):
        if not any(path.startswith(f"{before}/") for before in kept):
            kept.append(path)
    return kept


def build_root(root, files):
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for path in library_paths():
        target = root + path
        if os.path.islink(path) and not os.path.isabs(os.readlink(path)):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.symlink(os.readlink(path), target)
            continue
        os.makedirs(target, exist_ok=True)
        bind(path, target, MS_NODEV)
    os.makedirs(f"{root}/dev")
    for name in ("null", "urandom"):
        open(f"{root}/dev/{name}", "w").close()
        bind(f"/dev/{name}", f"{root}/dev/{name}", 0)
    os.makedirs(f"{root}/tmp")
    mount("tmpfs", f"{root}/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, f"size={files},nr_inodes=1024,mode=1777")
    mount(None, root, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.chdir(root)
    dot = ctypes.c_char_p(b".")
    checked(libc.syscall(CALLS[platform.machine()]["pivot_root"], dot, dot), "pivot_root")
    checked(libc.umount2(b".", MNT_DETACH), "leaving the old root")
    os.chdir("/tmp")


def limit(seconds, memory, files):
    for name, value in (
        (resource.RLIMIT_CPU, int(seconds) + 1),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, files),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_NPROC, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        resource.setrlimit(name, (value, value))


class CapHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


def give_up_rights():
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    header = CapHeader(0x20080522, 0)
    checked(libc.capset(ctypes.byref(header), (ctypes.c_uint32 * 6)()), "giving up capabilities")
    # PR_SET_PDEATHSIG: the program ends with who started it. PR_SET_NO_NEW_PRIVS: no way back.
    checked(libc.prctl(1, signal.SIGKILL, 0, 0, 0), "prctl")
    checked(libc.prctl(38, 1, 0, 0, 0), "no_new_privs")


def filter_calls():
    """seccomp: refused calls fail with EPERM; clone only makes threads; clone3, whose flags a filter cannot see, does not exist."""
    calls = CALLS[platform.machine()]
    allow, kill, refuse, missing = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06

    def step(code, value, then=0, other=0):
        return struct.pack("HBBI", code, then, other, value)

    program = [step(load, 4), step(equal, calls["arch"], 1, 0), step(give, kill), step(load, 0)]
    # Numbers of the x32 interface, which would pass by the list.
    program += [step(at_least, 0x40000000, 0, 1), step(give, kill)]
    for call in calls["refused"]:
        program += [step(equal, call, 0, 1), step(give, refuse)]
    program += [step(equal, calls["clone3"], 0, 1), step(give, missing)]
    # CLONE_THREAD in the low half of the first argument.
    program += [step(equal, calls["clone"], 0, 3), step(load, 16), step(any_bit, 0x10000, 1, 0), step(give, refuse)]
    program += [step(give, allow)]
    code = ctypes.create_string_buffer(b"".join(program))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    checked(libc.prctl(22, 2, head, 0, 0), "seccomp")


def run(job, answers):
    """The child: never returns."""
    status, detail = "unavailable", ""
    try:
        build_root(job["folder"], job["files"])
        null = os.open("/dev/null", os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        for fd in range(3, 256):
            if fd != answers:
                try:
                    os.close(fd)
                except OSError:
                    pass
        os.environ.clear()
        sys.path[:] = [path for path in sys.path if os.path.isdir(path) and "site-packages" not in path]
        sys.argv[:] = [""]
        limit(job["seconds"], job["memory"], job["files"])
        give_up_rights()
        filter_calls()
    except (Unavailable, OSError) as error:
        os.write(answers, json.dumps([status, str(error)]).encode())
        os._exit(0)
    try:
        exec(compile(job["program"], "program", "exec"), {"__name__": "__main__"})
        status = "passed"
    except BaseException as error:  # SystemExit too: a program that leaves early has passed no tests
        status = "failed"
        try:
            detail = f"{type(error).__name__}: {error}"[:500]
        except BaseException:
            detail = "an error that cannot be shown"
    try:
        os.write(answers, json.dumps([status, detail]).encode())
    finally:
        os._exit(0)


def main():
    job = json.loads(sys.stdin.buffer.read())
    if platform.system() != "Linux" or platform.machine() not in CALLS:
        return "unavailable", "it needs Linux on x86-64 or arm64"
    # What the child would load later has no file any more.
    import encodings.idna  # noqa: F401

    try:
        enter()
    except (Unavailable, OSError) as error:
        return "unavailable", str(error)
    answers, written = os.pipe()
    child = os.fork()
    if child == 0:
        run(job, written)
    os.close(written)
    end = time.monotonic() + job["seconds"]
    answer = b""
    while len(answer) < 8192 and (left := end - time.monotonic()) > 0:
        if select.select([answers], [], [], left)[0]:
            part = os.read(answers, 8192)
            if part == b"":
                break
            answer += part
    timed_out = time.monotonic() >= end
    # The end of the first process of the namespace is the end of all of them.
    os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        status, detail = json.loads(answer)
        if status in ("passed", "failed", "unavailable") and isinstance(detail, str):
            return status, detail
    except (ValueError, TypeError):
        pass
    if timed_out or code == -signal.SIGXCPU:
        return "timed out", f"after {job['seconds']} s"
    return "failed", "the program ended before its tests did"


status, detail = main()
print(json.dumps({"status": status, "detail": detail}))
