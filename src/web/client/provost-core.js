/**
 * provost-core: one connection to the server, kept up: attempts, token, resuming, acknowledgements.
 *
 * Knows no pages. All that is of the browser comes in by `env`, so that it runs under Node with a
 * clock of its own. Everything that others can make grow is bounded.
 *
 * @typedef {import('./provost.js').State} State
 * @typedef {import('./provost.js').Why} Why
 * @typedef {import('./provost.js').Options} Options
 * @typedef {import('./provost.js').Problem} Problem
 * @typedef {import('./provost.js').Resync} Resync
 * @typedef {import('./provost.js').TokenReason} TokenReason
 * @typedef {string | number} Nid
 * @typedef {{n: number, life: string, session: string, seq: number}} Mark  what a page has seen:
 *     `life` tells sequences of numbers apart, `n` rises with every connection
 * @typedef {Record<string, any>} Message
 * @typedef {{live: boolean, asked: boolean, tries: number, has: boolean, body?: any, etag?: string, stale?: boolean,
 *     problem?: Problem}} Entry  of a path: `live`: the server tells of it; the last body, the problem since
 * @typedef {{joined: boolean, asked: boolean, stale: boolean, tries: number}} Room  `joined`: its events are told, or were
 *     when the connection was lost; `stale`: something was missed
 * @typedef {{script: string, url: string, now(): number, random(): number, uuid(): string, report(e: unknown): void,
 *     setTimeout(f: () => void, ms: number): any, clearTimeout(t: any): void, socket(url: string): any,
 *     locks: any, channel: ((name: string) => any) | null, worker: ((name: string) => any) | null,
 *     digest: ((text: string) => Promise<string>) | null,
 *     page: {visible(): boolean, listen(f: (wake: boolean) => void): () => void, freezes(f: (frozen: boolean) => void): () => void}}} Env
 */

const BASE_MS = 500, CAP_MS = 30_000, HEALTHY_MS = 60_000; // backoff
const SLOW_DOWN = 4; // failures that a close for a limit counts as, at least
const CONNECT_MS = 20_000; // until hello
const ANSWER_MS = 10_000; // to a ping
const PROBE_MS = 5_000; // silence after which a page that wakes up wants a sign of life
const WAKE_MS = 1_000; // between attempts, however often pages wake up
const RENEW_MIN_MS = 1_000, RENEW_AGAIN_MS = 5_000, RENEW_EARLY_MS = 60_000;
const LONGEST_TIMER_MS = 12 * 3600_000; // setTimeout wraps at 2^31 ms
const ACK_MS = 20, ACK_MAX = 256, ACKED_MS = 15_000;
const BURST = 400, PER_SECOND = 100; // messages: below the server's limit
const AUTH_COST = 32;
const TRANSIENT = new Set([4408, 4429, 4500, 4503, 4504]);
export const NIDS_MAX = 10_000; // of durable events that are remembered

/** A set that forgets the oldest. @template T */
export class Recent {
    /** @param {number} max */
    constructor(max) {
        this.max = max;
        /** @type {Set<T>} */
        this.set = new Set();
    }
    /** @param {T} x */
    has(x) {
        return this.set.has(x);
    }
    /** @param {T} x */
    add(x) {
        this.set.delete(x);
        this.set.add(x);
        for (const oldest of this.set) {
            if (this.set.size <= this.max) break;
            this.set.delete(oldest);
        }
    }
}

/** Timers by name: setting one anew replaces it. */
export class Timers {
    /** @param {Env} env */
    constructor(env) {
        this.env = env;
        /** @type {Map<string, any>} */
        this.set = new Map();
    }
    /** @param {string} name @param {number} ms @param {() => void} f */
    after(name, ms, f) {
        this.cancel(name);
        this.set.set(name, this.env.setTimeout(() => {
            this.set.delete(name);
            f();
        }, ms));
    }
    /** @param {string} name */
    cancel(name) {
        this.env.clearTimeout(this.set.get(name));
        this.set.delete(name);
    }
    clear() {
        for (const name of [...this.set.keys()]) this.cancel(name);
    }
}

