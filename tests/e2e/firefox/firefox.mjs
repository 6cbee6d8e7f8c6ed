// Firefox by WebDriver BiDi, for ../chromium/driver.mjs: of playwright's objects, what most of the browser's tests call.
import puppeteer from 'puppeteer-core'

const page = p => ({
  on: (event, listener) => p.on(event, listener),
  goto: async (url, options) => void await p.goto(url, options),
  evaluate: text => p.evaluate(text),
  addInitScript: text => p.evaluateOnNewDocument(text),
  click: selector => p.click(selector),
  fill: (selector, text) => p.$eval(selector, (input, value) => { input.value = value }, text),
  screenshot: async options => void await p.screenshot(options),
  close: () => p.close(),
})

export const chromium = {
  async launch({ executablePath, headless }) {
    const browser = await puppeteer.launch({ browser: 'firefox', executablePath, headless })
    return {
      version: () => browser.version(),
      close: () => browser.close(),
      async newContext(options) {
        if (Object.keys(options).length) throw new Error('there is no newContext with options here')
        const context = await browser.createBrowserContext()
        return { newPage: async () => page(await context.newPage()), close: () => context.close() }
      },
    }
  },
}
