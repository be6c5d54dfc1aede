// Remembers what was made of the last few inputs: sequences of one request have the same prompt, and clients repeat themselves.
// What was refused is refused again at once.

/** `make` for inputs with the same `keyOf`, once while they are among the last `kept`. */
export function remembering<I, O>(make: (input: I) => O, keyOf: (input: I) => string, kept: number): (input: I) => O {
  const known = new Map<string, { value: O } | { error: unknown }>()
  const attempt = (input: I) => {
    try {
      return { value: make(input) }
    } catch (error) {
      return { error }
    }
  }
  return (input) => {
    const key = keyOf(input)
    const result = known.get(key) ?? attempt(input)
    known.delete(key)
    known.set(key, result)
    if (known.size > kept) known.delete(known.keys().next().value as string)
    if ('error' in result) throw result.error
    return result.value
  }
}
