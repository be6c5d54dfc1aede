// The executor with real programs: resident buffers, errors, cancelling, disposing, several at once.
import { spawn } from 'node:child_process'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { devices, type TensorData, UserError } from '../../core/types.ts'
import { add, mul } from '../../graph/ops/elementwise.ts'
import { input } from '../../graph/ops/input.ts'
import { cast } from '../../graph/ops/layout.ts'
import { matmul } from '../../graph/ops/linear.ts'
import { exportOnnx, type Program } from '../../graph/program.ts'
import type { Shape } from '../../graph/shape.ts'
import type { Tensor } from '../../graph/tensor.ts'
import type { Weight } from '../executor.ts'
import { DeviceError, withoutHalf } from './device.ts'
import { createExecutor } from './executor.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

const program = (outputs: Record<string, Tensor>): Program => ({ name: 'program', outputs })
const floats = (shape: number[], ...values: number[]): TensorData => ({
  dtype: 'float32',
  shape,
  data: Float32Array.from(values),
})
const float = (name: string, shape: Shape): Tensor => input(name, 'float32', shape)

/** y = a + b, of any length. */
const sum = program({ y: add(float('a', ['N']), float('b', ['N'])) })

/** A program that takes a while: a chain of matrix products. */
function long(products = 24): { program: Program; feeds: Record<string, TensorData> } {
  const size = 512
  const x = float('x', [size, size])
  let y = x
  for (let i = 0; i < products; i++) y = matmul(y, x)
  const feeds = { x: { dtype: 'float32', shape: [size, size], data: new Float32Array(size * size) } as TensorData }
  return { program: program({ y }), feeds }
}

it('says what to do where a device lacks float16', () => {
  const lacking = new Error(
    'Status Message: shader_helper.cc:401 Program Gemm requires f16 but the device does not support it',
  )
  expect(withoutHalf('webgpu', lacking)).toBeInstanceOf(DeviceError)
  expect(String(withoutHalf('webgpu', lacking))).toMatch(/leave --device out, or quantise .* Program Gemm requires f16/)
  for (const other of [new Error('device lost'), 'no error']) expect(withoutHalf('webgpu', other)).toBe(other)
  expect(withoutHalf('cpu', lacking)).toBe(lacking)
})

describe('weights of a session', () => {
  /** y = a x + b, for x of any length. */
  const shapes = { a: [64], b: [1] }
  const exported = exportOnnx(
    { name: 'program', outputs: { y: add(mul(float('x', ['N', 64]), float('a', shapes.a)), float('b', shapes.b)) } },
    { loaded: new Set(['a', 'b']) },
  )
  const weight = (name: 'a' | 'b', value: number): Weight => {
    const data = new Float32Array(shapes[name][0]).fill(value)
    return { dtype: 'float32', data, uses: [{ name, shape: shapes[name] }] }
  }
  const x = floats([1, 64], ...Array<number>(64).fill(5))

  it('are constants that it takes one after the other', async () => {
    const taken: Weight[] = []
    async function* weights() {
      for (const next of [weight('a', 2), weight('b', 3)]) {
        for (const { data } of taken) expect(data.length).toBe(0)
        taken.push(next)
        yield next
      }
    }
    const session = await executor.loadModel(exported.model, { weights: weights() })
    const other = await executor.loadModel(exported.model, { weights: [weight('b', 1), weight('a', 4)] })
    // A weight is no input any more.
    const feeds = { x, a: floats([64], ...Array<number>(64).fill(9)) }
    expect((await session.run(feeds, { y: null })).y.data).toEqual(new Float32Array(64).fill(13))
    expect((await other.run(feeds, { y: null })).y.data).toEqual(new Float32Array(64).fill(21))
    await session.release()
    expect((await other.run(feeds, { y: null })).y.data).toEqual(new Float32Array(64).fill(21))
    await other.release()
  })

  it('that cannot be read, or do not fit, are an error, and the executor goes on', async () => {
    async function* broken() {
      yield weight('a', 2)
      throw new UserError('model.gguf: the file became shorter while it was read')
    }
    await expect(executor.loadModel(exported.model, { weights: broken() })).rejects.toThrow('became shorter')
    const misnamed = { ...weight('b', 3), uses: [{ name: 'c', shape: [1] }] }
    await expect(executor.loadModel(exported.model, { weights: [misnamed] })).rejects.toThrow(
      'the model has no input c',
    )
    const short = { ...weight('b', 3), uses: [{ name: 'b', shape: [2] }] }
    await expect(executor.loadModel(exported.model, { weights: [short] })).rejects.toThrow('b is [2], its values are 1')
    const session = await executor.loadModel(exported.model, { weights: [weight('a', 2), weight('b', 3)] })
    expect((await session.run({ x }, { y: null })).y.data).toEqual(new Float32Array(64).fill(13))
    await session.release()
  })
})

