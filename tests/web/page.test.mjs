// A page: handles, callbacks, what is told when; with a socket of its own.
import assert from 'node:assert/strict';
import { Browser, jwt, scenario, Server, settle, spy } from './support.mjs';

const OWN = { share: false };

async function opened(options = {}) {
    const browser = new Browser(), page = browser.page();
    const c = await page.connect({ ...OWN, ...options });
    await browser.clock.advance(0);
    assert.equal(c.state, 'open');
    return { browser, page, c, server: browser.server, clock: browser.clock };
}

/** The next attempt is made. */
async function back(c, clock) {
    await settle();
    await clock.advance(c.why.retry);
}

async function lose(c, { server, clock }) {
    server.last.fail(1006);
    await back(c, clock);
}

scenario('handles of one URL and subject share a socket, and release only their own', async () => {
    const { page, c, server, clock } = await opened();
    const others = await Promise.all([1, 2, 3].map(() => page.connect(OWN)));
    await clock.advance(0);
    assert.equal(server.sockets.length, 1);
    const heard = spy(), gone = spy();
    c.on('news', '*', heard);
    others[0].on('news', '*', gone);
    await clock.advance(0);
    others[0].release();
    others[0].release();
    assert.equal(others[0].state, 'closed');
    assert.equal(c.state, 'open');
    server.publish('news', 'a', 1);
    await settle();
    assert.deepEqual([heard.calls.length, gone.calls.length], [1, 0]);
    for (const h of [c, ...others]) h.release();
    assert.equal(server.open.length, 1, 'not before the grace has passed');
    await clock.advance(2_000);
    assert.equal(server.open.length, 0);
    assert.equal(server.last.closedWith, 1000);
    const again = await page.connect(OWN);
    await clock.advance(0);
    assert.equal(again.state, 'open');
    assert.equal(server.sockets.length, 2);
});

scenario('who comes back within the grace finds the socket open', async () => {
    const { page, c, server, clock } = await opened();
    c.release();
    await clock.advance(1_900);
    const again = await page.connect(OWN);
    await clock.advance(5_000);
    assert.equal(again.state, 'open');
    assert.equal(server.sockets.length, 1);
});

scenario('the URL', async () => {
    const browser = new Browser(), page = browser.page();
    for (const [url, expected] of [[undefined, 'ws://host.test/ws'], ['/other', 'ws://host.test/other'],
        ['https://far.test/ws', 'wss://far.test/ws'], ['ws.php?a=1#x', 'ws://host.test/admin/ws.php?a=1'], [new URL('wss://z.test/'), 'wss://z.test/']])
        assert.equal((await page.connect({ ...OWN, url })).url, expected);
    await assert.rejects(page.connect({ ...OWN, url: 'ftp://host.test/' }), /not the URL of a WebSocket/);
    await assert.rejects(page.connect({ ...OWN, token: 5 }), TypeError);
});

scenario('another subject has another connection', async () => {
    const browser = new Browser(), page = browser.page(), { server } = browser;
    server.wantsToken = true;
    const a = await page.connect({ ...OWN, token: jwt({ sub: 'a' }) }), b = await page.connect({ ...OWN, token: jwt({ sub: 'ü/b' }) });
    const key = await page.connect({ ...OWN, token: 'opaque' }), named = await page.connect({ ...OWN, token: 'opaque', subject: 'me' });
    await browser.clock.advance(0);
    assert.deepEqual([a, b, named].map(c => c.subject), ['a', 'ü/b', 'me']);
    assert.match(key.subject, /^key:digest-of-opaque/);
    assert.equal(server.open.length, 4);
    assert.deepEqual(server.open.map(s => s.token), [jwt({ sub: 'a' }), jwt({ sub: 'ü/b' }), 'opaque', 'opaque']);
});

scenario('nobody is signed in: connect says so', async () => {
    const browser = new Browser(), page = browser.page();
    await assert.rejects(page.connect({ token: () => null }), /nobody is signed in/);
    await assert.rejects(page.connect({ token: async () => Promise.reject(new Error('offline')) }), /offline/);
    assert.equal(browser.server.sockets.length, 0);
});

