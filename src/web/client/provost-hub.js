/**
 * provost-hub: what all pages want, of one connection, and who of them has taken a durable event.
 *
 * Lives in a SharedWorker, or in one of the pages. Pages come and go without saying so: each holds a
 * lock for as long as it lives, upon which the hub waits, and the hub one upon which the pages wait.
 *
 * @typedef {import('./provost-core.js').Env} Env
 * @typedef {import('./provost-core.js').Entry} Entry
 * @typedef {import('./provost-core.js').Mark} Mark
 * @typedef {import('./provost-core.js').Message} Message
 * @typedef {import('./provost-core.js').Nid} Nid
 * @typedef {import('./provost.js').Problem} Problem
 * @typedef {import('./provost.js').Resync} Resync
 * @typedef {import('./provost.js').TokenReason} TokenReason
 * @typedef {import('./provost.js').Why} Why
 * @typedef {{id: string, post: (m: Message) => void, rooms: Set<string>, paths: Set<string>, visible: boolean,
 *      at: number, patience: number, mark: Mark | null, local: boolean}} Tab
 */
import { Core, NIDS_MAX, Recent, Timers } from './provost-core.js';

const VERSION = 1; // of what pages and hub say to each other: others do not share
const PENDING_MAX = 1_000, PENDING_BYTES = 8 << 20; // durable events that nobody has taken yet
const LINGER_MS = 1_000; // that rooms and paths are kept for who comes back
const GRACE_MS = 2_000; // that the socket is
export const SIGNED_OUT = { code: 1000, reason: 'signed out' };
const GATHER_MS = 3_000; // that a new hub waits for the pages that are there

/** @param {string} path @param {Entry} entry */
const dataOf = (path, { body, etag, stale }) => ({ t: 'data', path, body, etag, stale });

/** A page of the same thread gets it as it is, not what it will be. @param {Mark | null | undefined} mark */
const copy = mark => mark ? { ...mark } : null;

export const lockOfTab = (/** @type {string} */ key, id = '') => `provost${VERSION}:tab:${key}:${id}`;
/* Of a worker, or of the leader: neither waits for the other. */
export const lockOfHub = (/** @type {string} */ key, kind = 'leader') => `provost${VERSION}:${kind}:${key}`;
export const channelTo = (/** @type {string} */ key, to = 'hub') => `provost${VERSION}:to:${to}:${key}`;

/**
 * The one of all pages of a key. Pages attach with all they want, and speak by receive(); what they
 * are told goes to their `post`. `over(why)` is called once, when nobody is there any more or the
 * connection is closed for good; then it is not used again.
 *
 * `living()` gives the ids of the pages there are: after another hub has died they must all have said
 * what they have seen, or what one of them has missed could not be resumed.
 */
export class Hub {
    /** @param {{mode: string, env: Env, living: () => Promise<string[]>, over: (why: Why) => void}} options */
    constructor({ mode, env, living, over }) {
        this.id = env.uuid();
        this.mode = mode;
        this.env = env;
        this.living = living;
        this.onOver = over;
        this.timers = new Timers(env);
        /** @type {Map<string, Tab>} */
        this.tabs = new Map();
        /** @type {Core | null} */
        this.core = null;
        this.started = this.isOver = false;
        /** @type {Map<Nid, {m: Message, bytes: number}>} */
        this.pending = new Map();
        this.pendingBytes = 0;
        this.overflow = false;
        /** @type {Recent<Nid>} */
        this.done = new Recent(NIDS_MAX);
        /** @type {Map<number, {tab: string, resolve: (t: any) => void, reject: (e: any) => void}>} */
        this.asks = new Map();
        this.lastAsk = this.arrivals = 0;
        /** The page that has a token which has not been tried, and the last that was. */
        this.bringer = '';
        /** @type {any} */
        this.given = undefined;
    }

    /* ---- pages ---- */

    /** @param {Message} m @param {(m: Message) => void} post @param {boolean} [local] */
    attach(m, post, local = false) {
        if (this.isOver) return false;
        if (!this.tabs.has(m.tab)) {
            this.timers.cancel('grace');
            this.core ??= new Core(m.url, this, this.env);
            const tab = {
                id: m.tab, post, local, rooms: new Set(m.rooms), paths: new Set(), visible: m.visible,
                at: ++this.arrivals, patience: m.patience, mark: m.mark,
            };
            this.tabs.set(m.tab, tab);
            for (const nid of m.done) this.pending.has(nid) ? this.taken(m.tab, nid) : this.done.add(nid);
            this.welcome(tab);
            for (const room of tab.rooms) this.listen(tab, room);
            for (const [path, etag] of m.paths) this.subscribe(tab, path, etag);
            if (this.started) this.lateComer(tab);
            else this.gather();
        } else {
            this.welcome(/** @type {any} */ (this.tabs.get(m.tab)));
        }
        return true;
    }

