// unmask serve: reads the configuration, starts the server, and follows signals until it has ended.
import { Command, Option } from 'commander'
import { devices } from '../../core/types.ts'
import type { RunningServer, ServeConfig } from '../../serve/index.ts'
import { wholeNumber } from '../flags.ts'
import { action, type Session } from '../session.ts'

interface Flags {
  config?: string
  host?: string
  device?: string
  port?: string
  apiKey?: string
  newKey?: string
  logLevel?: string
}

export function serveCommand(session: Session): Command {
  return new Command('serve')
    .description('Serve models over an OpenAI-compatible HTTP API, until Ctrl-C or SIGTERM.')
    .argument('[models...]', 'models, the first being the default: NAME=MODEL or MODEL, as for unmask generate')
    .option('--config <file>', 'YAML file with all settings; docs/serve.md lists them')
    .option('--host <address>', 'address to listen on (default: 127.0.0.1)')
    .option('--port <number>', 'port; 0 for a free one (default: 8000)')
    .addOption(new Option('--device <device>', 'where the models run (default: cpu)').choices(devices))
    .option('--new-key <name>', 'make an API key, print it with its entry for the configuration, and end')
    .addOption(
      new Option('--log-level <level>', 'what is logged on stderr (default: info)').choices([
        'silent',
        'error',
        'warn',
        'info',
        'debug',
      ]),
    )
    .addHelpText(
      'after',
      `
Examples:
  $ unmask serve models/tiny
  $ unmask serve mine=runs/mine/model base=models/tiny --port 8080
  $ UNMASK_API_KEY=secret unmask serve --config serve.yaml
  $ unmask serve --new-key team-a

Settings come from the file, then the environment (UNMASK_PORT, UNMASK_LIMITS_CONCURRENCY ...), then flags; the last wins. SIGHUP loads the models anew. SIGTERM lets requests that run end first.`,
    )
    .action(
      action(session, async (context, command) => {
        const flags = command.opts<Flags>()
        const { hashKey, loadConfig, newKey, startServer } = await import('../../serve/index.ts')
        if (flags.newKey !== undefined) {
          const made = newKey()
          const entry = { name: flags.newKey, sha256: made.sha256 }
          context.result(
            { key: made.key, entry },
            () => `${made.key}\n\napi_keys:\n  - name: ${entry.name}\n    sha256: ${entry.sha256}`,
          )
          return
        }
        const settings = {
          file: flags.config,
          env: environment(process.env, hashKey),
          flags: fromFlags(flags, command.args, command.optsWithGlobals().threads),
        }
        let server: RunningServer | undefined
        let asked = false
        const reload = () => {
          asked = true
          // While the models are loaded for the first time, it is done afterwards.
          if (!server) return
          void loadConfig(settings)
            .then((next: ServeConfig) => server?.reload(next))
            .catch((error) => context.display.line(`not reloaded: ${error instanceof Error ? error.message : error}`))
        }
        process.on('SIGHUP', reload)
        try {
          const config = await loadConfig(settings)
          context.display.line(`loading ${config.models.length === 1 ? 'the model' : `${config.models.length} models`}`)
          session.serves = true
          server = await startServer(config, context.signal)
          const { url } = server
          context.whenStopped('Stopping; requests that run are answered first.')
          context.result({ url }, () =>
            [`serving at ${url}/v1`, `playground ${url}/`, `reference  ${url}/docs`].join('\n'),
          )
          if (asked) reload()
          await new Promise<void>((resolve) => {
            if (context.signal.aborted) resolve()
            context.signal.addEventListener('abort', () => resolve(), { once: true })
          })
          await server.close()
        } finally {
          process.off('SIGHUP', reload)
        }
      }),
    )
}

/** A key in clear goes no further than here. */
function environment(env: NodeJS.ProcessEnv, hashKey: (key: string) => string): NodeJS.ProcessEnv {
  const { UNMASK_API_KEY: key, ...rest } = env
  return key === undefined || key === '' ? rest : { ...rest, UNMASK_API_KEY_SHA256: hashKey(key) }
}

function fromFlags(flags: Flags, models: readonly string[], threads: number | undefined): Record<string, unknown> {
  const { host, logLevel, device } = flags
  const port = wholeNumber('--port', flags.port, 0)
  return {
    ...(models.length > 0 ? { models: models.map(namedModel) } : {}),
    host,
    port,
    device,
    log_level: logLevel,
    threads,
  }
}

/** NAME=MODEL; a version (pypi:x==1) is no name. */
function namedModel(text: string): { name?: string; path: string } {
  const named = /^([\w.-]+)=(?!=)(.+)$/.exec(text)
  return named ? { name: named[1]!, path: named[2]! } : { path: text }
}
