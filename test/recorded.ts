// Which settings of a recipe a job reads: a copy of it that writes them down. Used by tests only.

/**
 * The recipe as one that records the dotted paths of the values that are read by name. Values that are only copied along
 * with their section, as when the recipe is written to a file, do not count.
 */
export function recorded<R extends object>(recipe: R): { recipe: R; read: ReadonlySet<string> } {
  const read = new Set<string>()
  const watch = <T extends object>(value: T, path: string): T => {
    let copied: PropertyKey[] = []
    return new Proxy(value, {
      ownKeys(target) {
        copied = Reflect.ownKeys(target)
        return [...copied] as (string | symbol)[]
      },
      get(target, key) {
        const found: unknown = Reflect.get(target, key)
        if (typeof key === 'symbol') return found
        const isCopied = copied[0] === key
        if (isCopied) copied.shift()
        const full = path === '' ? key : `${path}.${key}`
        if (typeof found === 'object' && found !== null && !Array.isArray(found)) return watch(found, full)
        if (!isCopied) read.add(full)
        return found
      },
    })
  }
  return { recipe: watch(recipe, ''), read }
}
