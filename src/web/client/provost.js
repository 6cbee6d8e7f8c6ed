/**
 * provost: one connection per user, for all components and pages of a dashboard.
 *
 * connect() gives a handle. Behind all handles of one URL and subject there is one hub with one
 * WebSocket: in a SharedWorker (of which this is the script, too), else in one of the pages (the
 * leader, by navigator.locks), else in each page for itself. docs/CLIENT.md tells how to use it,
 * provost.d.ts has the types, docs/WEBSOCKET.md the protocol. From the server to the page:
 *
 *   provost-core.js  one connection: attempts, token, resuming, acknowledgements. Knows no pages.
 *   provost-hub.js   what all pages want of it; who of them has taken a durable event.
 *   provost-link.js  a page's end: the way to the hub, and the callbacks.
 *   here             handles, which component by component want things of their page's link.
 *
 * @typedef {import('./provost-core.js').Env} Env
 * @typedef {import('./provost.js').Options} Options
 * @typedef {import('./provost.js').Why} Why
 */
import { claimsOf } from './provost-core.js';
import { serveWorker } from './provost-hub.js';
import { Link } from './provost-link.js';

const TOKEN_MS = 10_000; // that a page may take to give one

/** As the server keeps it. @param {string} room */
const roomName = room => (room.startsWith('role:') ? room.replace(/[A-Z]/g, c => c.toLowerCase()) : room);

/** What connect() gives; provost.d.ts says what each is. */
class Handle {
    /** @type {Link} */ #link;
    /** @type {Set<() => void>} */ #stops = new Set();
    /** @type {Why | null} */ #closed = null;

    /** @param {Link} link @param {Options['token']} source @param {any} first a token that the source has just given */
    constructor(link, source, first) {
        this.#link = link;
        this.source = source;
        this.first = first;
        this.since = link.env.now();
        /** @type {Set<any>} */
        this.onStates = new Set();
        /** @type {Set<any>} */
        this.onResyncs = new Set();
    }

    get state() {
        return this.#closed ? 'closed' : this.#link.state;
    }
    get why() {
        return this.#closed ?? this.#link.why;
    }
    get url() {
        return this.#link.o.url;
    }
    get subject() {
        return this.#link.o.subject;
    }

    /** @param {Set<any>} set @param {any[]} args */
    tell(set, ...args) {
        for (const l of [...set]) if (set.has(l)) this.#link.call(l.cb, ...args);
    }

