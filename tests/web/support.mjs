// What the client's tests stand on: a clock that is moved by hand, a server's end of the protocol (docs/WEBSOCKET.md),
// pages that can be killed, locks as navigator.locks has them. Channels and ports are Node's own.
import test from 'node:test';
import assert from 'node:assert/strict';
import { MessageChannel } from 'node:worker_threads';
import { makeConnect } from '../../src/web/client/provost.js';
import { serveWorker } from '../../src/web/client/provost-hub.js';

const TEST_MS = 120_000;
const PATIENCE_MS = 30_000; // real time, for what other tasks of the loop bring

/** All that is due without time passing. */
export async function settle() {
    for (let i = 0; i < 4; i++) await new Promise(setImmediate);
}

/** What channels bring takes tasks, but no time of the clock's. */
export async function until(what, why = what) {
    const end = Date.now() + PATIENCE_MS;
    for (;;) {
        const found = await what();
        if (found) return found;
        assert.ok(Date.now() < end, `never: ${why}`);
        await new Promise(setImmediate);
    }
}

export class Clock {
    time = 1_700_000_000_000;
    timers = new Map();
    lastId = 0;

    set(f, ms) {
        assert.ok(ms >= 0 && ms < 2 ** 31, `a timer of ${ms} ms`);
        this.timers.set(++this.lastId, { at: this.time + ms, f });
        return this.lastId;
    }

    clear(id) {
        this.timers.delete(id);
    }

    /** Milliseconds until the next timer. */
    next() {
        return Math.min(...[...this.timers.values()].map(t => t.at)) - this.time;
    }

    async advance(ms) {
        assert.ok(Number.isFinite(ms) && ms >= 0, `${ms} ms`);
        const end = this.time + ms;
        await settle();
        for (;;) {
            const due = [...this.timers].filter(([, t]) => t.at <= end).sort((a, b) => a[1].at - b[1].at || a[0] - b[0])[0];
            if (!due) break;
            this.timers.delete(due[0]);
            this.time = Math.max(this.time, due[1].at);
            due[1].f();
            await settle();
        }
        this.time = end;
    }

    /** Time passes, and nobody runs: a machine that sleeps. */
    sleep(ms) {
        this.time += ms;
    }
}

/* ---- locks ---- */

export class Locks {
    held = [];
    waiting = [];

    /** The navigator.locks of one page. */
    of(owner) {
        return {
            request: (name, options, f) => this.request(owner, name, f ? options : {}, f ?? options),
            query: async () => ({
                held: this.held.map(({ name, mode }) => ({ name, mode })), pending: this.waiting.map(({ name, mode }) => ({ name, mode })),
            }),
        };
    }

    request(owner, name, { mode = 'exclusive', signal }, f) {
        return new Promise((resolve, reject) => {
            const lock = { owner, name, mode, f, resolve, reject };
            if (signal?.aborted) return reject(signal.reason);
            signal?.addEventListener('abort', () => {
                if (!this.waiting.includes(lock)) return;
                this.waiting.splice(this.waiting.indexOf(lock), 1);
                reject(signal.reason);
                this.grant();
            });
            this.waiting.push(lock);
            this.grant();
        });
    }

    grant() {
        for (let i = 0; i < this.waiting.length; i++) {
            const lock = this.waiting[i];
            const others = [...this.held, ...this.waiting.slice(0, i)].filter(l => l.name === lock.name);
            if (others.some(l => l.mode === 'exclusive' || lock.mode === 'exclusive')) continue;
            this.waiting.splice(i--, 1);
            this.held.push(lock);
            Promise.resolve().then(() => lock.dead || lock.f({ name: lock.name, mode: lock.mode }))
                .then(lock.resolve, lock.reject).finally(() => this.release(lock));
        }
    }

    release(lock) {
        if (!this.held.includes(lock)) return;
        this.held.splice(this.held.indexOf(lock), 1);
        this.grant();
    }

