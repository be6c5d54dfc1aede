// Traces through OpenTelemetry's API. Without an SDK, which the operator loads before the server, nothing is recorded and
// nothing is sent. Spans carry names, counts and times: never prompts, answers or keys.
import {
  type Attributes,
  type Context,
  propagation,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace,
} from '@opentelemetry/api'
import { packageVersion } from '../core/versions.ts'

export type TraceContext = Context

const tracer = () => trace.getTracer('unmask', packageVersion())

export interface OpenSpan {
  /** For the spans below it. */
  context: TraceContext
  end(attributes: Attributes, failed?: boolean): void
}

const open = (span: Span, parent: Context): OpenSpan => ({
  context: trace.setSpan(parent, span),
  end(attributes, failed = false) {
    span.setAttributes(attributes)
    if (failed) span.setStatus({ code: SpanStatusCode.ERROR })
    span.end()
  },
})

/** The span of a request, below that of the client where its headers name one. */
export function requestSpan(method: string, headers: Headers): OpenSpan & { rename(name: string): void } {
  const parent = propagation.extract(ROOT_CONTEXT, headers, {
    get: (carrier, key) => carrier.get(key) ?? undefined,
    keys: (carrier) => [...carrier.keys()],
  })
  const attributes = { 'http.request.method': method }
  const span = tracer().startSpan(method, { kind: SpanKind.SERVER, attributes }, parent)
  return { ...open(span, parent), rename: (name) => span.updateName(name) }
}

/** A span of work below another. */
export const childSpan = (name: string, parent: TraceContext, attributes: Attributes): OpenSpan =>
  open(tracer().startSpan(name, { attributes }, parent), parent)
