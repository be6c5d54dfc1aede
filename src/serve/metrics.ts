// Prometheus metrics of a server. Labels are names from the configuration and the routes, never what a client sends.
import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { Models } from './models.ts'

const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300]

export type Metrics = ReturnType<typeof createMetrics>

export function createMetrics() {
  const registry = new Registry()
  const registers = [registry]
  const labels = { model: ['model'] as const }
  const metrics = {
    requests: new Counter({
      name: 'unmask_requests_total',
      help: 'Requests answered.',
      labelNames: ['route', 'status'] as const,
      registers,
    }),
    requestSeconds: new Histogram({
      name: 'unmask_request_seconds',
      help: 'Time from a request to the end of its answer.',
      labelNames: ['route'] as const,
      buckets: SECONDS,
      registers,
    }),
    firstTokenSeconds: new Histogram({
      name: 'unmask_first_token_seconds',
      help: 'Time from a request to its first text, waiting included.',
      labelNames: labels.model,
      buckets: SECONDS,
      registers,
    }),
    promptTokens: new Counter({
      name: 'unmask_prompt_tokens_total',
      help: 'Tokens of prompts.',
      labelNames: labels.model,
      registers,
    }),
    completionTokens: new Counter({
      name: 'unmask_completion_tokens_total',
      help: 'Tokens generated.',
      labelNames: labels.model,
      registers,
    }),
    forwards: new Counter({
      name: 'unmask_forwards_total',
      help: 'Forwards of sequences; completion tokens divided by it are the tokens per forward.',
      labelNames: labels.model,
      registers,
    }),
    cancelled: new Counter({
      name: 'unmask_cancelled_total',
      help: 'Sequences whose client went before the end.',
      labelNames: labels.model,
      registers,
    }),
    safety: new Counter({
      name: 'unmask_safety_total',
      help: 'Prompts and answers that were judged, by what was done; endpoint failures.',
      labelNames: ['direction', 'action'] as const,
      registers,
    }),
    restarts: new Counter({
      name: 'unmask_model_restarts_total',
      help: 'Times that the process of a model ended and was started again.',
      labelNames: labels.model,
      registers,
    }),
  }

  /** Adds what is read from the models when somebody looks. */
  function watch(models: Models): void {
    const gauge = (name: string, help: string, value: (model: ReturnType<Models['list']>[number]) => number) =>
      new Gauge({
        name,
        help,
        labelNames: labels.model,
        registers,
        collect() {
          this.reset()
          for (const model of models.list()) this.set({ model: model.name }, value(model))
        },
      })
    gauge('unmask_running', 'Sequences that have a place.', ({ queue }) => queue.running)
    gauge('unmask_waiting', 'Sequences that wait for a place.', ({ queue }) => queue.waiting)
    gauge('unmask_model_ready', '1 where the process of the model is ready.', ({ worker }) => (worker ? 1 : 0))
    new Gauge({
      name: 'unmask_resident_memory_bytes',
      help: 'Memory of the server process, without those of the models.',
      registers,
      collect() {
        this.set(process.memoryUsage.rss())
      },
    })
  }

  return { ...metrics, watch, contentType: registry.contentType, text: () => registry.metrics() }
}
