/**
 * provost-link: a page's end of a connection: the way to the hub, and the callbacks.
 *
 * @typedef {import('./provost-core.js').Env} Env
 * @typedef {import('./provost-core.js').Mark} Mark
 * @typedef {import('./provost-core.js').Message} Message
 * @typedef {import('./provost-core.js').Nid} Nid
 * @typedef {import('./provost.js').Problem} Problem
 * @typedef {import('./provost.js').State} State
 * @typedef {import('./provost.js').TokenReason} TokenReason
 * @typedef {import('./provost.js').Why} Why
 * @typedef {any} Handle
 */
import { claimsOf, NIDS_MAX, Recent, textOf, Timers } from './provost-core.js';
import { channelTo, hold, Hub, livingTabs, lockOfHub, lockOfTab, SIGNED_OUT, whenGone } from './provost-hub.js';

const WORKER_MS = 10_000; // that a worker may take to answer
const FRESH_MS = 5_000; // that the token which connect() has asked for is used itself
const WORKER_DEATHS = 3; // after which there is none any more
const FAREWELL_MS = 3_000; // that a leader waits for the others to close as well
const KNOCK_MS = 2_000, KNOCK_MAX_MS = 60_000; // between attempts to be heard by a leader
const WORKING_MAX = 1_000; // durable events whose callbacks run, or have failed

/**
 * A page's end of one connection, for all handles of one URL and subject. It is over (`isOver`) once the
 * last handle is released, or the connection is closed; another takes its place.
 */
export class Link {
    /** @param {{key: string, url: string, subject: string, sub?: string, worker: boolean, share: boolean, patience: number}} o
     *  @param {Env} env @param {() => void} over */
    constructor(o, env, over) {
        this.o = o;
        this.env = env;
        this.onOver = over;
        this.id = env.uuid();
        this.timers = new Timers(env);
        /** @type {State} */
        this.state = 'connecting';
        /** @type {Why} */
        this.why = {};
        this.mode = 'socket';
        /** @type {Mark | null} */
        this.mark = null;
        /** @type {Set<Handle>} */
        this.handles = new Set();
        /** @type {Map<string, Set<any>>} */
        this.rooms = new Map();
        /** @type {Map<string, {subs: Set<any>, has: boolean, body?: any, etag?: string, stale?: boolean, problem?: Problem}>} */
        this.paths = new Map();
        /** @type {Recent<Nid>} */
        this.done = new Recent(NIDS_MAX);
        /** Which callbacks have run, for those not done. @type {Map<Nid, Map<any, 'runs' | 'ran'>>} */
        this.working = new Map();
        /** @type {Map<number, (info: any) => void>} */
        this.asks = new Map();
        this.lastAsk = 0;
        /** The last token that was. @type {unknown} */
        this.given = undefined;
        this.isOver = false;
        /** @type {Hub | null} */
        this.hub = null; /* one that lives here */
        this.hubId = '';
        this.deaths = 0;
        this.end = new AbortController();
        /** @type {((m: Message) => void) | null} */
        this.send = null;
        /* Pages tell each other of signing out, too: there may be no hub at that moment. */
        this.out = o.share && env.channel ? env.channel(channelTo(o.key, 'signout')) : null;
        if (this.out) {
            this.out.onmessage = () => this.signedOut();
            this.end.signal.addEventListener('abort', () => this.out.close());
        }
        this.unlisten = env.page.listen(wake => this.post({ t: 'page', visible: env.page.visible(), wake }));
        /** @type {Promise<void>} */
        this.ready = new Promise(resolve => (this.isReady = resolve));
        this.open().catch(e => {
            env.report(e);
            this.viaSocket();
        });
    }

    /* ---- the way to the hub ---- */

    async open() {
        const { o, env } = this;
        if (o.share && env.locks) {
            const release = await hold(env.locks, lockOfTab(o.key, this.id));
            if (this.isOver) return release();
            this.end.signal.addEventListener('abort', release);
            if (o.worker && env.worker && (await this.viaWorker())) return;
            if (env.channel && !this.isOver) return this.viaLeader();
        }
        if (!this.isOver) this.viaSocket();
    }

