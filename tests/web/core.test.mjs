// One connection: attempts, tokens, coming back, acknowledging.
import assert from 'node:assert/strict';
import { Core } from '../../src/web/client/provost-core.js';
import { Clock, jwt, scenario, Server, settle, spy } from './support.mjs';

function made({ auto = true, random = 0.5, token = undefined } = {}) {
    const server = new Server(), clock = new Clock(), states = [];
    server.auto = auto;
    const env = {
        now: () => clock.time, random: () => env.chance, report: spy(), socket: server.socket, chance: random,
        setTimeout: (f, ms) => clock.set(f, ms), clearTimeout: id => clock.clear(id),
    };
    const host = {
        token: spy(async () => (typeof token === 'function' ? token() : token)), event: spy(), data: spy(), problem: spy(),
        resync: spy(), mark: spy(), state: () => states.push([core.state, core.why]),
    };
    const core = new Core('ws://host.test/ws', host, env);
    return { server, clock, core, host, env, states };
}

async function opened(options) {
    const m = made(options);
    m.core.start();
    await settle();
    assert.equal(m.core.state, 'open');
    return m;
}

scenario('a token is the first message, and nowhere in the URL', async () => {
    const { server, core } = made({ token: 'secret' });
    server.wantsToken = true;
    core.join('table:course');
    core.start();
    await settle();
    assert.equal(core.state, 'open');
    assert.deepEqual(server.last.sent[0], { op: 'auth', token: 'secret' });
    assert.equal(server.last.url, 'ws://host.test/ws');
    assert.deepEqual(server.last.of('join').map(m => m.room), ['table:course']);
});

scenario('without a token nothing is said before hello', async () => {
    const { server, core } = made({ auto: false });
    core.join('table:course');
    core.start();
    await settle();
    server.last.accept();
    assert.deepEqual(server.last.sent, []);
    assert.equal(core.state, 'connecting');
    server.last.say({ ev: 'hello', session: 's', seq: 1, heartbeat: 25000 });
    assert.equal(core.state, 'open');
    assert.deepEqual(server.last.sent.map(m => m.op), ['join']);
});

scenario('attempts back off exponentially, with full jitter, to a cap', async () => {
    for (const random of [0.01, 0.25, 0.999]) {
        const { server, clock, core, states } = made({ random });
        server.down = true;
        core.start();
        await settle();
        for (let i = 0; i < 12; i++) {
            const [state, why] = states[states.length - 1];
            assert.equal(state, 'waiting');
            assert.equal(why.code, 1006);
            assert.equal(why.retry, Math.round(random * Math.min(30_000, 500 * 2 ** i)));
            assert.equal(server.sockets.length, i + 1);
            await clock.advance(why.retry - 1);
            assert.equal(server.sockets.length, i + 1, 'not before its time');
            await clock.advance(1);
        }
    }
});

scenario('a short connection does not start the backoff anew, a healthy minute does', async () => {
    const { server, clock, core, states } = made({ random: 0.999 });
    server.down = true;
    core.start();
    await settle();
    for (let i = 0; i < 4; i++) await clock.advance(states[states.length - 1][1].retry);
    server.down = false;
    await clock.advance(states[states.length - 1][1].retry);
    assert.equal(core.state, 'open');
    await clock.advance(59_000);
    server.last.fail(1006);
    assert.equal(core.why.retry, Math.round(0.999 * 500 * 2 ** 5));
    await clock.advance(core.why.retry);
    assert.equal(core.state, 'open');
    await clock.advance(60_000);
    server.last.fail(1006);
    assert.equal(core.why.retry, Math.round(0.999 * 500));
});

scenario('what the server says in bye is when to come back', async () => {
    const { server, clock, core } = await opened();
    server.restart(4711);
    assert.deepEqual([core.state, core.why.code, core.why.retry], ['waiting', 1001, 4711]);
    await clock.advance(4710);
    assert.equal(server.sockets.length, 1);
    await clock.advance(1);
    assert.equal(core.state, 'open');
    server.last.fail(1006);
    assert.equal(core.why.retry, 500, 'it holds once only');
});

scenario('no coming back after 4001 and 4403', async () => {
    for (const code of [4001, 4403]) {
        const { server, clock, core } = await opened();
        server.last.fail(code, 'because');
        assert.deepEqual([core.state, core.why], ['closed', { code, reason: 'because' }]);
        assert.equal(clock.timers.size, 0);
        core.wake();
        await clock.advance(3600_000);
        assert.equal(server.sockets.length, 1);
    }
});