scenario('a provider is asked once for components that connect together, and then at every attempt', async () => {
    const browser = new Browser(), page = browser.page(), { server, clock } = browser;
    server.wantsToken = true;
    let n = 0;
    const token = spy(async () => jwt({ sub: 'u', n: ++n }));
    const [c] = await Promise.all([1, 2, 3].map(() => page.connect({ ...OWN, token })));
    await clock.advance(0);
    assert.equal(c.state, 'open');
    assert.deepEqual(token.calls, [['connect']]);
    for (let i = 2; i < 6; i++) {
        await lose(c, browser);
        assert.equal(token.calls.length, i);
        assert.equal(server.last.token, jwt({ sub: 'u', n: i }));
    }
});

scenario('a token of somebody else is not used', async () => {
    const browser = new Browser(), page = browser.page(), { server, clock } = browser;
    server.wantsToken = true;
    let sub = 'a';
    const c = await page.connect({ ...OWN, token: () => jwt({ sub }) });
    const said = spy();
    c.onState(said);
    await clock.advance(0);
    sub = 'b';
    server.last.fail(1006);
    await clock.advance(10_000);
    assert.equal(server.sockets.length, 1);
    assert.deepEqual(said.calls.at(-1), ['closed', { code: 4403, reason: 'the token is of another subject' }]);
    const other = await page.connect({ ...OWN, token: () => jwt({ sub }) });
    await clock.advance(0);
    assert.deepEqual([other.subject, other.state], ['b', 'open']);
});

scenario('a provider that does not answer holds nobody up for ever', async () => {
    const browser = new Browser(), page = browser.page(), { server, clock } = browser;
    server.wantsToken = true;
    let hangs = false;
    const token = spy(() => (hangs ? new Promise(() => {}) : 'good'));
    const c = await page.connect({ ...OWN, token, tokenTimeout: 3_000 });
    await clock.advance(0);
    hangs = true;
    await lose(c, browser);
    assert.equal(c.state, 'connecting');
    await clock.advance(2_999);
    assert.equal(c.state, 'connecting');
    await clock.advance(1);
    assert.deepEqual([c.state, c.why.reason], ['waiting', 'there is no token: the page does not answer']);
    hangs = false;
    await clock.advance(c.why.retry);
    assert.equal(c.state, 'open');
});

scenario('of several providers in a page the latest is asked first, then the others', async () => {
    const browser = new Browser(), page = browser.page(), { server, clock } = browser;
    server.wantsToken = true;
    const works = spy(() => jwt({ sub: 'u', of: 'first' }));
    let away = false;
    const fails = spy(() => {
        if (away) throw new Error('away');
        return jwt({ sub: 'u', of: 'second' });
    });
    const c = await page.connect({ ...OWN, token: works });
    await page.connect({ ...OWN, token: fails });
    await clock.advance(10_000);
    away = true;
    await lose(c, browser);
    assert.equal(server.last.token, jwt({ sub: 'u', of: 'first' }));
    assert.equal(fails.calls.length, 2);
});

scenario('a new token does not wait for what became of a refused one', async () => {
    for (const kind of ['text', 'function']) {
        const browser = new Browser(), page = browser.page(), { server, clock } = browser;
        const given = token => (kind === 'text' ? token : spy(() => token));
        page.random = 0.999;
        server.wantsToken = true;
        server.refuses.set('old', 4401);
        const c = await page.connect({ ...OWN, subject: 'me', token: given('old') });
        for (let i = 0; i < 6; i++) await back(c, clock);
        assert.deepEqual([c.state, c.why.code], ['waiting', 4401]);
        assert.ok(c.why.retry > 15_000);
        await clock.advance(2_000);
        const token = given('new');
        await page.connect({ ...OWN, subject: 'me', token });
        await clock.advance(0);
        assert.deepEqual([c.state, server.last.token], ['open', 'new']);
        if (kind === 'function') assert.deepEqual(token.calls, [['connect']], 'it was never refused');
    }
});