/** What a JWT says of itself; for timing and for telling users apart, never for trust.
 *  @param {unknown} token @returns {{sub?: string, exp?: number}} */
export function claimsOf(token) {
    try {
        const [, payload, signature] = String(token).split('.');
        if (!signature) return {};
        const bytes = atob(payload.replace(/-/g, '+').replace(/_/g, '/'));
        const claims = JSON.parse(new TextDecoder().decode(Uint8Array.from(bytes, c => c.charCodeAt(0))));
        return {
            sub: typeof claims.sub === 'string' && claims.sub ? claims.sub : undefined,
            exp: Number.isFinite(claims.exp) ? claims.exp : undefined,
        };
    } catch {
        return {};
    }
}

/** @param {any} e */
export const textOf = e => String((e && e.message) || e);

/* ---- the connection ---------------------------------------------------------------------- */

/**
 * One connection to the server, kept up. Every attempt has a number (`turn`): what comes from an
 * earlier one is not listened to.
 *
 * The host is told: token(reason) is to give one, or nothing (a cookie says who it is); state();
 * event(m, bytes); data(path, entry); problem(p); resync(what); mark(): the session has changed.
 */
export class Core {
    /** @param {string} url @param {any} host @param {Env} env */
    constructor(url, host, env) {
        this.url = url;
        this.host = host;
        this.env = env;
        this.timers = new Timers(env);
        /** @type {State} */
        this.state = 'closed';
        /** @type {Why} */
        this.why = {};
        /** Wanted. @type {Map<string, Room>} */
        this.rooms = new Map();
        /** @type {Map<string, Entry>} */
        this.paths = new Map();
        /** @type {Set<Nid>} */
        this.acks = new Set();
        /** What is to be resumed. @type {Mark | null} */
        this.session = null;
        this.turn = 0;
        this.failures = 0;
        this.attempts = 0;
        this.dialled = -Infinity;
        /** @type {any} */
        this.socket = null;
        /** @type {Map<number, (m: Message) => void>} */
        this.asked = new Map();
        /** @type {{text: string, cost: number}[]} */
        this.queue = [];
        /** When to come back, as the server has said. @type {number | null} */
        this.bye = null;
        /** @type {any} */
        this.token = undefined;
        /** What a token is asked for at the next attempt. @type {TokenReason} */
        this.next = 'connect';
        this.lastId = this.heartbeat = this.ackTries = 0;
        this.allowance = this.filled = this.heard = 0;
        this.opened = NaN;
        this.resuming = this.renewing = this.acking = false;
        this.reset();
    }

    /** What does not outlive a connection. */
    reset() {
        this.timers.clear();
        this.asked.clear();
        this.queue = [];
        this.bye = null;
        this.token = undefined;
        this.lastId = this.heartbeat = this.ackTries = 0;
        this.allowance = BURST;
        this.filled = this.heard = this.env.now();
        this.opened = NaN;
        this.resuming = this.renewing = this.acking = false;
        for (const room of this.rooms.values()) {
            room.stale ||= room.asked; /* what is said until it is joined is missed */
            room.asked = false;
        }
        for (const entry of this.paths.values()) entry.live = entry.asked = false;
    }

    /** @param {State} state @param {Why} [why] */
    setState(state, why = {}) {
        this.state = state;
        this.why = why;
        this.host.state();
    }

    start() {
        if (this.state !== 'closed') return;
        this.failures = 0;
        this.dial('connect');
    }

    /** Nothing more is tried. @param {Why} why */
    stop(why) {
        this.drop();
        this.session = null;
        for (const room of this.rooms.values()) room.joined = false;
        this.setState('closed', why);
    }