scenario('a limit slows down', async () => {
    const { server, core } = await opened();
    server.last.fail(4429);
    assert.equal(core.why.retry, 0.5 * 500 * 2 ** 4);
});

scenario('waking up comes back at once, but not in a loop', async () => {
    const { server, clock, core } = made({ random: 0.999 });
    server.down = true;
    core.start();
    await settle();
    for (let i = 0; i < 6; i++) await clock.advance(core.why.retry);
    assert.equal(server.sockets.length, 7);
    await clock.advance(5_000);
    for (let i = 0; i < 50; i++) {
        core.wake();
        await settle();
    }
    assert.equal(server.sockets.length, 8, 'once at once');
    server.down = false;
    await clock.advance(1_000);
    assert.equal(server.sockets.length, 9, 'and once a second later');
    assert.equal(core.state, 'open');
    core.wake();
    await settle();
    assert.equal(server.sockets.length, 9);
});

scenario('silence is answered by a ping, and a ping without an answer is the end', async () => {
    const { server, clock, core } = await opened();
    await clock.advance(49_999);
    assert.equal(server.last.of('ping').length, 0);
    await clock.advance(1);
    assert.equal(server.last.of('ping').length, 1);
    await clock.advance(49_999);
    assert.equal(server.last.of('ping').length, 1, 'the answer was heard');
    await clock.advance(1);
    assert.equal(server.last.of('ping').length, 2);
    server.silent = true;
    await clock.advance(50_000);
    assert.equal(server.last.of('ping').length, 3);
    await clock.advance(9_999);
    assert.equal(core.state, 'open');
    const first = server.last;
    await clock.advance(1);
    assert.equal(core.state, 'waiting');
    assert.equal(first.readyState, 3);
});

scenario('what is heard defers the ping', async () => {
    const { server, clock } = await opened();
    for (let i = 0; i < 5; i++) {
        await clock.advance(40_000);
        server.last.say({ ev: 'whatever' });
    }
    assert.equal(server.last.of('ping').length, 0);
});

scenario('a sleep is not the silence of the server', async () => {
    const { server, clock, core } = await opened();
    server.silent = true;
    await clock.advance(50_000);
    assert.equal(server.last.of('ping').length, 1);
    clock.sleep(3600_000);
    await clock.advance(0);
    assert.equal(core.state, 'open', 'nobody has read the answer yet');
    assert.equal(server.last.of('ping').length, 2);
    server.silent = false;
    await clock.advance(10_000);
    assert.equal(core.state, 'waiting', 'but then there must be one');
});

scenario('looking again at an open connection asks for a sign of life', async () => {
    const { server, clock, core } = await opened();
    core.wake();
    await settle();
    assert.equal(server.last.of('ping').length, 0, 'it was heard just now');
    await clock.advance(5_000);
    server.silent = true;
    core.wake();
    core.wake();
    await settle();
    assert.equal(server.last.of('ping').length, 1);
    await clock.advance(10_000);
    assert.equal(core.state, 'waiting');
});

scenario('a server that takes the connection and says nothing', async () => {
    const { server, clock, core } = made({ auto: false });
    core.start();
    await settle();
    server.last.accept();
    await clock.advance(20_000);
    assert.equal(core.state, 'waiting');
    assert.equal(server.last.readyState, 3);
});

scenario('rooms are resumed from what was last seen', async () => {
    const { server, clock, core, host } = await opened();
    core.join('news');
    core.join('table:course');
    await settle();
    const seen = server.publish('news', 'a', 1);
    const first = server.last;
    first.fail(1006);
    server.publish('news', 'b', 2);
    server.publish('other', 'x', 3);
    server.publish('news', 'c', 4);
    await clock.advance(core.why.retry);
    assert.deepEqual(server.last.of('resume').map(m => [m.session, m.seq]), [[first.session, seen]]);
    assert.deepEqual(server.last.of('join'), [], 'they are taken up, not joined anew');
    assert.deepEqual(host.event.calls.map(([m]) => m.data), [1, 2, 4]);
    assert.deepEqual(host.resync.calls, []);
});

scenario('rooms of a session that is forgotten are joined anew, then in doubt', async () => {
    const { server, clock, core, host } = await opened();
    core.join('news');
    await settle();
    const life = core.session.life;
    server.restart(100);
    core.join('later');
    await clock.advance(100);
    assert.equal(server.last.of('resume').length, 1);
    assert.deepEqual(server.last.of('join').map(m => m.room), ['news', 'later']);
    assert.deepEqual(host.resync.calls, [[{ rooms: ['news', 'later'], paths: [] }]], 'once, and also what was wanted meanwhile');
    assert.notEqual(core.session.life, life);
    server.publish('news', 'a', 1);
    assert.equal(core.session.seq, server.seq, 'numbers have begun anew');
});