describe('resident buffers', () => {
  it('are zeroed, or hold what they are given, which is moved', async () => {
    await executor.allocate('zeros', 'float32', 3)
    expect(await executor.read('zeros')).toEqual(new Float32Array(3))
    const data = Float32Array.of(1, 2, 3)
    await executor.allocate('given', 'float32', data)
    expect(data.length).toBe(0)
    expect(await executor.read('given')).toEqual(Float32Array.of(1, 2, 3))
  })

  it('are read and written in part; what was read is a copy', async () => {
    await executor.allocate('part', 'int64', BigInt64Array.of(1n, 2n, 3n, 4n))
    await executor.write('part', BigInt64Array.of(8n, 9n), 1)
    const copy = (await executor.read('part', 1, 3)) as BigInt64Array
    expect(copy).toEqual(BigInt64Array.of(8n, 9n, 4n))
    copy.fill(0n)
    expect(await executor.read('part', 0, 2)).toEqual(BigInt64Array.of(1n, 8n))
    await expect(executor.write('part', BigInt64Array.of(1n), 4)).rejects.toThrow(/out of bounds/)
  })

  it('feed a program and take its output, in part too', async () => {
    const session = await executor.load(sum)
    await executor.allocate('in', 'float32', Float32Array.of(1, 2, 3, 4))
    await executor.allocate('out', 'float32', 4)
    const outputs = await session.run(
      { a: { resident: 'in', offset: 1, shape: [2] }, b: floats([2], 10, 20) },
      { y: { resident: 'out', offset: 2, shape: [2] } },
    )
    expect(outputs).toEqual({})
    expect(await executor.read('out')).toEqual(Float32Array.of(0, 0, 12, 23))
    await session.release()
  })

  it('may be input and output at once', async () => {
    const session = await executor.load(sum, { optimize: false })
    await executor.allocate('total', 'float32', Float32Array.of(1, 2))
    const total = { resident: 'total', shape: [2] }
    for (let i = 0; i < 3; i++) await session.run({ a: total, b: floats([2], 1, 10) }, { y: total })
    expect(await executor.read('total')).toEqual(Float32Array.of(4, 32))
    await session.release()
  })

  it('are moved in part, each in the same way and one move after the other', async () => {
    for (const name of ['first', 'second']) await executor.allocate(name, 'float32', Float32Array.of(1, 2, 3, 4, 5))
    await executor.move(
      ['first', 'second'],
      [
        { from: 2, to: 0, length: 2 },
        { from: 4, to: 2, length: 1 },
      ],
    )
    for (const name of ['first', 'second']) expect(await executor.read(name)).toEqual(Float32Array.of(3, 4, 5, 4, 5))
  })

  it('are copied in part to others', async () => {
    await executor.allocate('first', 'float32', Float32Array.of(1, 2, 3))
    await executor.allocate('second', 'float32', Float32Array.of(4, 5, 6))
    for (const name of ['to first', 'to second']) await executor.allocate(name, 'float32', 5)
    await executor.move(['first', 'second'], [{ from: 1, to: 2, length: 2 }], ['to first', 'to second'])
    expect(await executor.read('to first')).toEqual(Float32Array.of(0, 0, 2, 3, 0))
    expect(await executor.read('to second')).toEqual(Float32Array.of(0, 0, 5, 6, 0))
    expect(await executor.read('first')).toEqual(Float32Array.of(1, 2, 3))
  })

  it('are bound to a session for the runs that follow, beside what each run has', async () => {
    const session = await executor.load(sum)
    await executor.allocate('bound', 'float32', Float32Array.of(1, 2, 3))
    const [head, tail] = [
      { resident: 'bound', shape: [2] },
      { resident: 'bound', offset: 1, shape: [2] },
    ]
    await session.bind({ a: head }, { y: head })
    for (let i = 0; i < 2; i++) expect(await session.run({ b: floats([2], 1, 10) }, {})).toEqual({})
    expect(await executor.read('bound')).toEqual(Float32Array.of(3, 22, 3))
    await session.bind({ a: tail }, {})
    expect(await session.run({ b: floats([2], 1, 1) }, { y: null })).toEqual({ y: floats([2], 23, 4) })
    await session.release()
  })

  it('are bound no longer once they are allocated anew or freed', async () => {
    const session = await executor.load(sum)
    for (const end of ['allocate', 'free'] as const) {
      await executor.allocate('brief', 'float32', Float32Array.of(1))
      await session.bind({ a: { resident: 'brief', shape: [1] } }, {})
      expect((await session.run({ b: floats([1], 1) }, { y: null })).y).toEqual(floats([1], 2))
      if (end === 'free') await executor.free('brief')
      else await executor.allocate('brief', 'float32', 4)
      await expect(session.run({ b: floats([1], 1) }, { y: null })).rejects.toThrow(/\ba\b/)
    }
    await session.release()
  })

  it('get another size, zeros but for what is moved', async () => {
    await executor.resize(['grows', 'too'], 'float32', 2, [])
    expect(await executor.read('too')).toEqual(new Float32Array(2))
    await executor.write('grows', Float32Array.of(1, 2))
    await executor.write('too', Float32Array.of(3, 4))
    await executor.resize(['grows', 'too'], 'float32', 4, [
      { from: 1, to: 0, length: 1 },
      { from: 0, to: 2, length: 2 },
    ])
    expect(await executor.read('grows')).toEqual(Float32Array.of(2, 0, 1, 2))
    expect(await executor.read('too')).toEqual(Float32Array.of(4, 0, 3, 4))
    await executor.free('grows', 'too')
    await expect(executor.read('too')).rejects.toThrow('no resident buffer too')
  })

  it('are gone when freed', async () => {
    await executor.allocate('gone', 'float32', 1)
    await executor.free('gone')
    await expect(executor.read('gone')).rejects.toThrow('no resident buffer gone')
  })
})