    drop() {
        this.turn++;
        const socket = this.socket;
        this.socket = null;
        if (socket) {
            socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
            try {
                socket.close(1000);
            } catch (e) {
                this.env.report(e);
            }
        }
        this.reset();
    }

    /** @param {TokenReason} reason */
    async dial(reason) {
        this.drop();
        const turn = this.turn;
        this.dialled = this.env.now();
        this.setState('connecting', this.why.code ? { code: this.why.code, reason: this.why.reason } : {});
        /** @type {any} */
        let token, socket;
        try {
            token = await this.host.token(reason);
        } catch (e) {
            if (turn === this.turn) this.lost(4401, `there is no token: ${textOf(e)}`, reason);
            return;
        }
        if (turn !== this.turn) return;
        this.attempts++;
        this.token = token;
        try {
            this.socket = socket = this.env.socket(this.url);
        } catch (e) {
            return this.lost(1006, `there is no socket: ${textOf(e)}`);
        }
        socket.onopen = () => token && socket.send(JSON.stringify({ op: 'auth', token }));
        socket.onmessage = (/** @type {any} */ e) => this.take(e.data);
        socket.onclose = (/** @type {any} */ e) => this.lost(e.code, e.reason);
        this.timers.after('connect', CONNECT_MS, () => this.lost(1006, 'the server does not answer'));
    }

    /** @param {number} code @param {string} [reason] @param {TokenReason} [next] */
    lost(code, reason = '', next = code === 4401 ? 'refused' : 'connect') {
        const { bye, env } = this;
        if (env.now() - this.opened >= HEALTHY_MS) this.failures = 0;
        if (code === 4001 || code === 4403) return this.stop({ code, reason });
        if (code === 4429 || code === 4400) this.failures = Math.max(this.failures, SLOW_DOWN);
        const backoff = env.random() * Math.min(CAP_MS, BASE_MS * 2 ** this.failures++);
        const retry = Math.round(bye ?? backoff);
        this.drop();
        this.next = next;
        this.timers.after('retry', retry, () => this.dial(next));
        this.setState('waiting', { code, reason, retry });
    }

    /** The network is back, or somebody looks: no time to wait. */
    wake() {
        const now = this.env.now();
        if (this.state === 'waiting') {
            const rest = this.dialled + WAKE_MS - now;
            if (rest <= 0) this.dial(this.next);
            else this.timers.after('retry', Math.min(rest, this.why.retry ?? rest), () => this.dial(this.next));
        } else if (this.state === 'open' && now - this.heard >= PROBE_MS) {
            this.probe();
        }
    }

    /** Somebody has a token that has not been tried: what became of others is no reason to wait. */
    offered() {
        if (this.state === 'waiting' && (this.why.code === 4401 || this.why.code === 4408)) this.wake();
    }

    /* The pings of the server cannot be seen from here. */
    watch() {
        this.heard = Math.min(this.heard, this.env.now()); /* the clock may have been put back */
        const rest = this.heard + 2 * this.heartbeat - this.env.now();
        if (rest <= 0) this.probe();
        else this.timers.after('silence', rest, () => this.watch());
    }

    /** @param {boolean} [again] */
    probe(again = false) {
        if (this.timers.set.has('dead')) return;
        this.timers.cancel('silence');
        const sent = this.env.now();
        this.ask({ op: 'ping' }, () => {});
        this.timers.after('dead', ANSWER_MS, () => {
            /* A timer that is much too late: we have slept, not the server. Those of hidden pages always are. */
            if (!again && this.env.now() - sent > 3 * ANSWER_MS) this.probe(true);
            else this.lost(1006, 'nothing is heard any more');
        });
    }

