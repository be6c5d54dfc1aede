// The worker in which a model of `unmask/web` lives. Loaded as a module of its own; see `load`.
import { UserError } from '../core/types.ts'
import { modelOf, type OpenModel } from '../text/model.ts'
import { answerQuestions, type Port } from './channel.ts'
import { open } from './open.ts'
import type { Question } from './protocol.ts'

/** The model, once it is there, and how much memory the runtime has. */
let model: { asked: OpenModel; memory(): Promise<number> } | undefined

function loaded(): OpenModel {
  if (!model) throw new UserError('no model is loaded')
  return model.asked
}

answerQuestions<Question>(globalThis as unknown as Port<unknown>, async (question, { signal, part }) => {
  switch (question.kind) {
    case 'load': {
      const opened = await open(question.source, { ...question.options, signal, onProgress: part })
      const asked = modelOf(opened.loaded, opened.generator, opened.dispose)
      model = { asked, memory: opened.memory }
      return { name: asked.name, promptStyle: asked.promptStyle, backend: opened.backend }
    }
    case 'generate':
    case 'chat': {
      const writing =
        question.kind === 'generate'
          ? loaded().generate(question.prompt, { ...question.settings, signal })
          : loaded().chat(question.messages, { ...question.settings, signal })
      for (;;) {
        const { done, value } = await writing.next()
        if (done) return value
        part(value)
      }
    }
    case 'infill':
      return loaded().infill(question.text, { ...question.settings, signal })
    case 'rewrite':
      return loaded().rewrite(question.text, { ...question.settings, signal })
    case 'score':
      return loaded().score(question.text)
    case 'memory':
      return model?.memory()
  }
})
