// Traces as an SDK of the operator's gets them.
import { propagation, trace } from '@opentelemetry/api'
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { RunningServer } from '../../src/serve/index.ts'
import { post, testServer, tiny, until } from './models.ts'

const exporter = new InMemorySpanExporter()
let server: RunningServer
beforeAll(async () => {
  trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }))
  // The part of W3C trace context that is needed here.
  propagation.setGlobalPropagator({
    inject() {},
    fields: () => ['traceparent'],
    extract(context, carrier, getter) {
      const [, traceId = '', spanId = ''] = String(getter.get(carrier, 'traceparent') ?? '').split('-')
      return traceId === ''
        ? context
        : trace.setSpanContext(context, { traceId, spanId, traceFlags: 1, isRemote: true })
    },
  })
  server = await testServer({ models: [{ name: 'tiny', path: tiny }] })
})
afterAll(async () => {
  await server.close()
  trace.disable()
  propagation.disable()
})

test('a request is one trace, below that of its client, and tells no text', async () => {
  const traceId = '0af7651916cd43dd8448eb211c80319c'
  const headers = { traceparent: `00-${traceId}-b7ad6b7169203331-01` }
  const body = { prompt: 'the people of', max_tokens: 5, n: 2, stream: true, temperature: 1, seed: 1 }
  const response = await post(`${server.url}/v1/completions`, body, { headers })
  await response.text()
  await until(() => exporter.getFinishedSpans().length === 3)
  const spans = exporter.getFinishedSpans()
  expect(spans.map(({ name }) => name).sort()).toEqual(['POST /v1/completions', 'generate', 'generate'])
  expect(new Set(spans.map((span) => span.spanContext().traceId))).toEqual(new Set([traceId]))
  const request = spans.find(({ name }) => name !== 'generate')!
  expect(request.parentSpanContext?.spanId).toBe('b7ad6b7169203331')
  expect(request.attributes).toMatchObject({
    'http.route': '/v1/completions',
    'http.response.status_code': 200,
    'unmask.request_id': response.headers.get('x-request-id'),
  })
  for (const span of spans.filter(({ name }) => name === 'generate')) {
    expect(span.parentSpanContext?.spanId).toBe(request.spanContext().spanId)
    expect(span.attributes).toMatchObject({ 'gen_ai.request.model': 'tiny', 'gen_ai.usage.output_tokens': 5 })
  }
  expect(JSON.stringify(spans.map(({ attributes }) => attributes))).not.toContain('people')
})