    kill(owner) {
        this.waiting = this.waiting.filter(l => l.owner !== owner);
        for (const lock of this.held.filter(l => l.owner === owner)) {
            lock.dead = true;
            this.release(lock);
        }
    }

    names(owner) {
        return this.held.filter(l => l.owner === owner).map(l => l.name);
    }
}

/* ---- the server's end ---- */

class Socket {
    sent = [];
    readyState = 0;

    constructor(server, url) {
        this.server = server;
        this.url = url;
        server.sockets.push(this);
        setImmediate(() => server.auto && this.readyState === 0 && this.accept());
    }

    /** Of this kind, that the client has sent. */
    of(op) {
        return this.sent.filter(m => m.op === op);
    }

    send(text) {
        assert.equal(this.readyState, 1, 'nothing is sent on a socket that is not open');
        assert.ok(Buffer.byteLength(text) <= 65536);
        const m = JSON.parse(text);
        this.sent.push(m);
        if (this.server.auto) setImmediate(() => this.readyState === 1 && this.server.take(this, m));
    }

    close(code = 1000) {
        if (this.readyState >= 2) return;
        this.closedWith = code;
        this.readyState = 3;
        this.server.left(this);
    }

    /* What the server does. */
    accept() {
        if (this.server.down) return this.fail(1006);
        this.readyState = 1;
        this.onopen?.({});
        if (this.server.auto && !this.server.wantsToken) this.server.hello(this);
        return undefined;
    }

    say(m) {
        if (this.readyState === 1) this.onmessage?.({ data: JSON.stringify(m) });
    }

    fail(code, reason = '') {
        if (this.readyState >= 2) return;
        this.readyState = 3;
        this.server.left(this);
        this.onclose?.({ code, reason, wasClean: code !== 1006 });
    }
}

export class Server {
    auto = true;
    down = false;
    wantsToken = false;
    sockets = [];
    seq = 100;
    lives = 0;
    sessions = new Map();
    history = [];
    outbox = new Map();
    bodies = new Map();
    acked = [];
    refuses = new Map(); // room or path -> code

    get open() {
        return this.sockets.filter(s => s.readyState === 1);
    }

    get last() {
        return this.sockets[this.sockets.length - 1];
    }

    socket = url => new Socket(this, url);

    hello(s) {
        s.session = `session${++this.lives}`;
        this.sessions.set(s.session, { rooms: new Set(), socket: s });
        s.subscribed = new Set();
        s.say({ ev: 'hello', session: s.session, seq: this.seq, heartbeat: 25000 });
        for (const m of this.outbox.values()) s.say(m);
    }

    left(s) {
        const session = this.sessions.get(s.session);
        if (session && !session.rooms.size) this.sessions.delete(s.session);
    }

    ok(s, m, more = {}) {
        if (m.id !== undefined) s.say({ ev: 'ok', id: m.id, ...more });
    }

    no(s, m, code, more = {}) {
        s.say({ ev: 'error', ...(m.id !== undefined && { id: m.id }), code, message: `no: ${code}`, ...more });
    }

    take(s, m) {
        if (m.op === 'auth') return this.auth(s, m);
        const session = this.sessions.get(s.session);
        assert.ok(session, `${m.op} before hello`);
        if (m.op === 'ping') return this.silent || this.ok(s, m);
        if (m.op === 'join') {
            if (this.refuses.has(m.room)) return this.no(s, m, this.refuses.get(m.room));
            session.rooms.add(m.room);
            return this.ok(s, m, { room: m.room });
        }
        if (m.op === 'leave') {
            session.rooms.delete(m.room);
            return this.ok(s, m, { room: m.room });
        }
        if (m.op === 'subscribe') return this.subscribe(s, m);
        if (m.op === 'unsubscribe') {
            s.subscribed.delete(m.path);
            return this.ok(s, m);
        }
        if (m.op === 'ack') {
            if (this.refuses.has('ack')) return this.no(s, m, this.refuses.get('ack'));
            assert.ok(m.ids.length > 0 && m.ids.length <= 256);
            for (const id of m.ids) this.outbox.delete(id);
            this.acked.push(...m.ids);
            return this.ok(s, m);
        }
        assert.equal(m.op, 'resume');
        return this.resume(s, session, m);
    }