scenario('a connection lost before the answer to resume is resumed again', async () => {
    const { server, clock, core, host } = await opened();
    core.join('news');
    await settle();
    const session = server.last.session;
    server.last.fail(1006);
    server.publish('news', 'a', 1);
    server.auto = false;
    await clock.advance(core.why.retry);
    server.last.accept();
    server.hello(server.last);
    assert.equal(server.last.of('resume')[0].session, session);
    server.last.fail(1006);
    server.auto = true;
    await clock.advance(core.why.retry);
    assert.equal(server.last.of('resume')[0].session, session);
    assert.deepEqual(host.event.calls.map(([m]) => m.data), [1]);
});

scenario('durable events before the answer to resume say nothing of what was seen', async () => {
    const { server, clock, core, host } = await opened();
    core.join('news');
    await settle();
    server.last.fail(1006);
    server.publish('news', 'a', 1);
    server.notify(7, 'note');
    server.auto = false;
    await clock.advance(core.why.retry);
    server.last.accept();
    server.hello(server.last);
    const before = server.last.of('resume')[0].seq;
    assert.deepEqual(host.event.calls.map(([m]) => m.data), ['note']);
    assert.equal(core.session.seq, before);
});

scenario('rooms that are nobody’s any more are left, lost rights are told', async () => {
    const { server, clock, core, host } = await opened();
    core.join('a');
    core.join('b');
    await settle();
    server.last.fail(1006);
    core.leave('a');
    await clock.advance(core.why.retry);
    assert.deepEqual(server.last.of('leave').map(m => m.room), ['a']);
    server.last.say({ ev: 'error', code: 4403, message: 'not for you any more', room: 'b' });
    assert.deepEqual(host.problem.calls, [[{ room: 'b', code: 4403, message: 'not for you any more' }]]);
    server.last.fail(1006);
    await clock.advance(core.why.retry);
    assert.deepEqual(server.last.of('join').map(m => m.room), ['b'], 'rights may have changed');
});

scenario('paths are subscribed to again with their etags', async () => {
    const { server, clock, core, host } = await opened();
    server.put('/api/a', { n: 1 }, 'e1');
    server.put('/api/b', { n: 2 }, 'e2');
    core.subscribe('/api/a');
    core.subscribe('/api/b');
    await settle();
    assert.deepEqual(host.data.calls.map(([path, e]) => [path, e.body.n, e.etag]), [['/api/a', 1, 'e1'], ['/api/b', 2, 'e2']]);
    server.last.fail(1006);
    server.put('/api/b', { n: 3 }, 'e3');
    await clock.advance(core.why.retry);
    assert.deepEqual(server.last.of('subscribe').map(m => [m.path, m.etag]), [['/api/a', 'e1'], ['/api/b', 'e2']]);
    assert.deepEqual(host.data.calls.slice(2).map(([path, e]) => [path, e.body.n]), [['/api/b', 3]]);
});

scenario('a path that fails for the moment is tried again, one that is refused is not', async () => {
    const { server, clock, core, host } = await opened();
    server.refuses.set('/api/slow', 4503);
    server.refuses.set('/api/none', 4404);
    core.subscribe('/api/slow');
    core.subscribe('/api/none');
    await settle();
    assert.deepEqual(host.problem.calls.map(([p]) => [p.path, p.code, p.live]), [['/api/slow', 4503, false], ['/api/none', 4404, false]]);
    await clock.advance(60_000);
    const tries = server.last.of('subscribe').filter(m => m.path === '/api/slow').length;
    assert.ok(tries >= 4 && tries <= 8, `${tries} tries in a minute`);
    assert.equal(server.last.of('subscribe').filter(m => m.path === '/api/none').length, 1);
    server.refuses.clear();
    server.put('/api/slow', 1, 'e');
    await clock.advance(30_000);
    assert.equal(core.paths.get('/api/slow').live, true);
    core.subscribe('/api/none');
    await settle();
    assert.equal(core.paths.get('/api/none').live, true, 'who asks again gets an answer');
});