describe('errors', () => {
  it('reach the caller, and the executor goes on', async () => {
    await expect(executor.loadModel(Uint8Array.of(1, 2, 3))).rejects.toThrow(/protobuf|load model/i)
    const session = await executor.load(sum)
    await expect(session.run({ a: floats([2], 1, 2) }, { y: null })).rejects.toThrow(/b/)
    await expect(session.run({ a: floats([2], 1, 2), b: floats([3], 1, 2, 3) }, { y: null })).rejects.toThrow()
    const missing = { resident: 'nowhere', shape: [2] }
    await expect(session.run({ a: missing, b: missing }, { y: null })).rejects.toThrow('no resident buffer nowhere')
    const { y } = await session.run({ a: floats([1], 1), b: floats([1], 2) }, { y: null })
    expect(y).toEqual(floats([1], 3))
    await session.release()
    await expect(session.run({ a: floats([1], 1), b: floats([1], 2) }, { y: null })).rejects.toThrow('no session')
  })

  it('name a buffer that is too small', async () => {
    const session = await executor.load(sum)
    await executor.allocate('small', 'float32', 3)
    const past = { resident: 'small', offset: 2, shape: [2] }
    await expect(session.run({ a: past, b: past }, { y: null })).rejects.toThrow('resident buffer small ends before 4')
    await expect(session.bind({ a: past }, {})).rejects.toThrow('resident buffer small ends before 4')
    await session.release()
  })
})