scenario('a new token that comes while a refused one is tried is the next', async () => {
    const browser = new Browser(), page = browser.page(), { server, clock } = browser;
    page.random = 0.999;
    server.wantsToken = true;
    server.refuses.set('old', 4401);
    const c = await page.connect({ ...OWN, subject: 'me', token: 'old' });
    for (let i = 0; i < 6; i++) await back(c, clock);
    server.auto = false;
    await clock.advance(c.why.retry);
    assert.equal(c.state, 'connecting');
    server.last.accept();
    const token = spy(() => 'new');
    await page.connect({ ...OWN, subject: 'me', token });
    server.auto = true;
    server.last.fail(4401);
    await clock.advance(1_000);
    assert.deepEqual([c.state, server.last.token, token.calls], ['open', 'new', [['connect']]]);
});

scenario('new tokens that are refused as well are no loop', async () => {
    const browser = new Browser(), page = browser.page(), { server, clock } = browser;
    page.random = 0.999;
    server.wantsToken = true;
    for (let i = 0; i < 50; i++) {
        server.refuses.set(`t${i}`, 4401);
        await page.connect({ ...OWN, subject: 'me', token: `t${i}` });
        await clock.advance(100);
    }
    assert.ok(server.sockets.length <= 7, `${server.sockets.length} attempts in 5 s`);
});

scenario('who has a cookie comes back once it is accepted, and does not press the server before', async () => {
    const { page, c, server, clock } = await opened(), { hello } = Server.prototype;
    page.random = 0.999;
    const other = await page.connect(OWN);
    let ended = true;
    server.hello = s => (ended ? s.fail(4401, 'the session has ended') : hello.call(server, s));
    const attempts = () => server.sockets.length - 1, waits = [];
    server.last.fail(4401, 'the session has ended');
    for (let i = 1; i <= 6; i++) {
        await settle();
        assert.deepEqual([c.state, c.why.code, c.why.reason], ['waiting', 4401, 'the session has ended']);
        assert.equal(attempts(), i - 1);
        waits.push(c.why.retry);
        await clock.advance(c.why.retry);
    }
    assert.ok(waits.every((w, i) => !i || w > 1.9 * waits[i - 1]), `${waits}`);
    ended = false;
    await back(c, clock);
    assert.deepEqual([c.state, other.state, attempts()], ['open', 'open', 7]);
});

scenario('who connects while the server is away does not press it', async () => {
    const browser = new Browser(), page = browser.page(), { server, clock } = browser;
    page.random = 0.999;
    const c = await page.connect({ ...OWN, subject: 'me', token: 'good' });
    await clock.advance(0);
    server.down = true;
    server.restart(9_000);
    await clock.advance(5_000);
    await page.connect({ ...OWN, subject: 'me', token: 'good' });
    await clock.advance(3_999);
    assert.deepEqual([c.state, server.sockets.length], ['waiting', 1]);
});

scenario('a subject that is null is none', async () => {
    const c = await new Browser().page().connect({ ...OWN, subject: null, token: jwt({ sub: 'u' }) });
    assert.equal(c.subject, 'u');
});

scenario('states are told as they change, with why', async () => {
    const { c, server, clock } = await opened();
    const said = spy(), stopped = spy();
    c.onState(said);
    c.onState(stopped)();
    server.last.fail(1006);
    await clock.advance(250);
    assert.deepEqual(said.calls.map(([state, why]) => [state, why.code, why.retry]), [['waiting', 1006, 250], ['connecting', 1006, undefined], ['open', undefined, undefined]]);
    assert.equal(stopped.calls.length, 0);
});

scenario('replaced elsewhere: closed, until the user connects again', async () => {
    const { page, c, server, clock } = await opened();
    const said = spy();
    c.onState(said);
    server.last.fail(4001, 'replaced');
    await clock.advance(3600_000);
    assert.deepEqual(said.calls, [['closed', { code: 4001, reason: 'replaced' }]]);
    assert.equal(server.sockets.length, 1);
    assert.deepEqual([c.state, c.why], ['closed', { code: 4001, reason: 'replaced' }]);
    c.subscribe('/api/a', () => assert.fail());
    const again = await page.connect(OWN);
    await clock.advance(0);
    assert.equal(again.state, 'open');
    assert.equal((await c.info()).state, 'closed');
});

