// Session cookies as NextAuth 4 makes them, from requests on stdin to cookies on stdout, both JSON:
//   {"secret": "...", "cookies": [{"name": "...", "token": {...}, "maxAge": 3600}]}
//   {"secret": "...", "cookies": [{"name": "...", "token": {...}, "value": "...", "chunks": [...]}]}
// `chunks` are what NextAuth's own SessionStore sends for a value of that size.
// npm install --ignore-scripts --legacy-peer-deps, in a copy of this folder; `next` is not needed.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(import.meta.url);
const { encode } = require("next-auth/jwt");
// Not exported by the package, so by its path.
const jwt = path.dirname(require.resolve("next-auth/jwt"));
const { SessionStore } = require(path.join(jwt, "../core/lib/cookie.js"));

function chunksOf(value) {
  const store = new SessionStore(
    { name: "next-auth.session-token", options: {} },
    { cookies: {}, headers: {} },
    { debug() {} }, // else it tells the console, whose output is ours
  );
  return store.chunk(value, {}).map(({ name, value }) => ({ name, value }));
}

const { secret, cookies } = JSON.parse(readFileSync(0, "utf8"));
const made = [];
for (const { name, token, maxAge } of cookies) {
  const value = await encode({ token, secret, maxAge });
  made.push({ name, token, value, chunks: chunksOf(value) });
}
console.log(JSON.stringify({ secret, cookies: made }, null, 1));
