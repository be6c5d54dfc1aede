// Where fetched models are kept.
import { homedir } from 'node:os'
import { join } from 'node:path'

/** `UNMASK_CACHE`, or `~/.cache/unmask`. */
export const cacheFolder = (): string => process.env.UNMASK_CACHE || join(homedir(), '.cache', 'unmask')

/** Called with bytes done and in all of the file that is being fetched. */
export type Progress = (done: number, total: number, file: string) => void