scenario('online and visible are no time to wait', async () => {
    const { page, c, server, clock } = await opened();
    page.random = 0.999;
    server.down = true;
    server.last.fail(1006);
    for (let i = 0; i < 6; i++) await back(c, clock);
    await clock.advance(2_000);
    server.down = false;
    page.visible = false;
    page.wake(false);
    await settle();
    assert.equal(c.state, 'waiting', 'hidden is no reason');
    page.wake();
    await settle();
    assert.equal(c.state, 'open');
});

scenario('a path is subscribed to once; who comes later gets the body at once', async () => {
    const { page, c, server, clock } = await opened();
    const body = { n: 1 };
    server.put('/api/a', body, 'e1');
    const first = spy(), second = spy(), third = spy();
    c.subscribe('/api/a', first);
    assert.equal(first.calls.length, 0);
    await clock.advance(0);
    const stop = (await page.connect(OWN)).subscribe('/api/a', second);
    c.subscribe('/api/a', third)();
    assert.equal(second.calls.length, 0, 'not before subscribe has returned');
    await clock.advance(0);
    assert.deepEqual(first.calls, [[body, { path: '/api/a', etag: 'e1' }]]);
    assert.deepEqual(second.calls, first.calls);
    assert.equal(third.calls.length, 0);
    assert.equal(server.last.of('subscribe').length, 1);
    server.put('/api/a', { n: 2 }, 'e2');
    await settle();
    assert.deepEqual([first.calls.length, second.calls.length], [2, 2]);
    stop();
    stop();
    server.put('/api/a', { n: 3 }, 'e3');
    await settle();
    assert.deepEqual([first.calls.length, second.calls.length], [3, 2]);
});

scenario('a path that nobody watches any more is let go after a moment, and kept for who comes back', async () => {
    const { c, server, clock } = await opened();
    server.put('/api/a', 1, 'e1');
    const first = spy();
    c.subscribe('/api/a', spy())();
    await clock.advance(900);
    const stop = c.subscribe('/api/a', first);
    await clock.advance(5_000);
    assert.deepEqual(first.calls.length, 1);
    assert.equal(server.last.of('subscribe').length, 1);
    assert.equal(server.last.of('unsubscribe').length, 0);
    stop();
    await clock.advance(1_000);
    assert.equal(server.last.of('unsubscribe').length, 1);
    server.put('/api/a', 2, 'e2');
    const again = spy();
    c.subscribe('/api/a', again);
    await clock.advance(0);
    assert.deepEqual(again.calls.map(([body]) => body), [2]);
    assert.equal(server.last.of('subscribe')[1].etag, undefined);
});

scenario('a room that nobody listens to any more is left after a moment, and kept for who comes back', async () => {
    const { c, server, clock } = await opened();
    const heard = spy();
    c.on('news', '*', () => {})();
    await clock.advance(900);
    const stop = c.on('news', '*', heard);
    await clock.advance(5_000);
    server.publish('news', 'a', 1);
    await settle();
    assert.equal(heard.calls.length, 1);
    assert.deepEqual([server.last.of('join').length, server.last.of('leave').length], [1, 0]);
    stop();
    await clock.advance(1_000);
    assert.equal(server.last.of('leave').length, 1);
});

scenario('a body that is the same after a reconnection is not shown again', async () => {
    const { c, server, clock } = await opened();
    server.put('/api/a', 1, 'e1');
    const shown = spy();
    c.subscribe('/api/a', shown);
    await clock.advance(0);
    server.restart();
    await back(c, clock);
    assert.equal(server.last.of('subscribe')[0].etag, 'e1');
    assert.equal(shown.calls.length, 1);
});

scenario('problems go to those whose path or room it is', async () => {
    const { c, server, clock } = await opened();
    server.refuses.set('/api/no', 4404).set('role:boss', 4403);
    const path = spy(), room = spy(), other = spy();
    c.subscribe('/api/no', () => assert.fail(), { onError: path });
    c.on('role:BOSS', '*', () => assert.fail(), { onError: room });
    c.subscribe('/api/yes', () => {}, { onError: other });
    await clock.advance(0);
    assert.deepEqual(path.calls, [[{ path: '/api/no', code: 4404, message: 'no: 4404', live: false }]]);
    assert.deepEqual(room.calls, [[{ room: 'role:boss', code: 4403, message: 'no: 4403' }]]);
    assert.equal(other.calls.length, 0);
});