    /** Whether there is one. @returns {Promise<boolean>} */
    viaWorker() {
        const { env, o } = this;
        return new Promise(done => {
            /** @type {any} */
            let worker = null;
            const failed = () => {
                this.timers.cancel('worker');
                this.send = null;
                if (worker) {
                    worker.port.onmessage = worker.onerror = null;
                    worker.port.postMessage({ t: 'bye', tab: this.id }); /* should it start after all */
                }
                done(false);
            };
            try {
                worker = /** @type {any} */ (env.worker)(lockOfHub(o.key, 'worker'));
            } catch {
                return failed(); /* another origin's script, or a policy */
            }
            const { port } = worker;
            worker.onerror = failed;
            port.onmessage = (/** @type {any} */ e) => {
                if (e.data.t === 'welcome') {
                    this.timers.cancel('worker');
                    worker.onerror = null;
                    this.awaitDeath(port);
                    done(true);
                }
                this.receive(e.data);
            };
            this.timers.after('worker', WORKER_MS, failed);
            this.send = m => port.postMessage(m);
            this.end.signal.addEventListener('abort', () => {
                port.close();
                failed();
            });
            this.attach();
        });
    }

    /** A worker that has died is replaced; if it does not answer (Chromium gives pages one again that was ended from outside),
     *  or dies again and again, by a leader. @param {any} port */
    awaitDeath(port) {
        const { env, o } = this;
        const replace = async () => {
            if (this.isOver) return;
            port.onmessage = null;
            this.send = null;
            this.setState('connecting', { code: 1006, reason: 'the worker is gone' });
            if (++this.deaths < WORKER_DEATHS && (await this.viaWorker())) return;
            if (!this.isOver) env.channel ? this.viaLeader() : this.viaSocket();
        };
        env.locks.request(lockOfHub(o.key, 'worker'), { mode: 'shared', signal: this.end.signal }, async () => {})
            .then(() => replace().catch(env.report), () => {}); /* aborted */
    }

    viaLeader() {
        const { env, o } = this, channel = /** @type {any} */ (env.channel);
        const mine = channel(channelTo(o.key, this.id)), hubs = channel(channelTo(o.key));
        /* What is said while nobody leads, or before a new leader listens, is lost: until it is heard it is said again. */
        const knock = (ms = KNOCK_MS) => {
            this.attach();
            this.timers.after('knock', ms, () => knock(Math.min(2 * ms, KNOCK_MAX_MS)));
        };
        mine.onmessage = (/** @type {any} */ e) => {
            if (this.hub) return; /* what the former leader had still said was resumed */
            if (e.data.t !== 'leader') this.receive(e.data);
            else if (e.data.hub !== this.hubId) knock();
        };
        this.send = m => hubs.postMessage(m);
        /* A leader that hangs keeps nobody from listening already. */
        this.timers.after('ready', WORKER_MS, () => this.isReady?.());
        let stands = new AbortController();
        const stand = () => {
            const { signal } = (stands = new AbortController());
            const lead = () => (signal.aborted ? undefined : this.lead(signal));
            env.locks.request(lockOfHub(o.key), { signal }, lead).catch((/** @type {any} */ e) => {
                if (!signal.aborted) env.report(e);
            });
        };
        /* A frozen page, as Chrome for Android has in the background, runs nothing: it is not to have what others wait for. */
        const unlisten = env.page.freezes(frozen => {
            stands.abort();
            if (frozen || this.isOver) return;
            stand();
            knock();
        });
        this.end.signal.addEventListener('abort', () => {
            stands.abort();
            unlisten();
            mine.close();
            hubs.close();
        });
        knock();
        stand();
    }

    /** This page has become the leader, until the promise is kept. @param {AbortSignal} signal @returns {Promise<void>} */
    lead(signal) {
        const { env, o } = this, open = /** @type {any} */ (env.channel), toLeader = this.send;
        const ended = new AbortController(), ears = open(channelTo(o.key));
        return new Promise(resign => {
            /** @type {Set<string>} */
            const guests = new Set();
            let over = false;
            const resignNow = () => {
                ended.abort();
                ears.close();
                resign();
            };
            const hub = new Hub({
                mode: 'leader', env, living: () => livingTabs(env.locks, o.key),
                over: () => {
                    over = true;
                    this.finish({ ...hub.core?.why });
                    /* Who has not heard yet that it is closed must not become the leader. */
                    if (!guests.size) resignNow();
                    else env.setTimeout(resignNow, FAREWELL_MS);
                },
            });
            signal.addEventListener('abort', () => {
                if (over) return;
                hub.abdicate();
                this.hub = null;
                this.send = toLeader;
                resignNow();
                if (this.handles.size) this.setState('connecting', { code: 1006, reason: 'the page is frozen' });
                else this.finish({});
            });
            const welcome = (/** @type {Message} */ m) => {
                if (hub.tabs.has(m.tab)) return hub.attach(m, () => {});
                const to = open(channelTo(o.key, m.tab));
                guests.add(m.tab);
                hub.attach(m, answer => to.postMessage(answer));
                whenGone(env.locks, o.key, m.tab, ended.signal, () => {
                    hub.detach(m.tab);
                    to.close();
                    guests.delete(m.tab);
                    if (over && !guests.size) resignNow();
                });
            };
            ears.onmessage = (/** @type {any} */ e) => (e.data.t === 'attach' ? over || welcome(e.data) : hub.receive(e.data));
            this.host(hub);
            livingTabs(env.locks, o.key).then(ids => {
                for (const id of ids) {
                    if (id === this.id) continue;
                    const to = open(channelTo(o.key, id));
                    to.postMessage({ t: 'leader', hub: hub.id });
                    to.close();
                }
            }).catch(env.report);
        });
    }

