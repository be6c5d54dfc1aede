// The new positions of a forward that verifies drafts and drafts the next: a tree of the drafts and the masks behind each.

/** The masks behind one position: how many, and the row of the first among the predicted ones. */
export interface Group {
  size: number
  row: number
}

interface Tree {
  positions: number[]
  blocks: number[]
  ends: number[]
  /** Rows that are predicted: the last known token, the drafts, then the masks, group by group. */
  rows: number[]
  /** Which of the new positions are masks. */
  masks: number[]
  /** One behind the last known token and one behind each draft. */
  groups: Group[]
}

/**
 * The new positions of a forward: `known` tokens from position `start`, the drafts, then the masks, `sizes[i]` of them behind
 * the last known token and behind each draft. Tokens see those before; masks see the token they stand behind, those before
 * it, and the masks before them in their group: entry and exit times of a walk through that tree, in which each token's masks
 * come before the next token.
 */
export function layOut(start: number, known: number, sizes: readonly number[]): Tree {
  const spine = known + sizes.length - 1
  const tree: Tree = { positions: [], blocks: [], ends: [], rows: [], masks: [], groups: [] }
  const unit = Math.max(0, ...sizes) + 1
  for (let i = 0; i < spine; i++) {
    tree.positions.push(start + i)
    tree.blocks.push(i * unit)
    tree.ends.push(Number.MAX_SAFE_INTEGER)
    if (i >= known - 1) tree.rows.push(i)
  }
  for (const [i, size] of sizes.entries()) {
    const token = known - 1 + i
    tree.groups.push({ size, row: tree.rows.length })
    for (let mask = 0; mask < size; mask++) {
      tree.rows.push(tree.positions.length)
      tree.masks.push(tree.positions.length)
      tree.positions.push(start + token + 1 + mask)
      tree.blocks.push(token * unit + 1 + mask)
      tree.ends.push((token + 1) * unit)
    }
  }
  return tree
}