scenario('a row that is gone, and back with the same body', async () => {
    const { page, c, server, clock } = await opened();
    server.put('/api/a', { n: 1 }, 'e1');
    const shown = spy(), problems = spy(), late = spy(), told = spy();
    c.subscribe('/api/a', shown, { onError: problems });
    await clock.advance(0);
    server.last.say({ ev: 'error', path: '/api/a', code: 4404, message: 'gone', live: true });
    await clock.advance(0);
    assert.equal(problems.calls.length, 1);
    (await page.connect(OWN)).subscribe('/api/a', late, { onError: told });
    await clock.advance(0);
    assert.deepEqual([late.calls.length, told.calls], [0, problems.calls], 'who comes now is told the same');
    assert.equal(problems.calls.length, 1);
    server.put('/api/a', { n: 1 }, 'e1');
    await settle();
    assert.deepEqual([shown.calls.length, late.calls.length], [2, 1]);
    assert.equal(server.last.of('subscribe').length, 1);
});

scenario('a refresh that failed: the body stays, and is shown again once it holds', async () => {
    const { browser, page, c, server, clock } = await opened();
    server.put('/api/a', { n: 1 }, 'e1');
    const shown = spy(), problems = spy(), late = spy();
    c.subscribe('/api/a', shown, { onError: problems });
    await clock.advance(0);
    server.last.say({ ev: 'error', path: '/api/a', code: 4503, message: 'away', live: true });
    await clock.advance(0);
    (await page.connect(OWN)).subscribe('/api/a', late);
    await clock.advance(0);
    assert.deepEqual([shown.calls.length, problems.calls.length, late.calls.length], [1, 1, 1]);
    await lose(c, browser);
    assert.equal(server.last.of('subscribe')[0].etag, undefined, 'that the problem is over must be said');
    assert.deepEqual([shown.calls.length, late.calls.length], [2, 2]);
});

scenario('a body of a database that is away is marked, until it holds', async () => {
    const { c, server, clock } = await opened();
    const shown = spy();
    c.subscribe('/api/a', shown);
    await clock.advance(0);
    server.last.say({ ev: 'data', path: '/api/a', etag: 'e1', stale: true, body: 1 });
    server.last.say({ ev: 'data', path: '/api/a', etag: 'e1', body: 1 });
    await settle();
    assert.deepEqual(shown.calls, [[1, { path: '/api/a', etag: 'e1', stale: true }], [1, { path: '/api/a', etag: 'e1' }]]);
});

scenario('events by room and name; changes of tables; roles in any case', async () => {
    const { c, server, clock } = await opened();
    const paid = spy(), all = spy(), changed = spy(), role = spy();
    c.on('finance', 'paid', paid);
    c.on('finance', '*', all);
    c.on('table:course', 'change', changed);
    c.on('role:Admin', 'x', role);
    await clock.advance(0);
    assert.deepEqual(server.last.of('join').map(m => m.room), ['finance', 'table:course', 'role:admin']);
    const seq = server.publish('finance', 'paid', { id: 1 });
    server.publish('finance', 'else', 2);
    server.change('course', ['c1']);
    server.change('course', null);
    server.publish('role:admin', 'x', 3);
    await settle();
    assert.deepEqual(paid.calls, [[{ id: 1 }, { room: 'finance', name: 'paid', seq }]]);
    assert.deepEqual(all.calls.map(([data, e]) => [data, e.name]), [[{ id: 1 }, 'paid'], [2, 'else']]);
    assert.deepEqual(changed.calls.map(([data]) => data), [{ table: 'course', op: 'UPDATE', keys: ['c1'] }, { table: 'course', op: 'UPDATE', keys: null }]);
    assert.equal(role.calls.length, 1);
});