    /** @param {Tab} tab */
    welcome(tab) {
        const { state, why, session } = /** @type {Core} */ (this.core);
        const shown = this.started ? state : 'connecting';
        tab.post({ t: 'welcome', hub: this.id, mode: this.mode, state: shown, why, mark: this.started ? copy(session) : null });
    }

    /** One that belongs to an earlier hub and was not there in time: it, and nobody else, looks anew. @param {Tab} tab */
    lateComer(tab) {
        const core = /** @type {Core} */ (this.core), now = core.session;
        if (!tab.mark || (now && tab.mark.life === now.life && tab.mark.seq >= now.seq)) return;
        const isHeard = (/** @type {string} */ room) => core.state === 'open' && !core.resuming && core.rooms.get(room)?.joined;
        const rooms = [...tab.rooms].filter(isHeard);
        if (rooms.length) tab.post({ t: 'resync', what: { rooms, paths: [] }, mark: copy(now) });
        core.doubt([...tab.rooms].filter(room => !isHeard(room)));
    }

    async gather() {
        if (!this.timers.set.has('gather')) this.timers.after('gather', GATHER_MS, () => this.start());
        const living = await this.living().catch(e => void this.env.report(e));
        if (living && !this.isOver && !this.started && living.every(id => this.tabs.has(id))) this.start();
    }

    /** From what the pages have seen, the connection is taken up where the one furthest behind is. */
    start() {
        if (this.started || this.isOver || !this.core) return;
        this.started = true;
        this.timers.cancel('gather');
        const { core } = this, tabs = [...this.tabs.values()];
        /** @type {Mark | null} */
        let last = null;
        for (const { mark } of tabs) if (mark && (!last || mark.n > last.n)) last = mark;
        for (const tab of tabs) {
            if (!last || !tab.mark || !tab.rooms.size) continue;
            if (tab.mark.life !== last.life) core.doubt(tab.rooms);
            else if (tab.mark.seq < last.seq) last = { ...last, seq: tab.mark.seq };
        }
        core.session = copy(last);
        for (const { mark, rooms } of tabs)
            if (mark) for (const name of rooms) /** @type {any} */ (core.rooms.get(name)).joined = true;
        core.start();
    }

    /** @param {string} id */
    detach(id) {
        const tab = this.tabs.get(id);
        if (!tab) return;
        this.tabs.delete(id);
        for (const ask of [...this.asks.values()]) if (ask.tab === id) ask.reject(new Error('the page is gone'));
        for (const room of tab.rooms) this.roomLeft(room);
        for (const path of tab.paths) this.pathLeft(path);
        if (!this.tabs.size && !this.isOver) this.timers.after('grace', GRACE_MS, () => this.close({ code: 1000 }));
        else if (!this.started) this.gather();
    }

    /** For all pages, for good. @param {Why} why */
    close(why) {
        if (this.isOver) return;
        if (!this.core || this.core.state === 'closed') return this.finish(why);
        this.core.flush(); /* what has been taken is not shown at the next signing in */
        this.core.stop(why); /* says so by state() */
    }

    /** @param {Why} why */
    finish(why) {
        if (this.isOver) return;
        this.isOver = true;
        this.timers.clear();
        this.tell({ t: 'state', state: 'closed', why });
        this.tabs.clear();
        for (const ask of [...this.asks.values()]) ask.reject(new Error('the connection is closed'));
        this.onOver(why);
    }

    /** Another takes over, from what the pages have seen: nobody is told. */
    abdicate() {
        this.isOver = true;
        this.timers.clear();
        this.tabs.clear();
        for (const ask of [...this.asks.values()]) ask.reject(new Error('another page leads'));
        this.core?.flush();
        this.core?.drop();
    }

    /** @param {Message} m */
    tell(m) {
        for (const tab of this.tabs.values()) tab.post(m);
    }

