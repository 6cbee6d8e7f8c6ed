// Lends playwright's objects to tests/e2e/browser.py: one call a line in, one answer a line out, as JSON.
//
//   {"id": 1, "on": "browser", "method": "newContext", "args": [], "keep": "c1"}     {"id": 1, "value": null}
//   {"id": 2, "on": "c1", "method": "clock.install", "args": []}                     {"id": 2, "error": "..."}
//
// `keep` names the result for later calls; {"$": NAME} in args is what was kept. What pages and workers say that
// nobody asked for comes as {"said": KIND, "by": NAME, "text": ...}.
import { createInterface } from 'node:readline'
import { chromium } from '#browser'

const kept = new Map([['chromium', chromium]])
const put = line => process.stdout.write(JSON.stringify(line) + '\n')

function hear(name, page) {
  page.on('console', message => put({ said: `console.${message.type()}`, by: name, text: message.text(), at: message.location().url }))
  page.on('pageerror', error => put({ said: 'pageerror', by: name, text: String(error?.stack ?? error) }))
  page.on('crash', () => put({ said: 'crash', by: name, text: '' }))
}

// Playwright does not tell of shared workers; DevTools does.
async function hearWorkers(name, browser) {
  const session = await browser.newBrowserCDPSession()
  session.on('Target.targetCreated', async ({ targetInfo: { type, targetId } }) => {
    if (type !== 'shared_worker') return
    try {
      const { sessionId } = await session.send('Target.attachToTarget', { targetId, flatten: false })
      await session.send('Target.sendMessageToTarget', { sessionId, message: '{"id":1,"method":"Runtime.enable"}' })
    } catch {} // it has ended already
  })
  session.on('Target.receivedMessageFromTarget', ({ message }) => {
    const { method, params } = JSON.parse(message)
    if (method === 'Runtime.exceptionThrown') {
      const { text, exception } = params.exceptionDetails
      put({ said: 'pageerror', by: `${name}, shared worker`, text: exception?.description ?? text })
    } else if (method === 'Runtime.consoleAPICalled') {
      const text = params.args.map(arg => arg.value ?? arg.description).join(' ')
      put({ said: `console.${params.type}`, by: `${name}, shared worker`, text })
    }
  })
  await session.send('Target.setDiscoverTargets', { discover: true, filter: [{ type: 'shared_worker' }] })
}

async function call({ on, method, args, keep }) {
  const path = method.split('.')
  const last = path.pop()
  const owner = path.reduce((object, key) => object?.[key], kept.get(on))
  if (typeof owner?.[last] !== 'function') throw new Error(`there is no ${method} here`)
  const value = await owner[last](...args.map(arg => arg?.$ ? kept.get(arg.$) : arg))
  if (!keep) return value
  kept.set(keep, value)
  if (last === 'newPage') hear(keep, value)
  if (last === 'launch' && value.newBrowserCDPSession) await hearWorkers(keep, value)
  return null
}

const calls = createInterface({ input: process.stdin })
calls.on('line', async line => {
  const asked = JSON.parse(line)
  try {
    const value = await call(asked)
    put({ id: asked.id, value: Buffer.isBuffer(value) ? null : value ?? null })
  } catch (error) {
    put({ id: asked.id, error: String(error?.message ?? error) })
  }
})
// Whoever called is gone: so is the browser.
calls.on('close', async () => {
  await Promise.all([...kept.values()].filter(one => one.version && one.close).map(browser => browser.close().catch(() => {})))
  process.exit(0)
})
