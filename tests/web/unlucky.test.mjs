// Clocks that jump, timers that are late, orders of messages that are rare: nothing is lost, nobody waits for good.
import assert from 'node:assert/strict';
import { Core } from '../../src/web/client/provost-core.js';
import { Browser, Clock, jwt, scenario, Server, settle, spy, until } from './support.mjs';

const OWN = { share: false };

async function core(token = async () => undefined) {
    const server = new Server(), clock = new Clock();
    const env = {
        skew: 0, now: () => clock.time + env.skew, random: () => 0.5, report: assert.fail, socket: server.socket,
        setTimeout: (f, ms) => clock.set(f, ms), clearTimeout: id => clock.clear(id),
    };
    const host = { token: spy(token), event: spy(), data: spy(), problem: spy(), resync: spy(), mark: spy(), state: spy() };
    const made = new Core('ws://host.test/ws', host, env);
    made.start();
    await settle();
    return { server, clock, env, host, core: made };
}

async function opened(options = {}) {
    const browser = new Browser(), page = browser.page(), { server, clock } = browser;
    const c = await page.connect({ ...OWN, ...options });
    await clock.advance(0);
    assert.equal(c.state, 'open');
    return { browser, page, c, server, clock };
}

scenario('a clock that is put back stops nothing', async () => {
    const { server, clock, env, core: c } = await core();
    for (let i = 0; i < 100; i++) c.join(`room${i}`);
    env.skew = -3600_000; /* timers go on as they were */
    c.join('news');
    await clock.advance(10);
    assert.ok(server.last.of('join').some(m => m.room === 'news'), 'what is to be said is said');
    server.silent = true;
    await clock.advance(111_000); /* twice two heartbeats, and the answer to a ping */
    assert.equal(server.sockets.length, 2, 'and that nothing is heard is noticed');
});

scenario('a hidden page, whose timers come once a minute, notices that the connection is dead', async () => {
    const { server, clock, core: c } = await core();
    server.silent = true;
    for (let i = 0; i < 6 && c.state === 'open'; i++) {
        clock.sleep(60_000);
        await clock.advance(0);
    }
    assert.equal(c.state, 'waiting');
});

scenario('a room that is left and wanted again before the answer to resume is heard', async () => {
    const { server, clock, core: c, host } = await core();
    c.join('news');
    await settle();
    const { resume } = server;
    let answer;
    server.resume = (...args) => {
        answer = () => resume.apply(server, args);
    };
    server.last.fail(1006);
    await clock.advance(c.why.retry);
    assert.ok(answer, 'resuming');
    c.leave('news');
    c.join('news');
    /* What is said behind a resume is read behind it. */
    const later = [], { take } = server;
    server.take = (...args) => later.push(args);
    await settle();
    answer();
    server.take = take;
    for (const args of later) server.take(...args);
    await settle();
    server.publish('news', 'a', 1);
    assert.equal(host.event.calls.length, 1);
});

scenario('a room that is first wanted while there is no connection: what was said until it was joined is doubted', async () => {
    const { c, server, clock } = await opened();
    const said = spy(), heard = spy();
    c.onResync(said);
    server.last.fail(1006);
    await settle();
    c.on('news', '*', heard);
    server.publish('news', 'a', 1);
    await clock.advance(c.why.retry);
    assert.equal(heard.calls.length, 0);
    assert.deepEqual(said.calls, [[{ rooms: ['news'], paths: [] }]]);
    await clock.advance(60_000);
    assert.equal(said.calls.length, 1);
});

scenario('a room whose joining was not answered when the connection was lost is doubted', async () => {
    const { c, server, clock } = await opened();
    const said = spy();
    c.onResync(said);
    const { take } = server;
    server.take = (s, m) => (m.op === 'join' ? undefined : take.call(server, s, m));
    c.on('news', '*', () => {});
    await settle();
    server.take = take;
    server.last.fail(1006);
    await settle();
    await clock.advance(c.why.retry);
    assert.deepEqual(said.calls, [[{ rooms: ['news'], paths: [] }]]);
});

scenario('who is stopped by another callback is not called back any more', async () => {
    const { c, server, clock } = await opened();
    server.put('/api/a', { n: 1 }, 'e1');
    const called = [], stops = {};
    const pair = (name, add) => {
        for (const me of ['a', 'b'])
            stops[name + me] = add(() => {
                called.push(name + me);
                stops[`${name}${me === 'a' ? 'b' : 'a'}`]?.();
            });
    };
    pair('event ', f => c.on('news', '*', f));
    pair('note ', f => c.on('user:u', '*', f));
    pair('body ', f => c.subscribe('/api/a', f));
    pair('state ', f => c.onState(f));
    pair('resync ', f => c.onResync(f));
    pair('problem ', f => c.on('refused', '*', () => {}, { onError: f }));
    server.refuses.set('refused', 4403);
    await clock.advance(0);
    server.publish('news', 'a', 1);
    server.notify(1, 'x');
    server.last.say({ ev: 'resync', rooms: ['news'], paths: [], seq: server.seq });
    server.last.fail(1006);
    await settle();
    for (const name of ['event', 'note', 'body', 'state', 'resync', 'problem'])
        assert.equal(called.filter(s => s.startsWith(name)).length, 1, `${name}: ${called}`);
});

