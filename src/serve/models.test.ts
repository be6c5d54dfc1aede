import { expect, test } from 'vitest'
import { parseConfig } from './config.ts'
import { createLog } from './log.ts'
import { createMetrics } from './metrics.ts'
import { createModels } from './models.ts'

// Nothing is loaded before it is asked for.
const models = createModels(parseConfig({ models: [{ path: 'a/tiny', aliases: ['small'] }, { path: 'a/base' }] }), {
  log: createLog('silent'),
  metrics: createMetrics(),
})

test('a model is found by its name or another name for it, the first one without a name', () => {
  expect(models.find('small').name).toBe('tiny')
  expect(models.find('base').name).toBe('base')
  expect(models.find(null).name).toBe('tiny')
})

test('a name that none has is answered with it and with those that there are', () => {
  expect(() => models.find('tinny')).toThrow(
    expect.objectContaining({
      ...{ status: 404, code: 'model_not_found', param: 'model' },
      message: 'there is no model "tinny"; there are: tiny, small, base',
    }),
  )
  expect(() => models.find('x'.repeat(300))).toThrow(/no model "x{79}\.\.\.;/)
})
