import fc from 'fast-check'
import { expect, test } from 'vitest'
import { events } from './api.ts'

test('events are the same however the network cuts them', async () => {
  const sent = ['{"text":"a"}', '{"text":"äöü 字 🙂"}', '[DONE]']
  const bytes = new TextEncoder().encode(sent.map((data) => `data: ${data}\n\n`).join(''))
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(bytes.length), { maxLength: 6 }), async (cuts) => {
      const at = [0, ...cuts.sort((a, b) => a - b), bytes.length]
      const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
        start(controller) {
          for (let i = 1; i < at.length; i++) controller.enqueue(bytes.slice(at[i - 1], at[i]))
          controller.close()
        },
      })
      const got: string[] = []
      for await (const data of events({ body })) got.push(data)
      expect(got).toEqual(sent)
    }),
    { seed: 1 },
  )
})
