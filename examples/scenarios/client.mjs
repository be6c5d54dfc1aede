// What the examples share: one request to an OpenAI-compatible server. UNMASK_URL names it, UNMASK_MODEL one of its models,
// UNMASK_API_KEY a key.
const { UNMASK_URL = 'http://127.0.0.1:8000', UNMASK_MODEL, UNMASK_API_KEY } = process.env

/** Posts to /v1/`route`. Throws with what the server said. */
export async function ask(route, body) {
  const response = await fetch(`${UNMASK_URL}/v1/${route}`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      ...(UNMASK_API_KEY ? { authorization: `Bearer ${UNMASK_API_KEY}` } : {}),
    },
    body: JSON.stringify({ ...(UNMASK_MODEL ? { model: UNMASK_MODEL } : {}), ...body }),
  })
  const answer = await response.json()
  if (!response.ok) throw new Error(answer.error?.message ?? `the server answered ${response.status}`)
  return answer
}
