// The peer of `bench jobs --browser`: transformers.js, as a module worker of a page. Answers a message {kind: "load", model, dtype,
// threads, library, runtime} with {name}, and {kind: "write", text, most} with the greedy tokens behind the text and the seconds
// they took: {ids, seconds}. An answer {error} says what went wrong.
let library
let tokenizer
let model

async function load({ model: name, dtype, threads, library: address, runtime }) {
  library = await import(address)
  const { env } = library
  env.allowRemoteModels = false
  env.allowLocalModels = true
  env.localModelPath = '/peer-models/'
  env.useBrowserCache = false
  env.useWasmCache = false
  // The build of ONNX Runtime that it takes by default.
  const build = `${runtime}ort-wasm-simd-threaded.asyncify`
  env.backends.onnx.wasm.wasmPaths = { mjs: `${build}.mjs`, wasm: `${build}.wasm` }
  env.backends.onnx.wasm.numThreads = threads
  tokenizer = await library.AutoTokenizer.from_pretrained(name)
  model = await library.AutoModelForCausalLM.from_pretrained(name, { dtype, device: 'wasm' })
  return { name: `transformers.js ${env.version}` }
}

async function write({ text, most }) {
  const since = performance.now()
  const inputs = tokenizer(text, { add_special_tokens: false })
  const output = await model.generate({ ...inputs, max_new_tokens: most, do_sample: false })
  const prompt = inputs.input_ids.dims[1]
  return { ids: [...output.data].slice(prompt).map(Number), seconds: (performance.now() - since) / 1000 }
}

globalThis.addEventListener('message', async ({ data }) => {
  try {
    postMessage(data.kind === 'load' ? await load(data) : await write(data))
  } catch (error) {
    postMessage({ error: error instanceof Error ? error.message : String(error) })
  }
})