    auth(s, m) {
        if (this.refuses.has(m.token))
            return s.session ? this.no(s, m, 4401) : s.fail(this.refuses.get(m.token), 'not accepted');
        s.token = m.token;
        if (s.session) return this.ok(s, m);
        return this.hello(s);
    }

    subscribe(s, m) {
        if (this.refuses.has(m.path)) return this.no(s, m, this.refuses.get(m.path), { path: m.path, live: false });
        s.subscribed.add(m.path);
        this.ok(s, m);
        const body = this.bodies.get(m.path);
        if (body && body.etag !== m.etag) s.say({ ev: 'data', path: m.path, ...body });
        return undefined;
    }

    resume(s, session, m) {
        const former = this.sessions.get(m.session);
        if (!former || former === session) {
            this.ok(s, m, { resumed: false, rooms: [] });
            s.say({ ev: 'resync', rooms: [], paths: [], seq: this.seq });
            return;
        }
        former.socket.fail(4001, 'resumed by another connection');
        for (const room of former.rooms) session.rooms.add(room);
        this.sessions.delete(m.session);
        this.ok(s, m, { resumed: true, rooms: [...session.rooms] });
        if (this.history.length && this.floor > m.seq)
            s.say({ ev: 'resync', rooms: [...session.rooms], paths: [], seq: this.seq });
        else for (const e of this.history) if (e.seq > m.seq && session.rooms.has(e.room)) s.say(e);
    }

    /** In a room, to all who are in it. */
    publish(room, name, data) {
        const m = { ev: 'event', room, name, data, seq: ++this.seq };
        this.history.push(m);
        for (const s of this.open) if (this.sessions.get(s.session)?.rooms.has(room)) s.say(m);
        return m.seq;
    }

    change(table, keys) {
        const m = { ev: 'change', room: `table:${table}`, table, op: 'UPDATE', keys, seq: ++this.seq };
        this.history.push(m);
        for (const s of this.open) if (this.sessions.get(s.session)?.rooms.has(m.room)) s.say(m);
    }

    /** To a user: kept until it is acknowledged. */
    notify(nid, data, room = 'user:u') {
        const m = { ev: 'event', room, name: 'note', data, nid, seq: ++this.seq };
        this.outbox.set(nid, m);
        for (const s of this.open) if (s.session) s.say(m);
    }

    put(path, body, etag) {
        this.bodies.set(path, { etag, body });
        for (const s of this.open) if (s.subscribed?.has(path)) s.say({ ev: 'data', path, etag, body });
    }

    /** All is forgotten, as by a restart. */
    restart(retry) {
        this.sessions.clear();
        this.history = [];
        this.seq = 5;
        for (const s of this.open) {
            if (retry !== undefined) s.say({ ev: 'bye', retry });
            s.fail(1001);
        }
    }
}

/* ---- pages ---- */

const browsers = [];

/** A browser: its pages share locks, channels and workers. */
export class Browser {
    locks = new Locks();
    workers = new Map();
    everyWorker = [];
    pages = [];
    lastId = 0;
    hasWorkers = true;
    hasLocks = true;

    constructor({ server = new Server(), clock = new Clock() } = {}) {
        this.server = server;
        this.clock = clock;
        browsers.push(this);
        this.scope = `${process.pid}.${Math.random()}`; // channels are the process's
    }