scenario('a room that is refused for the moment is joined later, and doubted then', async () => {
    const { server, clock, core, host } = await opened();
    server.refuses.set('crowded', 4429);
    server.refuses.set('secret', 4403);
    for (const room of ['news', 'crowded', 'secret']) core.join(room);
    await settle();
    assert.deepEqual(host.problem.calls.map(([p]) => [p.room, p.code]), [['crowded', 4429], ['secret', 4403]]);
    await clock.advance(60_000);
    const tries = room => server.last.of('join').filter(m => m.room === room).length;
    assert.ok(tries('crowded') >= 4 && tries('crowded') <= 8, `${tries('crowded')} tries in a minute`);
    assert.deepEqual([tries('news'), tries('secret')], [1, 1]);
    assert.deepEqual(host.resync.calls, []);
    server.refuses.clear();
    await clock.advance(30_000);
    assert.equal(core.rooms.get('crowded').joined, true);
    assert.deepEqual(host.resync.calls, [[{ rooms: ['crowded'], paths: [] }]], 'what was said meanwhile is missed');
    const after = tries('crowded');
    await clock.advance(120_000);
    assert.equal(tries('crowded'), after);
});

scenario('a room that is left before it is tried again is not', async () => {
    const { server, clock, core } = await opened();
    server.refuses.set('crowded', 4429);
    core.join('crowded');
    await settle();
    core.leave('crowded');
    await clock.advance(60_000);
    assert.equal(server.last.of('join').length, 1);
});

scenario('a problem of a subscription that stands', async () => {
    const { server, clock, core, host } = await opened();
    core.subscribe('/api/a');
    await settle();
    server.last.say({ ev: 'error', path: '/api/a', code: 4504, message: 'too slow', live: true });
    assert.deepEqual(host.problem.calls, [[{ path: '/api/a', code: 4504, message: 'too slow', live: true }]]);
    await clock.advance(120_000);
    assert.equal(server.last.of('subscribe').length, 1);
});

scenario('acknowledgements go together, at most 256, until they are answered', async () => {
    const { server, clock, core } = await opened();
    for (let i = 1; i <= 600; i++) core.ack(i);
    assert.equal(server.last.of('ack').length, 0, 'gathered for a moment');
    await clock.advance(20);
    assert.deepEqual(server.last.of('ack').map(m => m.ids.length), [256, 256, 88]);
    assert.equal(core.acks.size, 0);
    server.refuses.set('ack', 4503);
    core.ack(1000);
    await clock.advance(20);
    assert.equal(core.acks.size, 1);
    await clock.advance(1_000);
    await clock.advance(2_000);
    assert.equal(server.last.of('ack').length, 6, 'repeated, ever later');
    server.last.fail(1006);
    server.refuses.clear();
    await clock.advance(core.why.retry);
    assert.deepEqual(server.last.of('ack').map(m => m.ids), [[1000]]);
    assert.equal(core.acks.size, 0);
});

scenario('an acknowledgement under way when the connection is lost is repeated', async () => {
    const { server, clock, core } = await opened();
    server.auto = false;
    core.ack(5);
    await clock.advance(20);
    assert.equal(server.last.of('ack').length, 1);
    server.auto = true;
    server.last.fail(1006);
    await clock.advance(core.why.retry);
    assert.deepEqual(server.last.of('ack').map(m => m.ids), [[5]]);
});

scenario('an acknowledgement that is never answered is repeated', async () => {
    const { server, clock, core } = await opened();
    server.auto = false;
    core.ack(5);
    await clock.advance(20);
    server.auto = true;
    core.ack(6);
    await clock.advance(14_000);
    assert.deepEqual(server.last.of('ack').map(m => m.ids), [[5]]);
    await clock.advance(1_000);
    assert.deepEqual(server.last.of('ack').map(m => m.ids), [[5], [5, 6]]);
    assert.equal(core.acks.size, 0);
});

scenario('acknowledgements that wait are bounded', async () => {
    const { core } = made();
    for (let i = 0; i < 25_000; i++) core.ack(i);
    assert.equal(core.acks.size, 10_000);
    assert.ok(core.acks.has(24_999));
});

scenario('a token is renewed before it expires', async () => {
    let n = 0;
    const { clock, server, core, host } = made({ token: () => jwt({ sub: 'u', n: ++n, exp: clock.time / 1000 + 600 }) });
    server.wantsToken = true;
    core.start();
    await settle();
    await clock.advance(539_000);
    assert.equal(host.token.calls.length, 1);
    await clock.advance(1_000);
    assert.deepEqual(host.token.calls, [['connect'], ['renew']]);
    assert.deepEqual(server.last.of('auth').map(m => JSON.parse(atob(m.token.split('.')[1])).n), [1, 2]);
    await clock.advance(540_000);
    assert.equal(server.last.of('auth').length, 3);
    assert.equal(server.sockets.length, 1);
});