describe('cancelling', () => {
  it('before a run: rejects with the reason and runs nothing', async () => {
    const session = await executor.load(sum)
    await executor.allocate('untouched', 'float32', 1)
    const fetches = { y: { resident: 'untouched', shape: [1] } }
    const signal = AbortSignal.abort(new Error('not wanted'))
    const run = session.run({ a: floats([1], 1), b: floats([1], 1) }, fetches, { signal })
    await expect(run).rejects.toThrow('not wanted')
    expect(await executor.read('untouched')).toEqual(Float32Array.of(0))
    await session.release()
  })

  it('during a run: rejects with the reason before the run ends, and the executor goes on', async () => {
    const { program, feeds } = long()
    const slow = await executor.load(program, { optimize: false })
    const controller = new AbortController()
    const cancelled = slow.run(feeds, { y: null }, { signal: controller.signal })
    // Requests are answered in order, so this one shows when the cancelled run is over.
    let over = false
    const after = executor.memory().then(() => {
      over = true
    })
    controller.abort(new Error('stop'))
    await expect(cancelled).rejects.toThrow('stop')
    expect(over).toBe(false)
    await after
    const { y } = await slow.run(feeds, { y: null }, { signal: new AbortController().signal })
    expect(y.shape).toEqual([512, 512])
    await slow.release()
  })

  it('after a run changes nothing', async () => {
    const session = await executor.load(sum)
    const controller = new AbortController()
    const feeds = { a: floats([1], 1), b: floats([1], 1) }
    const { y } = await session.run(feeds, { y: null }, { signal: controller.signal })
    controller.abort()
    expect(y.data).toEqual(Float32Array.of(2))
    await session.release()
  })
})

describe('disposing', () => {
  it('rejects what is under way and everything after', async () => {
    const own = createExecutor({ threads: 1 })
    const { program, feeds } = long()
    const session = await own.load(program, { optimize: false })
    const run = session.run(feeds, { y: null })
    const rejected = expect(run).rejects.toThrow('the executor was disposed')
    await own.dispose()
    await rejected
    await expect(own.allocate('x', 'float32', 1)).rejects.toThrow('the executor was disposed')
    await own.dispose()
  })

  it('is not needed for the process to end, and a run under way holds it', async () => {
    const script = fileURLToPath(new URL('../../../test/runtime/idle.ts', import.meta.url))
    const child = spawn(process.execPath, ['--import', 'tsx', script], { stdio: ['ignore', 'pipe', 'inherit'] })
    let output = ''
    child.stdout.on('data', (chunk) => {
      output += chunk
    })
    const code = await new Promise((resolve) => child.once('close', resolve))
    expect(output).toBe('y = -3\n')
    expect(code).toBe(0)
  })
})

it('leaves the event loop free during a run', async () => {
  const { program, feeds } = long()
  const session = await executor.load(program, { optimize: false })
  let running = true
  let turns = 0
  const run = session.run(feeds, { y: null }).finally(() => {
    running = false
  })
  while (running) {
    await new Promise((resolve) => setTimeout(resolve, 0))
    turns++
  }
  await run
  expect(turns).toBeGreaterThan(5)
  await session.release()
})

