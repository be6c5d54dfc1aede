// Serving models over HTTP.

export { hashKey, newKey } from './auth.ts'
export { loadConfig, parseConfig, type ServeConfig, type ServeConfigInput } from './config.ts'
export { type RunningServer, startServer } from './server.ts'
