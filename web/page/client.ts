// The page's model as the playground sees a server's.
import type { Channel } from '../../src/browser/channel.ts'
import { ApiFailure, type Chunk, type Client, follow, type ModelInfo } from '../api.ts'
import type { PageModel, PageQuestion } from './protocol.ts'

export function createLocalClient(channel: Channel<PageQuestion>, model: () => PageModel | undefined): Client {
  return {
    async models() {
      const known = model()
      return known ? [infoOf(known)] : []
    },
    countTokens: async (_, text) => (await channel.ask({ kind: 'count', text })) as number,
    async run({ path, body, most, blockSize, signal, onUpdate }) {
      const { run, add, end } = follow(most, blockSize)
      const onPart = (part: unknown) => {
        add(part as Chunk)
        onUpdate(run)
      }
      try {
        await channel.ask({ kind: 'run', path, body }, { signal, onPart })
      } catch (error) {
        if (signal.aborted) throw signal.reason
        throw new ApiFailure(400, error instanceof Error ? error.message : String(error))
      }
      return end()
    },
  }
}

function infoOf({ name, info }: PageModel): ModelInfo {
  return {
    ...{ id: name, mode: info.mode, block_size: info.blockSize, max_model_len: info.maxPositions },
    ...{ chat: info.chat && !info.plainPrompts, state: 'ready' },
  }
}
