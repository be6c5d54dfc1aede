// What an error means to who gave the command: a message, an exit code, and whether it is a defect.
import { CommanderError } from 'commander'
import { describeFileError } from '../checkpoint/file.ts'
import { SettingError, UserError } from '../core/types.ts'
import { RecipeError } from '../jobs/recipe.ts'
import { TrainingDiverged } from '../train/loop.ts'
import { exitCodes } from './exit-codes.ts'
import { recipeFlag, settingFlag } from './flag-names.ts'

/** The command line itself is wrong: exit code 2. */
export class UsageError extends UserError {
  override name = 'UsageError'
}

export interface Failure {
  message: string
  code: number
}

/** The failure that an error stands for; a defect where `code` is `exitCodes.internal`. */
export function failureOf(error: unknown): Failure {
  if (error instanceof CommanderError) {
    // It has printed the help of a command that has commands, and was given none.
    const message = error.code === 'commander.help' ? 'a command is missing; see --help' : error.message
    return { message: withoutPrefix(message), code: exitCodes.usage }
  }
  if (error instanceof SettingError) return { message: error.inNames(settingFlag), code: exitCodes.usage }
  if (error instanceof RecipeError) return { message: error.inOrigins(recipeFlag), code: exitCodes.usage }
  if (error instanceof UsageError) return { message: error.message, code: exitCodes.usage }
  if (error instanceof TrainingDiverged) return { message: error.message, code: exitCodes.diverged }
  if (error instanceof UserError) return { message: error.message, code: exitCodes.userError }
  const problem = describeFileError(error)
  if (problem !== undefined) return { message: problem, code: exitCodes.userError }
  return { message: error instanceof Error ? error.message : String(error), code: exitCodes.internal }
}

const withoutPrefix = (message: string): string => message.replace(/^error: /, '')
