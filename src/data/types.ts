// What the data layer hands to training. Knows nothing about noise, graphs or models.

/** One tokenised document, not yet padded. */
export interface Document {
  /** Stable identity, `file:line` or a hash; used in error messages and for the held-out split. */
  id: string
  /** Token ids, including the closing EOS. */
  ids: Int32Array
  /** 1 where the token may be masked (completion, plain text), 0 where it never is (prompt). Same length as `ids`. */
  maskable: Uint8Array
}

/**
 * `rows` packed rows of `length` tokens. Documents never cross a row; each starts at position 0 on a multiple of the
 * final block size and is padded with EOS up to one (design decision 3). All arrays are row-major [rows, length].
 */
export interface Batch {
  rows: number
  length: number
  ids: Int32Array
  /** Index of the document within its row, counting from 0; the tail of a row that holds no document is -1. */
  documents: Int32Array
  /** Position from the start of the document. 0 in the tail. */
  positions: Int32Array
  /** 1 where the token may be masked. The EOS padding of a document is maskable; the tail is not. */
  maskable: Uint8Array
  /** 1 where the token is padding: an EOS behind the end of a document, up to the next multiple of the block size. */
  padding: Uint8Array
  /** Ids of the documents in the batch, for error messages. */
  documentIds: string[]
  /** Tokens that belong to documents, EOS padding included. */
  tokens: number
  /** Bytes of UTF-8 text that the scored tokens stand for (EOS is 0): the denominator of bits per byte. See `isScored`. */
  bytes: number
  /** The preference pairs whose answers the documents are. Absent where they are not. */
  pairs?: readonly Pair[]
  /** How decoding wrote the answers of the documents. Absent where nobody wrote them. */
  rollouts?: Rollouts
}

/** By token, [rows, length]. */
export interface Rollouts {
  /** Forward that decided it: -1 for what was given. */
  steps: Int32Array
  /** -ln of its probability at that time. */
  nll: Float32Array
  /** How much better its answer is than others to the same prompt; 0 where it does not count. */
  advantages: Float32Array
}

/** How probable the answers of a pair are under a model: log-likelihoods, or lower bounds of them, in nats. */
export interface PairLikelihoods {
  chosen: number
  rejected: number
}

/** A preference pair in a batch: two documents with one prompt. */
export interface Pair {
  /** Its number among all pairs. */
  id: number
  /** Times that it has been trained on before. */
  epoch: number
  /** Indices of the first tokens of the two documents in [rows, length]. */
  chosen: number
  rejected: number
  /** Under the reference model, with the draws of the same pair and epoch. */
  reference?: PairLikelihoods
}

/** Where a reader stands: plain JSON, enough to continue with exactly the next batch. */
export type DataPosition = Record<string, unknown>

/**
 * An endless stream of packed batches with an exact resume position. One call at a time: `position` and `restore` must
 * not be called while `next` is under way.
 */
export interface BatchSource {
  next(): Promise<Batch>
  position(): DataPosition
  restore(position: DataPosition): Promise<void>
}

export interface Reason {
  reason: string
  rows: number
  /** The first such row. */
  first: { file: string; line: number }
}

/** What a reader has met so far. */
export interface DataReport {
  files: number
  /** Documents read of the split (a document counts again in each epoch). */
  documents: number
  /** Rows that could not be used, each counted once. */
  badRows: number
  /** Documents that belong to the other split, each counted once. */
  otherSplit: number
  /** Why they could not, most rows first. */
  reasons: Reason[]
  /** What was left out of rows that are used, such as the end of one that was too long. */
  notes: Reason[]
  /** Epoch of the document read last, from 0. */
  epoch: number
}