    /** @param {Why} why */
    closed(why) {
        if (this.#closed) return;
        this.#closed = why;
        this.tell(this.onStates, 'closed', why);
        this.#forget();
    }

    #forget() {
        for (const stop of [...this.#stops]) stop();
        this.onStates.clear();
        this.onResyncs.clear();
    }

    /** @param {() => void} f */
    #stop(f) {
        const stop = () => {
            if (this.#stops.delete(stop)) f();
        };
        this.#stops.add(stop);
        return stop;
    }

    /** @param {Set<any>} set @param {any} cb */
    #add(set, cb) {
        const l = { cb: needed(cb) };
        if (this.#closed) return () => {};
        set.add(l);
        return this.#stop(() => set.delete(l));
    }

    /** @param {any} cb */
    onState(cb) {
        return this.#add(this.onStates, cb);
    }
    /** @param {any} cb */
    onResync(cb) {
        return this.#add(this.onResyncs, cb);
    }
    /** @param {string} path @param {any} cb @param {any} [options] */
    subscribe(path, cb, options) {
        const sub = { cb: needed(cb), onError: options?.onError, told: false };
        return this.#closed ? () => {} : this.#stop(this.#link.subscribe(String(path), sub));
    }
    /** @param {string} room @param {string} name @param {any} cb @param {any} [options] */
    on(room, name, cb, options) {
        const l = { name: String(name), cb: needed(cb), onError: options?.onError };
        return this.#closed ? () => {} : this.#stop(this.#link.listen(roomName(String(room)), l));
    }
    info() {
        return this.#link.info();
    }
    release() {
        this.closed({});
        this.#link.remove(this);
    }
    signOut() {
        if (this.#closed) return;
        this.#link.signOut();
    }
}

/** @param {any} cb */
function needed(cb) {
    if (typeof cb !== 'function') throw new TypeError('a callback is needed');
    return cb;
}

/* ---- connecting -------------------------------------------------------------------------- */

/** connect() of an environment. @param {Env} env */
export function makeConnect(env) {
    /** @type {Map<string, Link>} */
    const links = new Map();
    /** A provider that is being asked is not asked again. @type {Map<Function, Promise<any>>} */
    const asking = new Map();
    /** Tokens that cannot be told by a digest, in their order. @type {Map<string, string>} */
    const known = new Map();

    /** @param {Options['token']} source @param {number} patience */
    async function firstToken(source, patience) {
        if (source === undefined || source === null) return undefined;
        if (typeof source === 'string') return source;
        if (typeof source !== 'function') throw new TypeError('token must be a function or a text');
        let asked = asking.get(source);
        if (!asked) {
            /** @type {any} */
            let timer;
            const late = new Promise((_, reject) => {
                timer = env.setTimeout(() => reject(new Error('the provider of the token does not answer')), patience);
            });
            asked = Promise.race([new Promise(resolve => resolve(source('connect'))), late]).finally(() => {
                env.clearTimeout(timer);
                asking.delete(source);
            });
            asking.set(source, asked);
        }
        const token = await asked;
        if (!token) throw new Error('nobody is signed in');
        return token;
    }

    /** @param {any} token @param {Options} options */
    async function subjectOf(token, options) {
        if (options.subject !== undefined && options.subject !== null) return String(options.subject);
        if (token === undefined) return 'cookie';
        const { sub } = claimsOf(token);
        if (sub !== undefined) return sub;
        if (env.digest) return `key:${(await env.digest(token)).slice(0, 32)}`;
        if (!known.has(token)) known.set(token, `key:${known.size}`);
        return /** @type {string} */ (known.get(token));
    }

    /** @param {Options} [options] */
    return async function connect(options = {}) {
        const url = new URL(options.url ?? '/ws', options.url === undefined ? env.script : env.url);
        url.protocol = url.protocol.replace('http', 'ws');
        if (!/^wss?:$/.test(url.protocol)) throw new TypeError(`not the URL of a WebSocket: ${url.href}`);
        url.hash = '';
        const patience = options.tokenTimeout ?? TOKEN_MS;
        const first = await firstToken(options.token, patience);
        const subject = await subjectOf(first, options);
        const sub = claimsOf(first).sub;
        const own = options.subject == null && sub === undefined && first !== undefined && !env.digest;
        const share = options.share !== false && !own;
        const worker = options.worker !== false;
        const key = `${url.href} ${subject}`, kind = `${share} ${worker} ${key}`;
        let link = links.get(kind);
        if (!link || link.isOver) {
            const made = new Link({ key, url: url.href, subject, sub, worker, share, patience }, env, () => {
                if (links.get(kind) === made) links.delete(kind);
            });
            links.set(kind, (link = made));
        }
        const handle = new Handle(link, options.token ?? undefined, first);
        link.add(handle);
        await link.ready;
        link.offer();
        return handle;
    };
}

/* ---- in the browser ---------------------------------------------------------------------- */

/** @returns {Env} */
function browser() {
    const g = /** @type {any} */ (globalThis), script = import.meta.url;
    const { crypto, navigator, location } = g;
    const hex = (/** @type {ArrayBuffer} */ b) => Array.from(new Uint8Array(b), x => x.toString(16).padStart(2, '0')).join('');
    const shares = g.SharedWorker && location && new URL(script).origin === location.origin;
    return {
        script,
        url: location?.href ?? script,
        now: () => Date.now(),
        random: () => Math.random(),
        uuid: () => hex(g.crypto.getRandomValues(new Uint8Array(16)).buffer),
        report: e => (g.reportError ? g.reportError(e) : console.error(e)),
        setTimeout: (f, ms) => g.setTimeout(f, ms),
        clearTimeout: t => g.clearTimeout(t),
        socket: url => new g.WebSocket(url),
        locks: navigator?.locks ?? null,
        channel: g.BroadcastChannel ? name => new g.BroadcastChannel(name) : null,
        worker: shares ? name => new g.SharedWorker(script, { type: 'module', name }) : null,
        digest: crypto?.subtle ? async text => hex(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text))) : null,
        page: {
            visible: () => g.document?.visibilityState !== 'hidden',
            listen(f) {
                const looked = () => f(g.document.visibilityState === 'visible'), online = () => f(true);
                g.document?.addEventListener('visibilitychange', looked);
                g.addEventListener?.('online', online);
                return () => {
                    g.document?.removeEventListener('visibilitychange', looked);
                    g.removeEventListener?.('online', online);
                };
            },
            freezes(f) {
                const freeze = () => f(true), resume = () => f(false);
                g.document?.addEventListener('freeze', freeze);
                g.document?.addEventListener('resume', resume);
                return () => {
                    g.document?.removeEventListener('freeze', freeze);
                    g.document?.removeEventListener('resume', resume);
                };
            },
        },
    };
}

const env = browser();

/** @type {typeof import('./provost.js').connect} */
export const connect = makeConnect(env);

const scope = /** @type {any} */ (globalThis);
if (scope.SharedWorkerGlobalScope && scope instanceof scope.SharedWorkerGlobalScope) {
    const take = serveWorker(env);
    scope.onconnect = (/** @type {any} */ e) => take(e.ports[0]);
}