it('runs requests in the order in which they were made', async () => {
  const session = await executor.load(sum)
  await executor.allocate('order', 'float32', Float32Array.of(0))
  const order = { resident: 'order', shape: [1] }
  const seen = await Promise.all(
    [1, 2, 3].flatMap((value) => [
      session.run({ a: order, b: floats([1], value) }, { y: order }).then(() => undefined),
      executor.read('order').then((data) => data[0]),
    ]),
  )
  expect(seen).toEqual([undefined, 1, undefined, 3, undefined, 6])
  await session.release()
})

it('keeps two executors apart', async () => {
  const other = createExecutor({ threads: 2 })
  expect([executor.threads, other.threads]).toEqual([1, 2])
  const both = [executor, other]
  await Promise.all(both.map((one, i) => one.allocate('shared', 'float32', Float32Array.of(i))))
  const results = await Promise.all(
    both.map(async (one) => {
      const session = await one.load(sum)
      const { y } = await session.run({ a: { resident: 'shared', shape: [1] }, b: floats([1], 5) }, { y: null })
      await session.release()
      return y.data[0]
    }),
  )
  expect(results).toEqual([5, 6])
  await other.dispose()
  expect(await executor.read('shared')).toEqual(Float32Array.of(0))
})

it('moves values of other types', async () => {
  const x = input('x', 'int64', ['N'])
  const session = await executor.load(program({ whole: cast(x, 'int32'), same: mul(x, cast(float('f', []), 'int64')) }))
  const data = BigInt64Array.of(-1n, 2n ** 40n)
  const { whole, same } = await session.run(
    { x: { dtype: 'int64', shape: [2], data }, f: floats([], 3) },
    { whole: null, same: null },
  )
  expect(whole).toEqual({ dtype: 'int32', shape: [2], data: Int32Array.of(-1, 0) })
  expect(same).toEqual({ dtype: 'int64', shape: [2], data: BigInt64Array.of(-3n, 3n * 2n ** 40n) })
  expect(data).toEqual(BigInt64Array.of(-1n, 2n ** 40n))
  await session.release()
})

it('writes a profile', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'unmask-executor-'))
  try {
    const session = await executor.load(sum, { profile: join(folder, 'profile') })
    const { y } = await session.run({ a: floats([1], 1), b: floats([1], 2) }, { y: null })
    expect(y.data).toEqual(Float32Array.of(3))
    await session.endProfiling()
    await session.release()
    expect(await readdir(folder)).toContainEqual(expect.stringMatching(/^profile.*\.json$/))
  } finally {
    await rm(folder, { recursive: true })
  }
})

it('knows the memory of the process', async () => {
  expect(await executor.memory()).toBeGreaterThan(2 ** 20)
})

it.each(devices.filter((device) => device !== 'cpu'))('runs on %s, or says what the machine lacks', async (device) => {
  const other = createExecutor({ threads: 1, device })
  const { y } = await other
    .load(sum)
    .then((session) => session.run({ a: floats([1], 1), b: floats([1], 2) }, { y: null }))
    .catch((error: Error) => {
      expect(error).toBeInstanceOf(UserError)
      expect(error.message).toContain(`--device ${device} cannot be used here; it needs`)
      return { y: floats([1], 3) }
    })
  expect(y.data).toEqual(Float32Array.of(3))
  await other.dispose()
})

it("sends and keeps nothing of ONNX Runtime's telemetry", async () => {
  const home = await mkdtemp(join(tmpdir(), 'unmask-executor-'))
  try {
    const script = fileURLToPath(new URL('../../../test/runtime/idle.ts', import.meta.url))
    const env: NodeJS.ProcessEnv = { ...process.env, HOME: home, XDG_CACHE_HOME: home }
    delete env.ORT_DISABLE_TELEMETRY
    const child = spawn(process.execPath, ['--import', 'tsx', script], { env, stdio: 'ignore' })
    expect(await new Promise((resolve) => child.once('close', resolve))).toBe(0)
    expect(await readdir(home)).toEqual([])
  } finally {
    await rm(home, { recursive: true })
  }
})