    /** @param {string} text */
    take(text) {
        /** @type {Message} */
        let m;
        try {
            m = JSON.parse(text);
        } catch (e) {
            return this.env.report(e);
        }
        this.heard = this.env.now();
        if (this.timers.set.has('dead')) {
            this.timers.cancel('dead');
            this.watch();
        }
        if (m.ev === 'hello') this.hello(m);
        else if (m.ev === 'ok') this.answered(m);
        else if (m.ev === 'error') this.refused(m);
        else if (m.ev === 'data') this.data(m);
        else if (m.ev === 'change' || m.ev === 'event') this.event(m, text.length);
        else if (m.ev === 'resync') this.resync(m);
        else if (m.ev === 'bye') this.bye = Number.isFinite(m.retry) ? m.retry : null;
    }

    /* ---- speaking ---- */

    /** @param {Message} m @param {number} [cost] */
    send(m, cost = 1) {
        this.queue.push({ text: JSON.stringify(m), cost });
        this.pump();
    }

    pump() {
        const now = this.env.now();
        this.allowance = Math.min(BURST, this.allowance + (Math.max(0, now - this.filled) * PER_SECOND) / 1000);
        this.filled = now;
        while (this.queue.length && this.allowance >= this.queue[0].cost) {
            const next = /** @type {{text: string, cost: number}} */ (this.queue.shift());
            this.allowance -= next.cost;
            this.socket.send(next.text);
        }
        if (this.queue.length) this.timers.after('pump', 100, () => this.pump());
    }

    /** @param {Message} m @param {(m: Message) => void} done @param {number} [cost] */
    ask(m, done, cost) {
        const id = ++this.lastId;
        this.asked.set(id, done);
        this.send({ ...m, id }, cost);
    }

    /** @param {Message} m */
    answered(m) {
        const done = this.asked.get(m.id);
        this.asked.delete(m.id);
        if (done) done(m);
        return !!done;
    }

    /** @param {Message} m */
    refused(m) {
        if (m.id !== undefined && this.answered(m)) return;
        if (m.path !== undefined) this.pathFailed(m.path, m);
        else if (m.room !== undefined) this.roomFailed(m.room, m);
        else if (m.code === 4401) this.renew('refused');
    }

    /* ---- who we are ---- */

    renewLater() {
        const { exp } = claimsOf(this.token);
        if (exp === undefined) return;
        const left = exp * 1000 - this.env.now();
        /* Past its end and not refused: our clock is wrong. The server will say. */
        const rest = left <= 0 ? RENEW_EARLY_MS : left - Math.min(RENEW_EARLY_MS, left / 5);
        if (rest > LONGEST_TIMER_MS) this.timers.after('renew', LONGEST_TIMER_MS, () => this.renewLater());
        else this.timers.after('renew', Math.max(rest, RENEW_MIN_MS), () => this.renew('renew'));
    }

    /** @param {TokenReason} reason */
    async renew(reason) {
        if (this.renewing || this.state !== 'open') return;
        const turn = this.turn;
        const again = () => this.timers.after('renew', RENEW_AGAIN_MS, () => this.renew(reason));
        this.renewing = true;
        let token;
        try {
            token = await this.host.token(reason);
        } catch {
            token = null; /* tried again, until the server has had enough */
        }
        if (turn !== this.turn) return;
        this.renewing = false;
        if (!token || token === this.token) return again();
        this.ask({ op: 'auth', token }, m => {
            if (m.ev !== 'ok') {
                reason = 'refused';
                return again();
            }
            this.token = token;
            this.renewLater();
            this.wantAll();
        }, AUTH_COST);
    }

    /* ---- coming up ---- */

    /** @param {Message} m */
    hello(m) {
        if (this.state === 'open') return;
        const before = this.session;
        this.timers.cancel('connect');
        this.opened = this.env.now();
        this.heartbeat = m.heartbeat > 0 ? m.heartbeat : 25_000;
        this.setState('open');
        this.watch();
        this.renewLater();
        /* A session without rooms is not kept by the server. */
        if (before && [...this.rooms.values()].some(r => r.joined)) {
            this.resuming = true;
            this.ask({ op: 'resume', session: before.session, seq: before.seq }, answer => this.resumed(m, answer));
        } else {
            this.adopt(m, false);
        }
        for (const [path, entry] of this.paths) this.askPath(path, entry);
        this.flush();
    }

