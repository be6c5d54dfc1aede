// What C functions are given and write: addresses of arrays, words, strings.
import koffi from 'koffi'

/** Room for `count` words that V8 does not move: what is small it keeps, and moves, in its own heap. */
export const words = (count: number): BigUint64Array<ArrayBuffer> => new BigUint64Array(Math.max(16, count))

/** What a function writes where its last argument points. */
export function made(call: (place: BigUint64Array) => void): bigint {
  const place = words(1)
  call(place)
  return place[0]
}

/** Where the values of an array lie. V8 does not move them once the array has a buffer of its own, for which `.buffer` asks. */
export function addressOf(array: ArrayBufferView): bigint {
  return koffi.address(array.buffer) + BigInt(array.byteOffset)
}

/** Addresses of arrays, which must stay reachable as long as the addresses are in use. */
export function addresses(arrays: readonly ArrayBufferView[]): BigUint64Array {
  const all = words(arrays.length)
  for (const [i, array] of arrays.entries()) all[i] = addressOf(array)
  return all
}

/** `count` words at an address of C's, without a copy. */
export function wordsAt(address: bigint, count: number): BigUint64Array {
  return new BigUint64Array(koffi.view(address, 8 * count))
}

export const nulTerminated = (text: string): Buffer => Buffer.from(`${text}\0`)

/** A path as ONNX Runtime takes it: wide on Windows. */
export const pathText = (text: string): Buffer =>
  Buffer.from(`${text}\0`, process.platform === 'win32' ? 'utf16le' : 'utf8')
