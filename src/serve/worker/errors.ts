// Errors that a model's process reports for a request.

/** A request that this model cannot serve. */
export class RequestError extends Error {
  override name = 'RequestError'
  readonly param: string | undefined
  readonly code: string | undefined

  constructor(message: string, { param, code }: { param?: string; code?: string } = {}) {
    super(message)
    this.param = param
    this.code = code
  }
}