scenario('durable events that nobody listens to do not hold up those that somebody does', async () => {
    const { c, server, clock } = await opened();
    const heard = spy();
    c.on('user:u', 'urgent', heard);
    await clock.advance(0);
    for (let i = 1; i <= 1_000; i++) server.notify(i, i);
    await clock.advance(0);
    assert.equal((await c.info()).pending, 1_000);
    const m = { ev: 'event', room: 'user:u', name: 'urgent', data: 'now', nid: 5_000, seq: 9_999 };
    server.outbox.set(m.nid, m);
    server.last.say(m);
    await clock.advance(100);
    assert.deepEqual(heard.calls.map(([data]) => data), ['now']);
    assert.deepEqual(server.acked, [5_000]);
    assert.equal(server.sockets.length, 1);
});

scenario('more durable events than are remembered while their callbacks run: each is shown once, and acknowledged', async () => {
    const { c, server, clock } = await opened();
    const shown = new Map();
    c.on('user:u', 'note', n => new Promise(resolve => {
        assert.ok(!shown.has(n), `${n} is shown twice`);
        shown.set(n, resolve);
    }));
    await clock.advance(0);
    for (let i = 1; i <= 1_200; i++) server.notify(i, i);
    await clock.advance(0);
    for (let i = 0; i < 3 && server.outbox.size; i++) {
        for (const resolve of shown.values()) resolve();
        await clock.advance(5_000);
    }
    assert.deepEqual([shown.size, server.outbox.size], [1_200, 0]);
});

scenario('only what the server has refused is called refused', async () => {
    let fails = true;
    const { server, clock, core: c, env, host } = await core(async () => {
        if (fails) throw new Error('offline');
        return 'good';
    });
    assert.deepEqual([c.state, c.why.code], ['waiting', 4401]);
    fails = false;
    await clock.advance(c.why.retry);
    assert.deepEqual(host.token.calls, [['connect'], ['connect']]);
    server.last.fail(4401);
    fails = true;
    await clock.advance(c.why.retry);
    fails = false;
    await clock.advance(c.why.retry);
    assert.deepEqual(host.token.calls.slice(2), [['refused'], ['refused']], 'until there is another');
    const { socket } = env;
    env.socket = () => {
        throw new Error('insecure');
    };
    server.last.fail(1006);
    await clock.advance(c.why.retry);
    assert.deepEqual([c.state, c.why.code, c.why.reason], ['waiting', 1006, 'there is no socket: insecure']);
    env.socket = socket;
    await clock.advance(c.why.retry);
    assert.equal(c.state, 'open');
    assert.deepEqual(host.token.calls.slice(4), [['connect'], ['connect']]);
});

scenario('a provider that never answers keeps nobody from connecting with another', async () => {
    const browser = new Browser(), page = browser.page(), { clock } = browser;
    let hangs = true;
    const token = () => (hangs ? new Promise(() => {}) : jwt({ sub: 'u' }));
    const first = assert.rejects(page.connect({ ...OWN, token, tokenTimeout: 3_000 }), /does not answer/);
    await clock.advance(3_000);
    await first;
    hangs = false;
    const c = await page.connect({ ...OWN, token });
    assert.equal(c.subject, 'u');
});

scenario('a worker that starts when its page has given it up has no page', async () => {
    const browser = new Browser(), { server, clock } = browser;
    const { locks } = browser, page = browser.page();
    /* Its lock is somebody's, so that it does not come to answer. */
    const name = 'provost1:worker:ws://host.test/ws cookie';
    let release;
    locks.of({}).request(name, () => new Promise(resolve => (release = resolve)));
    await settle();
    const made = page.connect();
    await until(async () => {
        await clock.advance(1_000);
        return server.open.length === 1;
    }, 'a leader instead');
    const c = await made;
    assert.equal((await c.info()).mode, 'leader');
    release();
    await settle();
    const other = await browser.page().connect();
    await until(async () => {
        await clock.advance(100);
        return other.state === 'open';
    });
    const { mode, tabs } = await other.info();
    assert.deepEqual([mode, tabs], ['shared-worker', 1], 'the first is not of it');
});
