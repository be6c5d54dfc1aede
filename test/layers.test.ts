// The lint rule for layers finds what it is for.
import { expect, test } from 'vitest'
import { layersOf, relativeImports, wrongImports } from '../scripts/layers.ts'

const layers = layersOf(
  '# Contributing\n\n## The layers\n\nDown only.\n\n```text\ncli    commands\ntrain  the loop\ncore   types, cli\n```\n',
)

test('layers are read from the list, in order', () => {
  expect(layersOf('## The layers\n\n```text\ncli     a\nserve   b  c\n```\n')).toEqual(['cli', 'serve'])
  expect(() => layersOf('## Other\n')).toThrow('The layers')
})

test('static, dynamic, type and re-exporting imports count; comments and packages do not', () => {
  const source = `
    import { a } from '../a/a.ts'
    import type { B } from "zod"
    import './side.ts'
    export * from '../b/b.ts'
    const c = await import('../c/c.ts')
    type D = import('../d/d.ts').D
    // import { x } from '../x/x.ts'
    /* import { y } from '../y/y.ts' */
  `
  expect(relativeImports(source)).toEqual(['../a/a.ts', './side.ts', '../b/b.ts', '../c/c.ts', '../d/d.ts'])
})

test('an import that points up, out of src or to no layer is wrong; one within a folder or down is not', () => {
  const wrong = (path: string, specifier: string) =>
    wrongImports(new Map([[path, `import type { T } from '${specifier}'`]]), layers)
  expect(wrong('train/loop.ts', '../core/types.ts')).toEqual([])
  expect(wrong('train/loop.ts', './step.ts')).toEqual([])
  expect(wrong('index.ts', './cli/main.ts')).toEqual([])
  expect(wrong('core/types.ts', '../train/loop.ts')).toEqual([
    'src/core/types.ts: imports ../train/loop.ts; train is above core',
  ])
  expect(wrong('train/loop.ts', '../../web/dom.ts')[0]).toContain('no part of a layer')
  expect(wrong('train/loop.ts', '../other/x.ts')[0]).toContain('other is above train')
  expect(wrong('odd/x.ts', '../core/types.ts')[0]).toContain('odd is not among the layers')
  expect(layers).toEqual(['cli', 'train', 'core'])
})