    /** What a page says. @param {Message} m */
    receive(m) {
        const tab = this.tabs.get(m.tab), core = this.core;
        if (!core || this.isOver) return;
        /* A page's last words hold when its lock has been faster. */
        if (m.t === 'signout') this.close(SIGNED_OUT);
        else if (m.t === 'did') this.taken(m.tab, m.nid);
        else if (!tab) return;
        else if (m.t === 'listen') this.listen(tab, m.room);
        else if (m.t === 'leave') tab.rooms.delete(m.room) && this.roomLeft(m.room);
        else if (m.t === 'subscribe') this.subscribe(tab, m.path, m.etag);
        else if (m.t === 'unsubscribe') tab.paths.delete(m.path) && this.pathLeft(m.path);
        else if (m.t === 'token') this.tokenCame(tab, m);
        else if (m.t === 'offer') this.offered(tab);
        else if (m.t === 'info') tab.post({ t: 'info', ask: m.ask, info: this.info(tab) });
        else if (m.t === 'bye') this.detach(m.tab);
        else if (m.t === 'page') {
            tab.visible = m.visible;
            if (m.wake && this.started) core.wake();
        }
    }

    /** @param {Tab} tab */
    info(tab) {
        const core = /** @type {Core} */ (this.core);
        return {
            tabs: this.tabs.size, sockets: core.socket ? 1 : 0, state: this.started ? core.state : 'connecting', url: core.url,
            mode: this.mode, here: tab.local, rooms: core.rooms.size, paths: core.paths.size, pending: this.pending.size,
            acks: core.acks.size, attempts: core.attempts,
        };
    }

    /* ---- rooms and paths ---- */

    /** @param {Tab} tab @param {string} room */
    listen(tab, room) {
        tab.rooms.add(room);
        this.core?.join(room);
        for (const { m } of this.pending.values()) if (m.room === room) tab.post({ t: 'event', m });
    }

    /** @param {Tab} tab @param {string} path @param {string} [etag] */
    subscribe(tab, path, etag) {
        tab.paths.add(path);
        const entry = this.core?.subscribe(path);
        if (entry?.has && (entry.etag === undefined || entry.etag !== etag)) tab.post(dataOf(path, entry));
        if (entry?.problem && entry.live) tab.post(this.problemOf(entry.problem));
    }

    /** @param {string} room */
    roomLeft(room) {
        const wanted = () => [...this.tabs.values()].some(tab => tab.rooms.has(room));
        if (!wanted()) this.timers.after(`room ${room}`, LINGER_MS, () => wanted() || this.core?.leave(room));
    }

    /** @param {string} path */
    pathLeft(path) {
        const wanted = () => [...this.tabs.values()].some(tab => tab.paths.has(path));
        if (!wanted()) this.timers.after(`path ${path}`, LINGER_MS, () => wanted() || this.core?.unsubscribe(path));
    }

    /* ---- what the core says ---- */

    state() {
        const { state, why } = /** @type {Core} */ (this.core);
        if (state === 'closed') this.finish(why);
        else this.tell({ t: 'state', state, why });
    }

    mark() {
        this.tell({ t: 'mark', mark: copy(this.core?.session) });
    }

    /** @param {string} path @param {Entry} entry */
    data(path, entry) {
        for (const tab of this.tabs.values()) if (tab.paths.has(path)) tab.post(dataOf(path, entry));
    }

    /** @param {Problem} problem */
    problem(problem) {
        this.tell(this.problemOf(problem));
    }

    /** @param {Problem} problem */
    problemOf(problem) {
        const gone = problem.path !== undefined && !this.core?.paths.get(problem.path)?.has;
        return { t: 'problem', problem, gone };
    }

    /** @param {Resync} what */
    resync(what) {
        this.tell({ t: 'resync', what, mark: copy(this.core?.session) });
    }

    /** All pages hear of all events, so that each knows how far it has come. @param {Message} m @param {number} bytes */
    event(m, bytes) {
        if (m.nid === undefined) return this.tell({ t: 'event', m });
        if (this.done.has(m.nid)) return this.core?.ack(m.nid);
        if (!this.pending.has(m.nid)) {
            /* Who listens now is told. For others the server has it still, and sends it with the next hello. */
            if (this.pending.size >= PENDING_MAX || this.pendingBytes + bytes > PENDING_BYTES) {
                this.overflow = true;
            } else {
                this.pending.set(m.nid, { m, bytes });
                this.pendingBytes += bytes;
            }
        }
        for (const tab of this.tabs.values()) if (tab.rooms.has(m.room)) tab.post({ t: 'event', m });
    }

    /** A page has dealt with a durable event. @param {string} by @param {Nid} nid */
    taken(by, nid) {
        const p = this.pending.get(nid);
        if (this.done.has(nid)) return;
        this.pending.delete(nid);
        this.pendingBytes -= p ? p.bytes : 0;
        this.done.add(nid);
        this.core?.ack(nid);
        for (const tab of this.tabs.values()) if (tab.id !== by) tab.post({ t: 'done', nid });
        if (this.overflow && !this.pending.size && this.core?.state === 'open') {
            this.overflow = false;
            this.core.flush();
            this.core.dial('connect');
        }
    }

