// Errors as OpenAI's API shapes them. Knows HTTP statuses, not who serves them.

/** An error as a client gets it: status, message, the field it is about, and a code that programs can compare. */
export class ApiError extends Error {
  override name = 'ApiError'
  readonly status: number
  readonly type: string
  readonly code: string | null
  readonly param: string | null
  /** Seconds after which the same request may succeed. */
  readonly retryAfter: number | undefined

  constructor(
    status: number,
    message: string,
    {
      code = null,
      param = null,
      retryAfter,
    }: { code?: string | null; param?: string | null; retryAfter?: number } = {},
  ) {
    super(message)
    this.status = status
    this.type = types[status] ?? (status >= 500 ? 'server_error' : 'invalid_request_error')
    this.code = code
    this.param = param
    this.retryAfter = retryAfter
  }

  /** The body of the response, and of an error inside a stream. */
  body(): ErrorBody {
    return { error: { message: this.message, type: this.type, param: this.param, code: this.code } }
  }
}

export interface ErrorBody {
  error: { message: string; type: string; param: string | null; code: string | null }
}

const types: Record<number, string> = {
  401: 'authentication_error',
  403: 'permission_error',
  429: 'rate_limit_error',
}

/** A request that cannot be served as it is; `param` names the field. */
export const badRequest = (message: string, param: string | null = null, code: string | null = null): ApiError =>
  new ApiError(400, message, { param, code })

/** What a client gets for an error of the server: nothing of its text, which may hold paths or prompts. */
export const internalError = (): ApiError =>
  new ApiError(500, 'internal error of the server; its log has the details', { code: 'internal_error' })