    /** @param {Message} hello @param {Message} answer */
    resumed(hello, answer) {
        const ours = !!answer.resumed;
        const kept = new Set(ours && Array.isArray(answer.rooms) ? answer.rooms : []);
        for (const [name, room] of this.rooms) {
            room.stale ||= room.joined && !kept.has(name);
            room.joined = kept.has(name);
        }
        for (const name of kept) if (!this.rooms.has(name)) this.send({ op: 'leave', room: name });
        this.resuming = false;
        this.adopt(hello, ours);
    }

    /** @param {Message} hello @param {boolean} same whether the numbers go on */
    adopt(hello, same) {
        const n = (this.session?.n ?? 0) + 1;
        this.session = same && this.session ? { ...this.session, n, session: hello.session }
            : { n, life: hello.session, session: hello.session, seq: hello.seq };
        this.host.mark();
        this.wantAll();
    }

    wantAll() {
        for (const [name, room] of this.rooms) this.askRoom(name, room);
        for (const [path, entry] of this.paths) this.askPath(path, entry);
        this.settleStale();
    }

    /** A room or a path is tried again, ever later. @param {string} name @param {{tries: number}} what @param {() => void} f */
    later(name, what, f) {
        const rest = Math.min(CAP_MS, 2 * BASE_MS * 2 ** what.tries++) * (1 + this.env.random()) / 2;
        this.timers.after(name, rest, f);
    }

    /* ---- rooms ---- */

    /** @param {string} name */
    join(name) {
        let room = this.rooms.get(name);
        const away = !!this.session && this.state !== 'open'; /* what is said until it is joined is missed */
        if (!room) this.rooms.set(name, (room = { joined: false, asked: false, stale: away, tries: 0 }));
        this.askRoom(name, room);
    }

    /** @param {string} name */
    leave(name) {
        this.timers.cancel(`room ${name}`);
        /* The answer to a resume says which are left: behind it they may be wanted again. */
        if (this.rooms.delete(name) && this.state === 'open' && !this.resuming) this.send({ op: 'leave', room: name });
    }

    /** @param {string} name @param {Room} room */
    askRoom(name, room) {
        if (this.state !== 'open' || this.resuming || room.joined || room.asked) return;
        this.timers.cancel(`room ${name}`);
        room.asked = true;
        this.ask({ op: 'join', room: name }, m => {
            if (this.rooms.get(name) !== room) return;
            room.asked = false;
            if (m.ev === 'ok') Object.assign(room, { joined: true, tries: 0 });
            else this.roomFailed(name, m);
            this.settleStale();
        });
    }

    /** @param {string} name @param {Message} m */
    roomFailed(name, m) {
        const room = this.rooms.get(name);
        if (!room) return;
        room.joined = false;
        room.stale = TRANSIENT.has(m.code); /* until it is joined after all */
        if (room.stale) this.later(`room ${name}`, room, () => this.askRoom(name, room));
        this.host.problem({ room: name, code: m.code, message: m.message });
    }

    /** Something was missed there; it can be read anew once nothing more can be missed. @param {Iterable<string>} names */
    doubt(names) {
        for (const name of names) {
            const room = this.rooms.get(name);
            if (room) room.stale = true;
        }
        this.settleStale();
    }

    settleStale() {
        const stale = [...this.rooms].filter(([, room]) => room.stale && (room.joined || room.asked));
        if (this.state !== 'open' || this.resuming || !stale.length || stale.some(([, room]) => room.asked)) return;
        for (const [, room] of stale) room.stale = false;
        this.host.resync({ rooms: stale.map(([name]) => name), paths: [] });
    }

