// Asks a server with OpenAI's official client: openai_client.cjs URL KEY MODEL.
const assert = require('node:assert')
const OpenAI = require('openai')
const { VERSION: version } = require('openai/version')

const [baseURL, apiKey, model] = process.argv.slice(2)
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 })
const messages = [{ role: 'user', content: [{ type: 'text', text: 'A box is 12 by 4 by 3 cm. Find its surface.' }] }]
const checked = []
const check = (name, ok) => {
  assert(ok, name)
  checked.push(name)
}

async function refused(type, name, fields, by = client) {
  await assert.rejects(by.chat.completions.create({ model, messages, ...fields }), e => e instanceof type && String(e.message + e.code).includes(name), name)
  checked.push(name)
}

async function main() {
  const models = []
  for await (const m of client.models.list()) models.push(m.id)
  check('models.list', models.length === 1 && models[0] === model)
  check('models.retrieve', (await client.models.retrieve(model)).id === model)

  const ask = { model, messages, n: 2, seed: 5, max_tokens: 20 }
  const chat = await client.chat.completions.create({ ...ask, logprobs: true, top_logprobs: 2 })
  const texts = chat.choices.map(c => c.message.content)
  check('chat', texts.length === 2 && chat.usage.completion_tokens > 2)
  check('chat logprobs', chat.choices[0].logprobs.content.every(t => t.logprob <= 0 && t.top_logprobs.length === 2))

  const streamed = ['', '']
  let usage
  for await (const event of await client.chat.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } })) {
    for (const c of event.choices) streamed[c.index] += c.delta.content ?? ''
    usage = event.usage ?? usage
  }
  check('chat stream', assert.deepStrictEqual([streamed, usage], [texts, chat.usage]) === undefined)
  const helper = client.chat.completions.stream({ ...ask, n: 1 })
  check('chat stream helper', (await helper.finalContent()) === texts[0])

  const text = await client.completions.create({ model, prompt: ['A box', 'A room'], max_tokens: 5, logprobs: 1, echo: true, seed: 2, stop: [';'] })
  check('completions', text.choices[1].text.startsWith('A room') && text.choices[0].logprobs.token_logprobs[0] === null)
  const drawn = await client.completions.create({ model, prompt: 'A box', max_tokens: 30 })
  const same = await client.completions.create({ model, prompt: 'A box', max_tokens: 30, seed: drawn.seed })
  check('random seed', same.choices[0].text === drawn.choices[0].text)

  await refused(OpenAI.BadRequestError, 'tools', { tools: [{ type: 'function', function: { name: 'f' } }] })
  await refused(OpenAI.NotFoundError, 'model_not_found', { model: 'gpt' })
  await refused(OpenAI.AuthenticationError, 'invalid_api_key', {}, new OpenAI({ baseURL, apiKey: 'another', maxRetries: 0 }))

  const all = await Promise.all(Array.from({ length: 32 }, () => client.chat.completions.create({ ...ask, n: 1 })))
  check('together', all.every(c => c.choices[0].message.content === texts[0]))
  console.log(`openai ${version} for Node, ok: ${checked.join(', ')}`)
}

main().catch(e => {
  console.error(e)
  process.exit(1)
})