    /** What a page or a worker has of the browser. */
    env(owner) {
        const its = owner;
        const guarded = f => (...args) => (its.dead ? undefined : f(...args));
        return {
            script: 'http://host.test/client/provost.js',
            url: 'http://host.test/admin/index.html',
            now: () => this.clock.time,
            random: () => its.random ?? 0.5,
            uuid: () => `id${++this.lastId}`,
            report: e => its.reports.push(e),
            setTimeout: (f, ms) => this.clock.set(guarded(f), ms),
            clearTimeout: id => this.clock.clear(id),
            socket: url => {
                const s = this.server.socket(url);
                its.sockets.push(s);
                return s;
            },
            locks: this.hasLocks ? this.locks.of(its) : null,
            channel: name => {
                const c = new BroadcastChannel(`${this.scope} ${name}`), post = c.postMessage.bind(c);
                c.postMessage = guarded(post);
                its.closers.push(() => c.close());
                its.opened.push([name, c]);
                return c;
            },
            worker: this.hasWorkers ? name => this.worker(name, its) : null,
            digest: async text => `digest-of-${text}`.padEnd(40, '.'),
            page: {
                visible: () => its.visible,
                listen: f => {
                    its.listeners.add(f);
                    return () => its.listeners.delete(f);
                },
                freezes: f => {
                    its.freezers.add(f);
                    return () => its.freezers.delete(f);
                },
            },
        };
    }

    owner() {
        return { reports: [], sockets: [], closers: [], opened: [], listeners: new Set(), freezers: new Set(), visible: true, dead: false };
    }

    worker(name, page) {
        if (this.brokenWorkers) {
            const port = new MessageChannel().port1;
            port.close();
            const broken = { port: { postMessage() {}, close() {} }, onerror: null };
            if (this.brokenWorkers === 'loudly') setImmediate(() => broken.onerror?.({}));
            return broken;
        }
        let w = this.workers.get(name);
        if (!w) {
            const owner = this.owner();
            w = { owner, take: serveWorker(this.env(owner)) };
            this.workers.set(name, w);
            this.everyWorker.push(w);
        }
        const { port1, port2 } = new MessageChannel();
        w.owner.closers.push(() => port2.close());
        page.closers.push(() => port1.close());
        w.take(port2);
        return { port: port1, onerror: null };
    }

    page() {
        const its = this.owner();
        const env = this.env(its);
        const page = Object.assign(its, {
            connect: makeConnect(env),
            wake: visible => {
                for (const f of its.listeners) f(visible !== false);
            },
            freeze: frozen => {
                for (const f of its.freezers) f(frozen);
            },
            kill: () => this.kill(its),
            channels: to => its.opened.filter(([name]) => name.includes(to)).map(([, c]) => c),
        });
        this.pages.push(page);
        return page;
    }

    kill(owner) {
        owner.dead = true;
        for (const close of owner.closers) close();
        for (const s of owner.sockets) {
            s.onmessage = s.onclose = s.onopen = null;
            s.close(1006);
        }
        this.locks.kill(owner);
    }

    killWorkers() {
        for (const w of this.workers.values()) this.kill(w.owner);
        this.workers.clear();
    }

    /** Nothing of it keeps the process alive. */
    end() {
        for (const page of this.pages) if (!page.dead) this.kill(page);
        this.killWorkers();
    }

    check() {
        for (const page of this.pages) assert.deepEqual(page.reports.map(String), page.expected ?? [], 'what was reported');
        for (const w of this.everyWorker) assert.deepEqual(w.owner.reports, []);
    }
}

/** A test with browsers; whatever becomes of it, they end. What their pages report must be what is `expected`. */
export function scenario(name, f) {
    if (process.env.PROVOST_TEST_LIST) return void console.log(name); /* test_client.py asks what there is */
    test(name, { timeout: TEST_MS }, async () => {
        try {
            await f();
            for (const b of browsers) b.check();
        } finally {
            for (const b of browsers.splice(0)) b.end();
        }
    });
}

/** An unsigned JWT: the client looks at its claims for timing only. */
export function jwt(claims) {
    const part = x => Buffer.from(JSON.stringify(x)).toString('base64url');
    return `${part({ alg: 'ES256' })}.${part(claims)}.c2lnbmF0dXJl`;
}

/** A function that remembers what it was called with. */
export function spy(f = () => {}) {
    const calls = [];
    return Object.assign((...args) => {
        calls.push(args);
        return f(...args);
    }, { calls });
}
