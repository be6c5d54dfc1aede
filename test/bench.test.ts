// The bench harness: medians, alternation, the line it prints, and processes that answer line by line.
import { afterEach, expect, it, vi } from 'vitest'
import { startChild } from '../bench/child.ts'
import { alternate, median, peakMemory, report } from '../bench/measure.ts'

afterEach(() => vi.restoreAllMocks())

it('takes the middle value, or the mean of the two in the middle', () => {
  expect(median([3, 1, 2])).toBe(2)
  expect(median([4, 1, 2, 3])).toBe(2.5)
  expect(() => median([])).toThrow('no values')
})

it('runs contestants in turn, the first one changing, and leaves the warm-up out', async () => {
  const order: string[] = []
  const contestant = (name: string, values: number[]) => async () => {
    order.push(name)
    return values.shift() as number
  }
  const medians = await alternate(
    { a: contestant('a', [100, 1, 3, 2]), b: contestant('b', [100, 10, 30, 20]) },
    { rounds: 3, warmup: 1, rest: 0 },
  )
  expect(medians).toEqual({ a: 2, b: 20 })
  expect(order.join('')).toBe('abbaabba')
})

it('prints one JSON line per measurement', () => {
  const write = vi.spyOn(process.stdout, 'write').mockReturnValue(true)
  report({ bench: 'train', case: '7m', value: 1234.567, unit: 'tokens/s', peer: 'torch', peerValue: 1000 })
  report({ bench: 'train', case: '7m', value: 0.5, unit: 'of a step' })
  expect(write.mock.calls.map(([line]) => line)).toEqual([
    '{"bench":"train","case":"7m","value":1235,"unit":"tokens/s","peer":"torch","peer_value":1000,"ratio":1.235}\n',
    '{"bench":"train","case":"7m","value":0.5,"unit":"of a step","peer":null,"peer_value":null,"ratio":null}\n',
  ])
})

const script = `
  console.log(JSON.stringify({ name: 'echo' }))
  require('readline').createInterface({ input: process.stdin }).on('line', (line) => {
    if (line === 'fail') process.exit(3)
    console.log(JSON.stringify({ line }))
  })`

it('asks a process line by line, knows its memory and lets it end', async () => {
  const child = await startChild(process.execPath, ['-e', script])
  expect(child.name).toBe('echo')
  expect(await child.ask('one')).toEqual({ line: 'one' })
  expect(await child.ask('two')).toEqual({ line: 'two' })
  if (process.platform === 'linux') expect(peakMemory(child.pid)).toBeGreaterThan(2 ** 20)
  await child.close()
  expect(peakMemory(child.pid)).toBeUndefined()
})

it('says that a process ended instead of answering, or never started', async () => {
  const child = await startChild(process.execPath, ['-e', script])
  await expect(child.ask('fail')).rejects.toThrow('ended with 3')
  await child.close()
  await expect(startChild('/nonexistent/python', [])).rejects.toThrow('/nonexistent/python')
})
