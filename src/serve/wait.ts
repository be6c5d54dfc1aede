// Waiting that ends. Knows no models.

/** A promise, or the signal's reason, or an error after that many seconds: whichever comes first. */
export function within<T>(
  promise: Promise<T>,
  { signal, seconds, late }: { signal: AbortSignal; seconds: number; late: () => Error },
): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason)
    const timer = setTimeout(() => reject(late()), seconds * 1000)
    signal.addEventListener('abort', abort, { once: true })
    if (signal.aborted) abort()
    promise.then(resolve, reject).finally(() => {
      clearTimeout(timer)
      signal.removeEventListener('abort', abort)
    })
  })
}
