// Errors that a model's process reports for a request.
import { SettingError, UserError } from '../../core/types.ts'
import { apiName } from '../decoding.ts'

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

/**
 * An error as a client may see it: what is wrong with its request, in the API's words, and nothing of others. `param`: the
 * field that it is about where it names no setting.
 */
export function asReported(error: unknown, param: string | undefined): unknown {
  if (error instanceof SettingError)
    return new RequestError(error.inNames(apiName), { param: apiName(error.settings[0]) })
  return error instanceof UserError ? new RequestError(error.message, param === undefined ? {} : { param }) : error
}
