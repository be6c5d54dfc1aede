// Slow work in turns, with other work between them. What is worked out is kept, so that work that was broken off goes on where it
// was when it is begun again. Knows no clock.

/** A piece of time that one of many may work. */
export interface Turn {
  /** Whether it has lasted long enough. */
  over(): boolean
  end(): void
}

/** Who gives turns. */
export interface Turns {
  /** The next one. Rejects where there is to be none: the client has left, for instance. */
  next(): Promise<Turn>
}

/** Work is broken off by throwing it. */
const BROKEN_OFF = Symbol('broken off')
/** What can be had without work. */
const NO_TURN: Turn = { over: () => true, end() {} }

let current: Turn | undefined
/** Something new was done in this turn: every turn does something, however short it is, or work would never end. */
let worked = false

/** Before every piece of new work: breaks it off where the turn is over. Work outside of turns is never broken off. */
export function checkTurn(): void {
  if (worked && current?.over()) throw BROKEN_OFF
}

/** After every piece of work whose result is kept. */
export function noteWork(): void {
  worked = true
}

/** Does work in as many turns as it takes; what needs none at once. Without `turns` all of it at once. */
export async function inTurns<T>(work: () => T, turns: Turns | undefined): Promise<T> {
  if (turns === undefined) return work()
  for (let turn = NO_TURN; ; turn = await turns.next()) {
    current = turn
    worked = turn === NO_TURN
    try {
      return work()
    } catch (error) {
      if (error !== BROKEN_OFF) throw error
    } finally {
      current = undefined
      turn.end()
    }
  }
}