scenario('an error in a callback is reported and stops nobody', async () => {
    const { page, c, server, clock } = await opened();
    const heard = spy();
    c.on('news', '*', () => {
        throw new Error('one');
    });
    c.on('news', '*', async () => {
        throw new Error('two');
    });
    c.on('news', '*', heard);
    c.onState(() => {
        throw new Error('three');
    });
    await clock.advance(0);
    server.publish('news', 'a', 1);
    server.publish('news', 'a', 2);
    await settle();
    assert.equal(heard.calls.length, 2);
    server.last.fail(1006);
    await settle();
    page.expected = ['Error: one', 'Error: one', 'Error: two', 'Error: two', 'Error: three'];
});

scenario('what is not a function is refused at once', async () => {
    const { c } = await opened();
    for (const f of [() => c.on('a', 'b'), () => c.subscribe('/a', null), () => c.onState(), () => c.onResync(1)]) assert.throws(f, TypeError);
});

scenario('a resync is told for what the page listens to', async () => {
    const { c, server, clock } = await opened();
    const said = spy();
    c.onResync(said);
    c.on('news', '*', () => {});
    c.subscribe('/api/a', () => {});
    await clock.advance(0);
    server.last.say({ ev: 'resync', rooms: ['news', 'other'], paths: ['/api/a', '/api/b'], seq: 999 });
    server.last.say({ ev: 'resync', rooms: ['other'], paths: [], seq: 999 });
    await settle();
    assert.deepEqual(said.calls, [[{ rooms: ['news'], paths: ['/api/a'] }]]);
    server.restart();
    await back(c, clock);
    assert.deepEqual(said.calls[1], [{ rooms: ['news'], paths: [] }]);
    server.publish('news', 'a', 1);
});

scenario('after a restart of the server its small numbers are heard', async () => {
    const { c, server, clock } = await opened();
    const heard = spy();
    c.on('news', '*', heard);
    await clock.advance(0);
    server.publish('news', 'a', 1);
    server.restart();
    await back(c, clock);
    server.publish('news', 'b', 2);
    await settle();
    assert.deepEqual(heard.calls.map(([data]) => data), [1, 2]);
    assert.ok(heard.calls[1][1].seq < heard.calls[0][1].seq);
});

/* ---- durable events ---- */

scenario('a durable event is acknowledged once its callbacks have returned', async () => {
    const { c, server, clock } = await opened();
    const order = [];
    c.on('user:u', 'note', data => void order.push(data));
    await clock.advance(0);
    server.notify(1, 'a');
    await clock.advance(19);
    assert.deepEqual([order, server.acked], [['a'], []]);
    await clock.advance(1);
    assert.deepEqual(server.acked, [1]);
});

scenario('an asynchronous callback is waited for', async () => {
    const { c, server, clock } = await opened();
    const finish = [];
    const stop = c.on('user:u', 'note', () => new Promise(resolve => finish.push(resolve)));
    c.on('user:u', '*', () => new Promise(resolve => finish.push(resolve)));
    await clock.advance(0);
    server.notify(1, 'a');
    await clock.advance(3600_000);
    assert.deepEqual(server.acked, []);
    stop();
    finish[1]();
    await clock.advance(20);
    assert.deepEqual(server.acked, [], 'what runs already is waited for all the same');
    finish[0]();
    await clock.advance(20);
    assert.deepEqual(server.acked, [1]);
});

scenario('one that throws is not acknowledged: it comes again, to who has not taken it', async () => {
    const { browser, page, c, server, clock } = await opened();
    let broken = true;
    const good = spy(), bad = spy(() => {
        if (broken) throw new Error('broken');
    });
    c.on('user:u', 'note', good);
    c.on('user:u', 'note', bad);
    await clock.advance(0);
    server.notify(1, 'a');
    await clock.advance(60_000);
    assert.deepEqual([good.calls.length, bad.calls.length, server.acked], [1, 1, []]);
    await lose(c, browser);
    assert.deepEqual([good.calls.length, bad.calls.length], [1, 2]);
    broken = false;
    await lose(c, browser);
    await clock.advance(20);
    assert.deepEqual([good.calls.length, bad.calls.length, server.acked], [1, 3, [1]]);
    page.expected = ['Error: broken', 'Error: broken'];
});

