// The first module of a thread that runs a TypeScript source: tsx translates the module that the first argument names, and
// all that it imports. Plain JavaScript, since nothing translates this one; not part of the build.
import { register } from 'tsx/esm/api'

register()
await import(process.argv[2])