    /** A socket of its own. */
    viaSocket() {
        this.host(new Hub({ mode: 'socket', env: this.env, living: async () => [this.id], over: why => this.finish(why) }));
    }

    /** As if the hub were elsewhere: nothing is called back while something else runs. @param {Hub} hub */
    host(hub) {
        this.hub = hub;
        this.send = m => queueMicrotask(() => (m.t === 'attach'
            ? hub.attach(m, answer => queueMicrotask(() => this.receive(answer)), true) : hub.receive(m)));
        this.attach();
    }

    /** @param {Message} m */
    post(m) {
        this.send?.({ ...m, tab: this.id });
    }

    attach() {
        const { o, env } = this;
        this.post({
            t: 'attach', key: o.key, url: o.url, patience: o.patience, visible: env.page.visible(), mark: this.mark,
            done: [...this.done.set], rooms: [...this.rooms.keys()],
            paths: [...this.paths].map(([path, entry]) => [path, entry.stale || entry.problem ? undefined : entry.etag]),
        });
        for (const ask of this.asks.keys()) this.post({ t: 'info', ask });
    }

    /* ---- what the hub says ---- */

    /** @param {Message} m */
    receive(m) {
        if (this.isOver) return;
        if (m.t === 'welcome') this.welcomed(m);
        else if (m.t === 'state') m.state === 'closed' ? this.finish(m.why) : this.setState(m.state, m.why);
        else if (m.t === 'mark') this.setMark(m.mark);
        else if (m.t === 'event') this.event(m.m);
        else if (m.t === 'data') this.data(m);
        else if (m.t === 'problem') this.problem(m);
        else if (m.t === 'resync') this.resync(m);
        else if (m.t === 'done') this.doneElsewhere(m.nid);
        else if (m.t === 'ask') this.answer(m);
        else if (m.t === 'info') {
            this.asks.get(m.ask)?.({ ...m.info, subject: this.o.subject });
            this.asks.delete(m.ask);
        }
    }

    /** @param {Message} m */
    welcomed(m) {
        this.timers.cancel('knock');
        this.hubId = m.hub;
        this.mode = m.mode;
        this.setMark(m.mark);
        this.setState(m.state, m.why);
        this.isReady?.();
    }

    /** @param {Mark | null} mark */
    setMark(mark) {
        if (!mark) return;
        if (this.mark && this.mark.life === mark.life) this.mark = { ...mark, seq: this.mark.seq };
        else this.mark = { ...mark };
    }

    /** @param {State} state @param {Why} why */
    setState(state, why) {
        const was = this.state;
        this.state = state;
        this.why = why;
        if (was !== state || state === 'waiting') for (const h of [...this.handles]) h.tell(h.onStates, state, why);
        this.offer();
    }

    /** Who brings a token need not wait for what became of others. */
    offer() {
        if (this.state === 'waiting' && [...this.handles].some(h => this.isNew(h))) this.post({ t: 'offer' });
    }

    /** Whether it has the token that connect() has asked for, and nobody has tried. @param {Handle} h */
    isNew(h) {
        return h.first !== undefined && h.first !== this.given && this.env.now() - h.since <= FRESH_MS;
    }

    /** @param {(...args: any[]) => any} f @param {any[]} args */
    call(f, ...args) {
        try {
            const promised = f(...args);
            if (promised && typeof promised.then === 'function') promised.then(undefined, this.env.report);
        } catch (e) {
            this.env.report(e);
        }
    }