    /** @param {Message} m */
    resync(m) {
        const rooms = Array.isArray(m.rooms) ? m.rooms : [], paths = Array.isArray(m.paths) ? m.paths : [];
        if (this.session && !this.resuming && Number.isFinite(m.seq)) this.session.seq = m.seq;
        if (rooms.length || paths.length) this.host.resync({ rooms, paths });
    }

    /** @param {Message} m @param {number} bytes */
    event(m, bytes) {
        /* Durable ones are told by their id, and may come before what is resumed: they say nothing of what was seen. */
        if (m.nid === undefined && this.session && m.seq > this.session.seq) this.session.seq = m.seq;
        this.host.event(m, bytes);
    }

    /* ---- paths ---- */

    /** @param {string} path */
    subscribe(path) {
        let entry = this.paths.get(path);
        if (!entry) this.paths.set(path, (entry = { live: false, asked: false, has: false, tries: 0 }));
        this.askPath(path, entry);
        return entry;
    }

    /** @param {string} path */
    unsubscribe(path) {
        this.timers.cancel(`path ${path}`);
        if (this.paths.delete(path) && this.state === 'open') this.send({ op: 'unsubscribe', path });
    }

    /** @param {string} path @param {Entry} entry */
    askPath(path, entry) {
        if (this.state !== 'open' || entry.live || entry.asked) return;
        this.timers.cancel(`path ${path}`);
        entry.asked = true;
        /* With it only news is sent; that a problem is over would be none. */
        const known = entry.has && entry.etag !== undefined && !entry.stale && !entry.problem;
        this.ask({ op: 'subscribe', path, ...(known && { etag: entry.etag }) }, answer => {
            if (this.paths.get(path) !== entry) return;
            entry.asked = false;
            if (answer.ev === 'ok') entry.live = true;
            else this.pathFailed(path, answer);
        });
    }

    /** @param {string} path @param {Message} m */
    pathFailed(path, m) {
        const entry = this.paths.get(path);
        if (!entry) return;
        entry.live = m.live === true;
        if (!TRANSIENT.has(m.code)) Object.assign(entry, { has: false, body: undefined, etag: undefined }); /* not for us, or no more */
        else if (!entry.live) {
            this.later(`path ${path}`, entry, () => this.askPath(path, entry));
        }
        entry.problem = { path, code: m.code, message: m.message, live: entry.live };
        this.host.problem(entry.problem);
    }

    /** @param {Message} m */
    data(m) {
        const entry = this.paths.get(m.path);
        if (!entry) return;
        Object.assign(entry, { has: true, body: m.body, etag: m.etag, stale: m.stale === true, tries: 0, problem: undefined });
        this.host.data(m.path, entry);
    }

    /* ---- acknowledging ---- */

    /** @param {Nid} nid */
    ack(nid) {
        this.acks.add(nid);
        for (const oldest of this.acks) {
            if (this.acks.size <= NIDS_MAX) break;
            this.acks.delete(oldest);
        }
        if (!this.timers.set.has('ack')) this.timers.after('ack', ACK_MS, () => this.flush());
    }

    /** One message under way at a time, until it is answered; a server short of memory may not answer. */
    flush() {
        if (this.state !== 'open' || this.acking || !this.acks.size) return;
        const ids = [...this.acks].slice(0, ACK_MAX);
        this.acking = true;
        this.timers.after('acked', ACKED_MS, () => {
            this.acking = false;
            this.flush();
        });
        this.ask({ op: 'ack', ids }, m => {
            this.timers.cancel('acked');
            this.acking = false;
            if (m.ev === 'ok' || m.code === 4400) {
                if (m.ev !== 'ok') this.env.report(new Error(`an acknowledgement was refused: ${m.message}`));
                for (const id of ids) this.acks.delete(id);
                this.ackTries = 0;
                this.flush();
            } else {
                const rest = Math.min(CAP_MS, 2 * BASE_MS * 2 ** this.ackTries++);
                this.timers.after('ack', rest, () => this.flush());
            }
        });
    }
}
