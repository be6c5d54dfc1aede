// Whether tests can use PyTorch: in the Python that UNMASK_PYTHON names, else python3. Without it they are skipped, and say so.
import { execFileSync } from 'node:child_process'

export const python = process.env.UNMASK_PYTHON ?? 'python3'

function findTorch(): boolean {
  try {
    execFileSync(python, ['-c', 'import torch, safetensors'], { stdio: 'ignore' })
    return true
  } catch {
    console.warn(
      `skipped: tests of PyTorch; ${python} has no torch and safetensors, name one that has in UNMASK_PYTHON`,
    )
    return false
  }
}

export const hasTorch = findTorch()

// Tiny tensors gain nothing from threads, and lose where they wait for each other on a busy machine.
process.env.OMP_NUM_THREADS ??= '1'