    /** @param {Message} m */
    event(m) {
        const [name, data] = m.ev === 'change'
            ? ['change', { table: m.table, op: m.op, keys: m.keys ?? null }] : [m.name, m.data];
        const about = { room: m.room, name, ...(m.seq !== undefined && { seq: m.seq }), ...(m.nid !== undefined && { nid: m.nid }) };
        const all = this.rooms.get(m.room) ?? new Set(), heard = [...all].filter(l => l.name === '*' || l.name === name);
        if (m.nid !== undefined) return this.durable(m.nid, heard, data, about);
        if (this.mark) {
            if (m.seq <= this.mark.seq) return; /* said by the former leader */
            this.mark.seq = m.seq;
        }
        for (const l of heard) if (all.has(l)) this.call(l.cb, data, about);
    }

    /** Once all callbacks have returned, it is dealt with; those that have are not called again.
     *  @param {Nid} nid @param {any[]} heard @param {any} data @param {any} about */
    durable(nid, heard, data, about) {
        if (this.done.has(nid)) return this.post({ t: 'did', nid });
        if (!heard.length) return;
        const ran = this.working.get(nid) ?? new Map();
        if (!ran.size && !this.hasRoom()) return; /* it comes with a later hello */
        this.working.set(nid, ran);
        const listens = (/** @type {any} */ l) => !!this.rooms.get(about.room)?.has(l);
        const settle = () => {
            const now = [...new Set([...heard, ...ran.keys()])].filter(listens);
            if (this.working.get(nid) !== ran || !ran.size || now.some(l => ran.get(l) !== 'ran')) return;
            if ([...ran.values()].includes('runs')) return;
            this.working.delete(nid);
            this.done.add(nid);
            this.post({ t: 'did', nid });
        };
        for (const l of heard) {
            if (ran.has(l) || !listens(l)) continue;
            ran.set(l, 'runs');
            new Promise(resolve => resolve(l.cb(data, about))).then(() => ran.set(l, 'ran'), e => {
                ran.delete(l);
                this.env.report(e);
            }).then(settle);
        }
        settle();
    }

    /** Whether one more can be remembered: what runs must be, what has failed comes again. */
    hasRoom() {
        if (this.working.size < WORKING_MAX) return true;
        for (const [nid, ran] of this.working) if (![...ran.values()].includes('runs')) return this.working.delete(nid);
        return false;
    }

    /** @param {Nid} nid */
    doneElsewhere(nid) {
        this.working.delete(nid);
        this.done.add(nid);
    }

    /** @param {Message} m */
    data(m) {
        const entry = this.paths.get(m.path);
        if (!entry) return;
        if (entry.has && !entry.problem && entry.etag !== undefined && entry.etag === m.etag && entry.stale === m.stale) return;
        Object.assign(entry, { has: true, body: m.body, etag: m.etag, stale: m.stale, problem: undefined });
        for (const sub of [...entry.subs]) if (entry.subs.has(sub)) this.show(m.path, entry, sub);
    }

    /** @param {string} path @param {any} entry @param {any} sub */
    show(path, entry, sub) {
        sub.told = true;
        this.call(sub.cb, entry.body, { path, etag: entry.etag, ...(entry.stale && { stale: true }) });
    }

    /** @param {Message} m */
    problem({ problem: p, ...m }) {
        const entry = p.path !== undefined ? this.paths.get(p.path) : undefined;
        if (entry) {
            entry.problem = p;
            if (m.gone) Object.assign(entry, { has: false, body: undefined, etag: undefined });
        }
        const set = p.path !== undefined ? entry?.subs : this.rooms.get(p.room ?? '');
        for (const l of [...(set ?? [])]) {
            if (!set?.has(l)) continue;
            l.warned = true;
            if (l.onError) this.call(l.onError, p);
        }
    }

    /** @param {Message} m */
    resync(m) {
        if (this.mark && m.mark && this.mark.life === m.mark.life) this.mark.seq = Math.max(this.mark.seq, m.mark.seq);
        const rooms = m.what.rooms.filter((/** @type {string} */ r) => this.rooms.has(r));
        const paths = m.what.paths.filter((/** @type {string} */ p) => this.paths.has(p));
        if (!rooms.length && !paths.length) return;
        for (const h of [...this.handles]) h.tell(h.onResyncs, { rooms, paths });
    }

