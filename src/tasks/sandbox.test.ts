// Hostile programs in the sandbox. Skipped where the system cannot contain them, which it then says.
import { mkdtempSync } from 'node:fs'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { UserError } from '../core/types.ts'
import { createSandbox } from './sandbox.ts'

const sandbox = await createSandbox({ limits: { seconds: 20 } }).catch((error: unknown) => {
  if (error instanceof UserError) return error
  throw error
})

describe.skipIf(sandbox instanceof UserError)('a program in the sandbox', () => {
  const run = (program: string) => (sandbox as Exclude<typeof sandbox, UserError>)(program)
  // A temporary folder of its own: what is left behind in it is seen.
  const own = mkdtempSync(join(tmpdir(), 'unmask-sandboxes-'))
  const { TMPDIR } = process.env
  process.env.TMPDIR = own
  const secrets = join(own, 'secret')
  const server = createServer((socket) => socket.end('hello'))
  let port = 0

  beforeAll(async () => {
    await writeFile(secrets, 'secret')
    port = await new Promise((resolve) => {
      server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port))
    })
  })
  afterAll(async () => {
    server.close()
    await rm(own, { recursive: true })
    if (TMPDIR === undefined) delete process.env.TMPDIR
    else process.env.TMPDIR = TMPDIR
  })

  it('passes where it ends without an error', async () => {
    const program = 'import math, re, collections, heapq, hashlib, json, typing\nassert math.gcd(12, 18) == 6'
    expect(await run(program)).toEqual({ status: 'passed', detail: '' })
    expect(await run('open("a.txt", "w").write("x")\nassert open("a.txt").read() == "x"')).toMatchObject({
      status: 'passed',
    })
  })

  it('fails by an error, and where it leaves before its tests', async () => {
    expect(await run('assert 1 == 2, "no"')).toEqual({ status: 'failed', detail: 'AssertionError: no' })
    expect(await run('def f(:')).toMatchObject({ status: 'failed', detail: expect.stringContaining('SyntaxError') })
    expect(await run('import sys\nsys.exit(0)\nassert False')).toMatchObject({ status: 'failed' })
    expect(await run('import os\nos._exit(0)\nassert False')).toMatchObject({ status: 'failed' })
    expect(await run('import ctypes\nctypes.string_at(0)')).toMatchObject({ status: 'failed' })
    expect(await run('print("passed" * 10**6)\nimport sys\nsys.stderr.write("x" * 10**7)\nassert False')).toMatchObject(
      {
        status: 'failed',
        detail: 'AssertionError: ',
      },
    )
  })

  it('reads no files but those of Python, and no environment', async () => {
    for (const path of ['/etc/passwd', secrets, process.cwd(), '/proc/self/environ', '/proc/1/root', '/sys', '/home'])
      expect(await run(`import os\nassert not os.path.exists(${JSON.stringify(path)})`), path).toMatchObject({
        status: 'passed',
      })
    expect(await run('import os\nassert not os.environ\nassert os.getuid() not in (0, 1)')).toMatchObject({
      status: 'passed',
    })
  })

  it('writes nothing but little of its own folder', async () => {
    for (const path of ['/x', '/usr/lib/x', '/dev/x', `${import.meta.dirname}/x`])
      expect(await run(`open(${JSON.stringify(path)}, "w")`), path).toMatchObject({ status: 'failed' })
    expect(await run('open("big", "wb").write(bytes(2**22))')).toMatchObject({ status: 'failed' })
    const many = 'for i in range(100):\n    open(str(i), "wb").write(bytes(2**19))'
    expect(await run(many)).toMatchObject({ status: 'failed', detail: expect.stringContaining('No space') })
    expect(await run('import os\nos.link("/dev/null", "x")')).toMatchObject({ status: 'failed' })
    expect(await readdir(own)).toEqual(['secret'])
  })

  it('reaches no network, not even this machine', async () => {
    const connect = `import socket\nsocket.create_connection(("127.0.0.1", ${port}), 1)`
    expect(await run(connect)).toMatchObject({ status: 'failed', detail: expect.stringContaining('PermissionError') })
    expect(await run('import socket\nsocket.socketpair()')).toMatchObject({ status: 'failed' })
    const raw = 'import ctypes\nassert ctypes.CDLL(None).socket(2, 1, 0) == -1'
    expect(await run(raw)).toMatchObject({ status: 'passed' })
  })

  it('starts no process and no other program', async () => {
    for (const program of [
      'import os\nwhile True: os.fork()',
      'import os\nos.execv("/bin/sh", ["sh"])',
      'import os\nos.posix_spawn("/bin/sh", ["sh"], {})',
      'import subprocess\nsubprocess.run(["true"])',
      'import multiprocessing\np = multiprocessing.Process(target=print)\np.start()',
    ])
      expect(await run(program), program).toMatchObject({ status: 'failed' })
    const threads = `import threading, time
for i in range(10000): threading.Thread(target=time.sleep, args=(9,), daemon=True).start()`
    expect(await run(threads)).toMatchObject({ status: 'failed' })
    expect(await run('import os\nos.kill(-1, 9)')).toMatchObject({ status: 'failed' })
  })

  it('gets no rights back', async () => {
    const calls = `import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for flags in (0x10000000, 0x20000, 0x40000000): assert libc.unshare(flags) == -1
assert libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None) == -1
assert libc.ptrace(0, 0, 0, 0) == -1
assert libc.setresuid(0, 0, 0) == -1
assert libc.syscall(${process.arch === 'arm64' ? 279 : 319}, b"x", 0) == -1
assert libc.chroot(b"/tmp") == -1`
    expect(await run(calls)).toEqual({ status: 'passed', detail: '' })
  })

  it('is ended by time and memory', async () => {
    const soon = await createSandbox({ limits: { seconds: 0.5 } })
    expect(await soon('while True: pass')).toMatchObject({ status: 'timed out' })
    const stubborn = `import signal
for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)
while True:
    try:
        while True: pass
    except BaseException: pass`
    expect(await soon(stubborn)).toMatchObject({ status: 'timed out' })
    expect(await run('x = bytearray(2**31)')).toMatchObject({ status: 'failed', detail: 'MemoryError: ' })
    expect(await run('x = []\nwhile True: x.append(bytes(2**20))')).toMatchObject({ status: 'failed' })
  })
})

it('refuses where nothing contains programs', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'python-'))
  try {
    const python = join(folder, 'python')
    const answer = '{"status": "unavailable", "detail": "namespaces (unshare): Operation not permitted"}'
    await writeFile(python, `#!/bin/sh\necho '${answer}'\n`, { mode: 0o755 })
    await expect(createSandbox({ python })).rejects.toThrow(/no sandbox for programs here: namespaces \(unshare\)/)
    await expect(createSandbox({ python: join(folder, 'none') })).rejects.toThrow(/UNMASK_PYTHON/)
    await writeFile(python, '#!/bin/sh\necho Traceback >&2\n', { mode: 0o755 })
    await expect(createSandbox({ python })).rejects.toThrow(/did not start: Traceback/)
  } finally {
    await rm(folder, { recursive: true })
  }
})
