// What can go wrong while a model is loaded or runs in a browser, and what to do.
import { UserError } from '../core/types.ts'

/**
 * - `network`: the download stopped; load again goes on where it stopped.
 * - `corrupt`: a file is not what the manifest says.
 * - `storage`: there is no room to keep the model.
 * - `memory`: there is no room to run it.
 * - `device`: the graphics processor was lost.
 * - `support`: the browser lacks something.
 */
export type LoadReason = 'network' | 'corrupt' | 'storage' | 'memory' | 'device' | 'support'

/** An error with a reason that an application can act on: after each of them loading again may work. */
export class LoadError extends UserError {
  override name = 'LoadError'
  readonly reason: LoadReason

  constructor(reason: LoadReason, message: string) {
    super(message)
    this.reason = reason
  }
}

export const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`