    /** @param {Message} m */
    async answer(m) {
        /** @type {Message} */
        let answer;
        try {
            const token = await this.token(m.reason);
            const { sub } = claimsOf(token);
            if (this.o.sub !== undefined && sub !== undefined && sub !== this.o.sub) {
                this.post({ t: 'token', ask: m.ask, error: 'the token is of another subject' });
                return this.depart({ code: 4403, reason: 'the token is of another subject' });
            }
            answer = { token };
        } catch (e) {
            answer = { error: textOf(e) };
        }
        this.post({ t: 'token', ask: m.ask, ...answer });
    }

    /** The latest handle's, else another's; nothing when there is a cookie. What was refused is given again only if there is no
     *  other. @param {TokenReason} reason */
    async token(reason) {
        const sources = [...this.handles].reverse().filter(h => h.source !== undefined);
        /** @type {unknown} */
        let why = null, refused;
        for (const h of sources) {
            const fresh = reason !== 'renew' && this.isNew(h) && h.first;
            h.first = undefined;
            try {
                const token = fresh || (typeof h.source === 'function' ? await h.source(reason) : h.source);
                if (token && (reason !== 'refused' || token !== this.given)) return (this.given = token);
                if (token) refused = token;
                else why = new Error('nobody is signed in');
            } catch (e) {
                why = e;
            }
        }
        if (refused) return refused;
        if (why) throw why;
        return undefined;
    }

    /* ---- what handles want ---- */

    /** @param {string} room @param {any} l */
    listen(room, l) {
        let set = this.rooms.get(room);
        if (!set) this.rooms.set(room, (set = new Set()));
        set.add(l);
        this.post({ t: 'listen', room });
        const its = set;
        return () => {
            if (!its.delete(l) || its.size || this.rooms.get(room) !== its) return;
            this.rooms.delete(room);
            this.post({ t: 'leave', room });
        };
    }

    /** @param {string} path @param {any} sub */
    subscribe(path, sub) {
        let entry = this.paths.get(path);
        if (!entry) this.paths.set(path, (entry = { subs: new Set(), has: false }));
        entry.subs.add(sub);
        const its = entry;
        if (its.subs.size === 1 || (its.problem && !its.problem.live)) this.post({ t: 'subscribe', path });
        const problem = its.problem;
        queueMicrotask(() => {
            if (its.has && !sub.told && its.subs.has(sub)) this.show(path, its, sub);
            if (problem?.live && its.problem === problem && !sub.warned && sub.onError) this.call(sub.onError, problem);
        });
        return () => {
            if (!its.subs.delete(sub) || its.subs.size || this.paths.get(path) !== its) return;
            this.paths.delete(path);
            this.post({ t: 'unsubscribe', path });
        };
    }

    info() {
        const { url, subject } = this.o;
        if (this.isOver)
            return Promise.resolve({
                mode: this.mode, tabs: 0, sockets: 0, state: 'closed', url, subject, here: false, rooms: 0, paths: 0, pending: 0,
                acks: 0, attempts: 0,
            });
        return new Promise(resolve => {
            const ask = ++this.lastAsk;
            this.asks.set(ask, resolve);
            this.post({ t: 'info', ask });
        });
    }

    /** @param {Handle} h */
    add(h) {
        this.handles.add(h);
        if (this.hub && this.handles.size === 1) this.attach(); /* a leader without handles of its own, back again */
    }

    /** @param {Handle} h */
    remove(h) {
        if (!this.handles.delete(h) || this.handles.size || this.isOver) return;
        this.post({ t: 'bye' });
        /* A hub that lives here goes on while other pages need it, and says when it is over. */
        if (!this.hub) this.finish({});
    }

    /** This page only: the others go on. @param {Why} why */
    depart(why) {
        for (const h of [...this.handles]) h.closed(why);
        this.handles.clear();
        this.post({ t: 'bye' });
        if (!this.hub) this.finish(why);
    }

    signOut() {
        this.post({ t: 'signout' });
        this.out?.postMessage('signed out');
        this.signedOut();
    }

    signedOut() {
        this.hub?.close(SIGNED_OUT);
        this.depart(SIGNED_OUT);
    }

    /** @param {Why} why */
    finish(why) {
        if (this.isOver) return;
        this.isOver = true;
        this.state = 'closed';
        this.why = why;
        this.onOver();
        for (const ask of [...this.asks.keys()]) this.info().then(/** @type {any} */ (this.asks.get(ask)));
        for (const h of [...this.handles]) h.closed(why);
        this.handles.clear();
        this.unlisten();
        this.timers.clear();
        this.isReady?.();
        /* Behind the last message to the hub. */
        queueMicrotask(() => {
            this.send = null;
            this.end.abort();
        });
    }
}