scenario('short tokens and far ones: no timer overflows, none loops', async () => {
    for (const [seconds, after, asked] of [[5, 4_000, 2], [30 * 86400, 86400_000, 1], [-100, 59_000, 1], [-100, 60_000, 2]]) {
        const { clock, server, core, host } = made({ token: () => jwt({ sub: 'u', exp: clock.time / 1000 + seconds }) });
        server.wantsToken = true;
        core.start();
        await settle();
        await clock.advance(after);
        assert.equal(host.token.calls.length, asked, `${seconds} s`);
    }
});

scenario('a renewal that is refused, or cannot be had, is tried again', async () => {
    let n = 0, fails = false;
    const { clock, server, core, host } = made({
        token: () => {
            if (fails) throw new Error('the provider is away');
            return jwt({ sub: 'u', n: ++n, exp: clock.time / 1000 + 600 });
        },
    });
    server.wantsToken = true;
    core.start();
    await settle();
    fails = true;
    await clock.advance(540_000);
    await clock.advance(10_000);
    assert.deepEqual(host.token.calls.map(([why]) => why), ['connect', 'renew', 'renew', 'renew']);
    assert.equal(core.state, 'open');
    fails = false;
    const { auth } = server;
    server.auth = (s, m) => server.no(s, m, 4401);
    await clock.advance(5_000);
    assert.equal(server.last.of('auth').length, 2);
    server.auth = auth;
    await clock.advance(5_000);
    assert.equal(host.token.calls.at(-1)[0], 'refused');
    assert.equal(server.last.of('auth').length, 3);
    await clock.advance(500_000);
    assert.equal(server.last.of('auth').length, 3);
    assert.equal(server.sockets.length, 1);
});

scenario('4401 asks for another token and comes back', async () => {
    let n = 0;
    const { clock, server, core, host } = made({ token: () => `t${++n}` });
    server.wantsToken = true;
    server.refuses.set('t1', 4401);
    core.start();
    await settle();
    assert.deepEqual([core.state, core.why.code], ['waiting', 4401]);
    await clock.advance(core.why.retry);
    assert.equal(core.state, 'open');
    assert.deepEqual(host.token.calls, [['connect'], ['refused']]);
    server.last.fail(4401, 'expired');
    core.wake();
    await clock.advance(1_000);
    assert.equal(core.state, 'open');
    assert.equal(server.last.token, 't3');
});

scenario('a provider that fails is an attempt that failed', async () => {
    const { clock, server, core } = made({
        token: () => {
            throw new Error('offline');
        },
    });
    core.start();
    await settle();
    assert.deepEqual([core.state, core.why.code, core.why.reason], ['waiting', 4401, 'there is no token: offline']);
    for (let i = 0; i < 5; i++) await clock.advance(core.why.retry);
    assert.equal(server.sockets.length, 0);
    assert.equal(core.why.retry, 0.5 * 500 * 2 ** 5);
});

scenario('stopped while a token is awaited, nothing is opened', async () => {
    let give;
    const { server, core } = made({ token: () => new Promise(resolve => (give = resolve)) });
    core.start();
    await settle();
    core.stop({ code: 1000 });
    give('late');
    await settle();
    assert.equal(server.sockets.length, 0);
    assert.equal(core.state, 'closed');
});

scenario('more is wanted than the server takes in a second: it is paced', async () => {
    const { server, clock, core } = await opened();
    for (let i = 0; i < 256; i++) core.join(`room${i}`);
    for (let i = 0; i < 300; i++) core.subscribe(`/api/${i}`);
    await settle();
    assert.equal(server.last.sent.length, 400);
    await clock.advance(1_000);
    const after = server.last.sent.length;
    assert.ok(after >= 480 && after <= 510, `${after} after a second`);
    await clock.advance(1_000);
    assert.equal(server.last.sent.length, 556);
});

scenario('what cannot be understood is reported or ignored', async () => {
    const { server, core, env } = await opened();
    server.last.onmessage({ data: '{' });
    assert.equal(env.report.calls.length, 1);
    for (const m of [{ ev: 'new' }, {}, { ev: 'ok', id: 99 }, { ev: 'error', code: 4400, message: 'x' }, { ev: 'data', path: '/x', body: 1 },
        { ev: 'resync' }, { ev: 'bye' }])
        server.last.say(m);
    assert.equal(core.state, 'open');
});
