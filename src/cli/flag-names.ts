// What settings are called on the command line.
import { settingKey, settingNames } from '../decode/settings.ts'

/** The flag of a recipe's setting: its last key in kebab case, with the middle keys kept where there are any. */
export function recipeFlag(path: string): string {
  const parts = path.split('.')
  const words = parts.slice(parts.length > 1 ? 1 : 0).join('-')
  return `--${words.replaceAll('_', '-')}`
}

/** The flag of what the library calls `name`: `maskRatio` is `--mask-ratio`. */
export function settingFlag(name: string): string {
  const setting = settingNames.find((known) => known === name)
  const words = setting ? settingKey(setting) : name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
  return `--${words.replaceAll('_', '-')}`
}
