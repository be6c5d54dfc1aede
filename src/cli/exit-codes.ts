// What the exit status of the command line means. The help of every command lists these.

export const exitCodes = {
  ok: 0,
  /** Something that the user can correct: a wrong file, key, checkpoint; the message says what. */
  userError: 1,
  /** The command line itself could not be understood. */
  usage: 2,
  /** The loss or the gradients became NaN or exploded; the last good checkpoint is kept. */
  diverged: 3,
  /** `eval compare`: the second run is worse than the first. */
  regression: 4,
  /** A defect in unmask: the stack is printed. */
  internal: 70,
  /** Stopped by Ctrl-C; a training run has saved and can be resumed. */
  interrupted: 130,
  /** Stopped by SIGTERM, in the same orderly way. */
  terminated: 143,
} as const

export const exitCodeHelp = `Exit status:
  0    success
  1    an error that you can correct; the message says what
  2    wrong usage of the command line
  3    training diverged; the last good checkpoint is kept
  4    eval compare: the second run is worse than the first
  70   a defect in unmask
  130  interrupted by Ctrl-C (143: by SIGTERM); training has saved and can be resumed`