scenario('what has failed goes to the next who listens', async () => {
    const { page, c, server, clock } = await opened();
    const stop = c.on('user:u', 'note', async () => {
        throw new Error('broken');
    });
    await clock.advance(0);
    server.notify(1, 'a');
    await clock.advance(20);
    stop();
    const next = spy();
    c.on('user:u', 'note', next);
    await clock.advance(20);
    assert.deepEqual([next.calls.length, server.acked], [1, [1]]);
    page.expected = ['Error: broken'];
});

scenario('nobody listens: it is kept, and not acknowledged', async () => {
    const { c, server, clock } = await opened();
    c.on('user:u', 'other', () => {});
    server.notify(1, 'a');
    server.notify(2, 'b');
    await clock.advance(60_000);
    assert.deepEqual(server.acked, []);
    assert.equal((await c.info()).pending, 2);
    const heard = spy();
    c.on('user:u', 'note', heard);
    await clock.advance(20);
    assert.deepEqual(heard.calls.map(([data, e]) => [data, e.nid]), [['a', 1], ['b', 2]]);
    assert.deepEqual(server.acked, [1, 2]);
});

scenario('what was taken is not shown again when the server repeats it, but acknowledged again', async () => {
    const { browser, c, server, clock } = await opened();
    const heard = spy();
    c.on('user:u', 'note', heard);
    await clock.advance(0);
    server.refuses.set('ack', 4503);
    server.notify(1, 'a');
    await clock.advance(20);
    for (let i = 0; i < 3; i++) {
        await lose(c, browser);
    }
    server.refuses.clear();
    await lose(c, browser);
    await clock.advance(20);
    assert.equal(heard.calls.length, 1);
    assert.ok(server.acked.includes(1));
    assert.equal(server.outbox.size, 0);
});

scenario('what waits for a listener is bounded, and nothing of it is lost', async () => {
    const { c, server, clock } = await opened();
    for (let i = 1; i <= 1500; i++) server.notify(i, i);
    await clock.advance(100);
    assert.equal((await c.info()).pending, 1000);
    const heard = spy();
    c.on('user:u', 'note', heard);
    await clock.advance(1_000);
    assert.deepEqual(heard.calls.map(([data]) => data), Array.from({ length: 1500 }, (_, i) => i + 1));
    assert.equal(server.outbox.size, 0);
    assert.equal(server.sockets.length, 2, 'asked for the rest by coming anew');
});

scenario('large events that wait are bounded in bytes', async () => {
    const { c, server, clock } = await opened();
    const large = 'x'.repeat(1 << 20);
    for (let i = 1; i <= 12; i++) server.notify(i, large);
    await clock.advance(0);
    assert.equal((await c.info()).pending, 7);
    const heard = spy();
    c.on('user:u', 'note', heard);
    await clock.advance(1_000);
    assert.deepEqual(heard.calls.map(([, e]) => e.nid), Array.from({ length: 12 }, (_, i) => i + 1));
});

/* ---- the end ---- */

scenario('signing out closes the connection, and nobody comes back', async () => {
    const { page, c, server, clock } = await opened();
    const other = await page.connect(OWN), said = spy();
    other.onState(said);
    c.signOut();
    assert.equal(c.state, 'closed');
    await clock.advance(3600_000);
    assert.equal(server.open.length, 0);
    assert.equal(server.sockets.length, 1);
    assert.deepEqual(said.calls, [['closed', { code: 1000, reason: 'signed out' }]]);
    assert.equal(clock.timers.size, 0);
    c.signOut();
    const again = await page.connect(OWN);
    await clock.advance(0);
    assert.equal(again.state, 'open');
    c.signOut();
    await clock.advance(5_000);
    assert.equal(again.state, 'open', 'a handle that is closed signs nobody out');
});

scenario('info', async () => {
    const { c, clock, server } = await opened();
    c.on('news', '*', () => {});
    c.subscribe('/api/a', () => {});
    await clock.advance(0);
    const before = await c.info();
    assert.deepEqual(before, {
        mode: 'socket', tabs: 1, sockets: 1, state: 'open', url: 'ws://host.test/ws', subject: 'cookie', here: true, rooms: 1, paths: 1,
        pending: 0, acks: 0, attempts: 1,
    });
    server.down = true;
    server.last.fail(1006);
    await settle();
    assert.equal((await c.info()).sockets, 0);
});