    /* ---- tokens ---- */

    /** @param {Tab} tab */
    offered(tab) {
        this.bringer = tab.id;
        if (this.started) this.core?.offered();
    }

    /** Asks the pages, one after another: who has brought one, those that are looked at, then the latest. What was refused is
     *  taken again only if nobody has another. @param {TokenReason} reason */
    async token(reason) {
        const rank = (/** @type {Tab} */ tab) => (tab.id === this.bringer ? 2 : Number(tab.visible));
        const order = [...this.tabs.values()].sort((a, b) => rank(b) - rank(a) || b.at - a.at);
        /** @type {unknown} */
        let why = new Error('there is no page');
        /** Who has a cookie gives none, and may have another cookie by now. @type {{token: any} | null} */
        let refused = null;
        this.bringer = '';
        for (const tab of order) {
            try {
                if (!this.tabs.has(tab.id)) continue;
                const token = await this.askTab(tab, reason);
                if (reason !== 'refused' || token !== this.given) return (this.given = token);
                refused = { token };
            } catch (e) {
                why = e;
            }
        }
        if (refused) return refused.token;
        throw why;
    }

    /** @param {Tab} tab @param {TokenReason} reason */
    askTab(tab, reason) {
        const ask = ++this.lastAsk;
        return new Promise((resolve, reject) => {
            const end = (/** @type {(x: any) => void} */ f) => (/** @type {any} */ x) => {
                this.asks.delete(ask);
                this.timers.cancel(`ask ${ask}`);
                f(x);
            };
            this.asks.set(ask, { tab: tab.id, resolve: end(resolve), reject: end(reject) });
            this.timers.after(`ask ${ask}`, tab.patience, () => this.asks.get(ask)?.reject(new Error('the page does not answer')));
            tab.post({ t: 'ask', ask, reason });
        });
    }

    /** @param {Tab} tab @param {Message} m */
    tokenCame(tab, m) {
        const ask = this.asks.get(m.ask);
        if (!ask || ask.tab !== tab.id) return;
        if (m.error !== undefined) ask.reject(new Error(m.error));
        else ask.resolve(m.token);
    }
}

/* ---- locks ------------------------------------------------------------------------------- */

/** Takes a lock and keeps it until the function that it gives is called. @param {any} locks @param {string} name */
export function hold(locks, name) {
    return new Promise((held, failed) => {
        locks.request(name, () => new Promise(release => held(release))).catch(failed);
    });
}

/** Ids of the pages of a key that hold their locks; not of another key that begins like it. @param {any} locks @param {string} key */
export async function livingTabs(locks, key) {
    const prefix = lockOfTab(key), { held } = await locks.query();
    return held.map((/** @type {any} */ l) => l.name).filter((/** @type {string} */ n) => n.startsWith(prefix))
        .map((/** @type {string} */ n) => n.slice(prefix.length)).filter((/** @type {string} */ id) => !id.includes(':'));
}

/** Calls back when a page has gone. @param {any} locks @param {string} key @param {string} id @param {AbortSignal} signal
 *  @param {() => void} gone */
export function whenGone(locks, key, id, signal, gone) {
    locks.request(lockOfTab(key, id), { signal }, gone).catch(() => {}); /* aborted: nobody asks any more */
}

/** What a SharedWorker does with each port. @param {Env} env */
export function serveWorker(env) {
    /** @type {Hub | null} */
    let hub = null;
    /** Kept for as long as the worker lives. @type {Promise<any> | null} */
    let lock = null;
    return (/** @type {any} */ port) => {
        let line = Promise.resolve();
        const take = async (/** @type {Message} */ m) => {
            if (m.t !== 'attach') return hub?.receive(m);
            await (lock ??= hold(env.locks, lockOfHub(m.key, 'worker')));
            if (!hub || hub.isOver)
                hub = new Hub({ mode: 'shared-worker', env, living: () => livingTabs(env.locks, m.key), over: () => {} });
            const its = hub;
            if (its.tabs.has(m.tab)) return;
            its.attach(m, answer => port.postMessage(answer));
            /* The port is not closed: there may be a last word in it. */
            whenGone(env.locks, m.key, m.tab, new AbortController().signal, () => its.detach(m.tab));
        };
        port.onmessage = (/** @type {any} */ e) => {
            line = line.then(() => take(e.data)).catch(env.report);
        };
    };
}
