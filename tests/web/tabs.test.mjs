// Several pages of one browser: a SharedWorker, or a leader; they come, go and die.
import assert from 'node:assert/strict';
import { Browser, jwt, scenario, settle, spy, until } from './support.mjs';

const URL_OF = 'ws://host.test/ws';

async function opened(kind, pages = 3, options = {}) {
    const browser = new Browser(), { server, clock } = browser;
    browser.hasWorkers = kind === 'shared-worker';
    const all = [], handles = [];
    for (let i = 0; i < pages; i++) {
        all.push(browser.page());
        handles.push(await all[i].connect(typeof options === 'function' ? options(i) : options));
    }
    await until(() => handles.every(c => c.state === 'open'), 'all open');
    return { browser, server, clock, pages: all, handles };
}

/** Messages between pages need tasks, timers the clock: both go on until it is so. */
async function eventually(clock, what, why) {
    await until(async () => {
        if (await what()) return true;
        await clock.advance(10);
        return false;
    }, why ?? what);
}

/** All that was said before has arrived everywhere. */
const flushed = handles => Promise.all(handles.map(c => c.info()));

/** Both ways in which pages share. */
function both(name, f) {
    for (const kind of ['shared-worker', 'leader']) scenario(`${name} (${kind})`, () => f(kind));
}

both('three pages with five components each: one socket', async kind => {
    const { server, pages, handles } = await opened(kind);
    const more = await Promise.all(pages.flatMap(page => [1, 2, 3, 4].map(() => page.connect())));
    const heard = [...handles, ...more].map(c => {
        const f = spy();
        c.on('news', '*', f);
        return f;
    });
    await flushed(handles);
    await until(() => server.last.of('join').length);
    await settle();
    server.publish('news', 'a', 1);
    await until(() => heard.every(f => f.calls.length === 1));
    const infos = await Promise.all([...handles, ...more].map(c => c.info()));
    assert.deepEqual(new Set(infos.map(i => `${i.mode} ${i.tabs} ${i.sockets}`)), new Set([`${kind} 3 1`]));
    assert.equal(infos.filter(i => i.here).length, kind === 'leader' ? 5 : 0);
    assert.equal(server.sockets.length, 1);
    assert.equal(server.last.of('join').length, 1);
});

both('a path is subscribed to once; another page gets its body from the first', async kind => {
    const { server, handles } = await opened(kind);
    server.put('/api/a', { n: 1 }, 'e1');
    const first = spy(), second = spy(), other = spy();
    handles[0].subscribe('/api/a', first);
    await until(() => first.calls.length);
    handles[1].subscribe('/api/a', second);
    handles[2].subscribe('/api/b', other);
    await until(() => second.calls.length);
    assert.deepEqual(second.calls, [[{ n: 1 }, { path: '/api/a', etag: 'e1' }]]);
    server.put('/api/a', { n: 2 }, 'e2');
    await until(() => first.calls.length === 2 && second.calls.length === 2);
    assert.equal(server.last.of('subscribe').filter(m => m.path === '/api/a').length, 1);
    assert.equal(other.calls.length, 0);
});

both('pages that die without a word are noticed, and what only they wanted is let go', async kind => {
    const { server, clock, pages, handles } = await opened(kind);
    handles[2].on('news', '*', () => {});
    handles[2].subscribe('/api/a', () => {});
    await until(() => server.last.of('subscribe').length);
    pages[2].kill();
    await eventually(clock, async () => (await handles[0].info()).tabs === 2);
    await eventually(clock, () => server.last.of('leave').length && server.last.of('unsubscribe').length);
    assert.equal(server.sockets.length, 1);
});

both('the last page of all lets the socket go', async kind => {
    const { browser, server, clock, handles, pages } = await opened(kind);
    for (const c of handles) c.release();
    for (let i = 0; i < 3; i++) handles[i].release();
    await eventually(clock, () => server.open.length === 0);
    assert.equal(server.last.closedWith, 1000);
    await until(() => pages.every(p => browser.locks.names(p).length === 0), 'no page holds a lock');
    const again = await pages[1].connect();
    await until(() => again.state === 'open');
    assert.equal(server.sockets.length, 2);
});

both('a page that releases does not close another’s', async kind => {
    const { server, clock, handles } = await opened(kind);
    const heard = spy();
    handles[1].on('news', '*', heard);
    await until(() => server.last.of('join').length);
    handles[0].release();
    handles[2].release();
    await eventually(clock, async () => (await handles[1].info()).tabs === 1);
    await clock.advance(60_000);
    server.publish('news', 'a', 1);
    await until(() => heard.calls.length);
    assert.equal(server.sockets.length, 1);
});

both('signing out in one page signs out all, of that subject', async kind => {
    const { server, clock, pages, handles } = await opened(kind, 3, i => ({ token: jwt({ sub: i < 2 ? 'a' : 'b' }) }));
    server.wantsToken = true;
    assert.equal(server.open.length, 2);
    handles[1].signOut();
    await until(() => handles[0].state === 'closed');
    assert.deepEqual(handles[0].why, { code: 1000, reason: 'signed out' });
    await eventually(clock, () => server.open.length === 1);
    await clock.advance(3600_000);
    await flushed([handles[2]]);
    assert.deepEqual([handles[0].state, handles[1].state, handles[2].state, server.sockets.length], ['closed', 'closed', 'open', 2]);
    const again = pages[0].connect({ token: jwt({ sub: 'a' }) });
    await eventually(clock, () => server.open.length === 2, 'who signs in again is connected');
    await again;
});

both('replaced elsewhere: closed in all pages', async kind => {
    const { server, clock, handles } = await opened(kind);
    server.last.fail(4001, 'replaced');
    await until(() => handles.every(c => c.state === 'closed'));
    assert.deepEqual(handles.map(c => c.why.code), [4001, 4001, 4001]);
    await clock.advance(3600_000);
    assert.equal(server.sockets.length, 1);
});

both('the pages are asked for a token one after another', async kind => {
    const asked = [];
    let answers = true;
    const { server, clock, handles, pages } = await opened(kind, 3, i => ({
        token: () => {
            asked.push(i);
            if (answers || i === 1) return jwt({ sub: 'u', i });
            return i === 0 ? new Promise(() => {}) : Promise.reject(new Error('away'));
        },
        tokenTimeout: 4_000,
    }));
    server.wantsToken = true;
    await clock.advance(20_000);
    answers = false;
    asked.length = 0;
    server.last.fail(1006);
    const before = clock.time;
    await eventually(clock, () => handles.every(c => c.state === 'open') && server.sockets.length === 2);
    assert.equal(server.last.token, jwt({ sub: 'u', i: 1 }));
    assert.equal(asked.at(-1), 1);
    assert.ok(asked.length <= 3 && new Set(asked).size === asked.length);
    assert.ok(clock.time - before < 6_000);
    for (const page of pages) {
        page.visible = page === pages[0];
        page.wake(page.visible);
    }
    await flushed(handles);
    asked.length = 0;
    server.last.fail(1006);
    await eventually(clock, () => asked.length === 1);
    assert.deepEqual(asked, [0], 'the one that is looked at first');
    const died = clock.time;
    if (kind === 'shared-worker') {
        pages[0].kill();
        await eventually(clock, () => asked.length > 1);
        assert.ok(clock.time - died < 4_000, 'who is dead is not waited for');
    }
});

both('the page that brings a new token is asked first, whoever else is looked at', async kind => {
    const browser = new Browser(), { server, clock } = browser;
    browser.hasWorkers = kind === 'shared-worker';
    server.wantsToken = true;
    server.refuses.set('old', 4401);
    const first = await browser.page().connect({ subject: 'me', token: 'old' });
    await eventually(clock, () => first.state === 'waiting' && server.sockets.length >= 6);
    const page = browser.page(), token = spy(() => 'new');
    page.visible = false;
    const made = page.connect({ subject: 'me', token });
    await until(() => token.calls.length);
    const began = clock.time;
    await eventually(clock, () => first.state === 'open');
    assert.ok(clock.time - began <= 2_000, `${clock.time - began} ms`);
    assert.deepEqual([server.last.token, token.calls], ['new', [['connect']]]);
    await made;
});

both('a subject that begins like another’s is another’s', async kind => {
    const browser = new Browser(), { server, clock } = browser;
    browser.hasWorkers = kind === 'shared-worker';
    const long = await browser.page().connect({ subject: 'a:b' });
    await until(() => long.state === 'open');
    const began = clock.time, short = await browser.page().connect({ subject: 'a' });
    await eventually(clock, () => short.state === 'open');
    assert.ok(clock.time - began < 1_000, 'nobody else is waited for');
    assert.equal(server.open.length, 2);
});

both('a page whose token is of another subject leaves, the others go on', async kind => {
    let other = false;
    const { server, clock, handles } = await opened(kind, 3, i => ({ token: () => jwt({ sub: other && i === 2 ? 'b' : 'a', i }) }));
    server.wantsToken = true;
    await clock.advance(20_000);
    other = true;
    server.last.fail(1006);
    await eventually(clock, () => server.sockets.length === 2 && handles[0].state === 'open');
    assert.deepEqual(handles.map(c => c.state), ['open', 'open', 'closed']);
    assert.equal(handles[2].why.code, 4403);
});

both('one page’s acknowledgement counts for all', async kind => {
    const { server, clock, handles } = await opened(kind);
    let finish;
    const slow = spy(() => new Promise(resolve => (finish = resolve))), quick = spy();
    handles[0].on('user:u', 'note', slow);
    handles[1].on('user:u', 'note', quick);
    await flushed(handles);
    await until(() => server.last.of('join').length);
    server.notify(1, 'a');
    await eventually(clock, () => server.acked.length);
    assert.deepEqual([slow.calls.length, quick.calls.length], [1, 1]);
    const late = spy();
    handles[2].on('user:u', 'note', late);
    finish();
    await eventually(clock, async () => (await handles[2].info()).acks === 0);
    assert.deepEqual([late.calls.length, server.acked], [0, [1]]);
});

both('what nobody takes goes to the page that comes', async kind => {
    const { browser, server, clock, pages, handles } = await opened(kind, 2);
    handles[0].on('user:u', 'note', () => new Promise(() => {}));
    await flushed(handles);
    await until(() => server.last.of('join').length);
    server.notify(1, 'a');
    await eventually(clock, async () => (await handles[1].info()).pending === 1);
    if (kind === 'shared-worker') pages[0].kill();
    const heard = spy();
    const c = await browser.page().connect();
    c.on('user:u', 'note', heard);
    await eventually(clock, () => server.acked.length);
    assert.deepEqual([heard.calls.length, server.acked], [1, [1]]);
});

/* ---- handing over ---- */

/** Numbers heard by each page, which listens to 'news' and to what is durable. */
function listeners(handles) {
    return handles.map(c => {
        const heard = { news: [], notes: [], resyncs: [] };
        c.on('news', '*', data => heard.news.push(data));
        c.on('user:u', 'note', data => void heard.notes.push(data));
        c.onResync(what => heard.resyncs.push(what));
        return heard;
    });
}

scenario('the leader’s page is killed in the middle of a stream: nothing is lost, nothing comes twice', async () => {
    const { server, clock, pages, handles } = await opened('leader', 4);
    const heard = listeners(handles);
    await flushed(handles);
    await until(() => server.last.of('join').length === 2);
    await settle();
    let n = 0;
    const expected = [];
    for (let life = 0; life < 3; life++) {
        const say = () => {
            expected.push(++n);
            server.publish('news', 'a', n);
            server.notify(n, n);
        };
        for (let i = 0; i < 20; i++) say();
        if (life % 2) await settle(); /* some have arrived */
        pages[life].kill();
        for (let i = 0; i < 20; i++) say();
        await eventually(clock, () => server.open.length === 1, 'another page has taken over');
        for (let i = 0; i < 20; i++) say();
        await eventually(clock, () => heard[3].news.length === n && heard[3].notes.length === n);
    }
    assert.deepEqual(heard[3].news, expected);
    assert.deepEqual([...heard[3].notes].sort((a, b) => a - b), expected);
    assert.deepEqual(heard[3].resyncs, []);
    await eventually(clock, () => server.outbox.size === 0, 'all is acknowledged');
    assert.equal((await handles[3].info()).here, true);
});

scenario('a new leader resumes from the page that is furthest behind', async () => {
    const { browser, server, clock, pages, handles } = await opened('leader', 3);
    const heard = listeners(handles);
    await flushed(handles);
    await until(() => server.last.of('join').length === 2);
    await settle();
    server.publish('news', 'a', 1);
    await until(() => heard.every(h => h.news.length === 1));
    /* What the leader says to the last page is lost with it. */
    const id = browser.locks.names(pages[2])[0].split(':').at(-1);
    const [channel] = pages[0].channels(`:${id}:`);
    channel.postMessage = () => {};
    server.publish('news', 'a', 2);
    server.publish('news', 'a', 3);
    await until(() => heard[1].news.length === 3);
    pages[0].kill();
    await eventually(clock, () => server.open.length === 1 && heard[2].news.length === 3);
    server.publish('news', 'a', 4);
    await eventually(clock, () => heard[1].news.length === 4 && heard[2].news.length === 4);
    assert.deepEqual(heard[1].news, [1, 2, 3, 4]);
    assert.deepEqual(heard[2].news, [1, 2, 3, 4]);
    assert.deepEqual(heard.map(h => h.resyncs.length), [0, 0, 0]);
});

scenario('a new leader of a session that is forgotten: all are told to look anew', async () => {
    const { server, clock, pages, handles } = await opened('leader', 3);
    const heard = listeners(handles);
    await flushed(handles);
    await until(() => server.last.of('join').length === 2);
    await settle();
    pages[0].kill();
    server.restart();
    await eventually(clock, () => heard[1].resyncs.length && heard[2].resyncs.length);
    assert.deepEqual(heard[1].resyncs, [{ rooms: ['news', 'user:u'], paths: [] }]);
    assert.deepEqual(heard[2].resyncs, heard[1].resyncs);
    server.publish('news', 'a', 7);
    await eventually(clock, () => heard[1].news.length && heard[2].news.length);
});

scenario('what one page has taken is not shown by another after the leader is gone', async () => {
    const { browser, server, clock, pages, handles } = await opened('leader', 3);
    const taken = spy(), other = spy();
    const stop = handles[1].on('user:u', 'note', taken);
    await flushed(handles);
    await until(() => server.last.of('join').length);
    server.refuses.set('ack', 4503);
    server.notify(1, 'a');
    await eventually(clock, () => server.last.of('ack').length);
    stop();
    pages[0].kill();
    await eventually(clock, () => server.open.length === 1);
    const late = await browser.page().connect();
    late.on('user:u', 'note', other);
    await flushed([late]);
    server.refuses.clear();
    await eventually(clock, () => server.outbox.size === 0);
    await flushed([handles[1], late]);
    assert.deepEqual([taken.calls.length, other.calls.length], [1, 0]);
});

scenario('a new leader subscribes to what all watch; what is the same is not shown again', async () => {
    const { server, clock, pages, handles } = await opened('leader', 3);
    const shown = handles.map(c => {
        const f = spy();
        c.subscribe('/api/a', f);
        return f;
    });
    handles[2].subscribe('/api/b', shown[2]);
    server.put('/api/a', 1, 'e1');
    server.put('/api/b', 'b', 'f1');
    await until(() => shown[0].calls.length === 1 && shown[1].calls.length === 1 && shown[2].calls.length === 2);
    pages[0].kill();
    server.put('/api/b', 'c', 'f2');
    await eventually(clock, () => shown[2].calls.length === 3);
    assert.deepEqual([shown[1].calls.length, shown[2].calls.map(([body]) => body)], [1, [1, 'b', 'c']]);
    server.put('/api/a', 2, 'e2');
    await until(() => shown[1].calls.length === 2 && shown[2].calls.length === 4);
});

scenario('signing out while there is no leader', async () => {
    const { server, clock, pages, handles } = await opened('leader', 4);
    handles[3].on('news', '*', () => {});
    await until(() => server.last.of('join').length);
    pages[0].kill();
    handles[2].signOut();
    await eventually(clock, () => handles.slice(1).every(c => c.state === 'closed'));
    await clock.advance(60_000);
    assert.equal(server.open.length, 0);
});

scenario('a leader that hangs keeps nobody from listening already', async () => {
    const { browser, server, clock, pages } = await opened('leader', 1);
    pages[0].dead = true; /* nothing of it runs, but it is there */
    let c = null;
    browser.page().connect({ worker: false }).then(made => (c = made));
    await eventually(clock, () => c);
    assert.equal(c.state, 'connecting');
    const heard = spy();
    c.on('news', '*', heard);
    browser.kill(pages[0]);
    await eventually(clock, () => c.state === 'open' && server.last.of('join').length);
    await settle();
    server.publish('news', 'a', 1);
    await until(() => heard.calls.length);
});

scenario('a leader that is frozen hands over, and comes back as one of the others', async () => {
    const { browser, server, clock, pages, handles } = await opened('leader', 3);
    const heard = listeners(handles);
    await flushed(handles);
    await until(() => server.last.of('join').length === 2);
    await settle();
    server.publish('news', 'a', 1);
    server.notify(1, 1);
    await until(() => heard.every(h => h.news.length === 1 && h.notes.length === 1));
    pages[1].freeze(true); /* who is frozen is not the next one, either */
    pages[0].freeze(true);
    assert.equal(handles[0].state, 'connecting');
    await eventually(clock, async () => server.open.length === 1 && (await handles[2].info()).here);
    await eventually(clock, () => server.last.of('resume').length);
    server.publish('news', 'a', 2);
    server.notify(2, 2);
    await eventually(clock, () => heard[1].news.length === 2 && heard[2].news.length === 2);
    pages[0].freeze(false);
    pages[1].freeze(false);
    await eventually(clock, () => handles[0].state === 'open' && heard[0].notes.length === 2);
    server.publish('news', 'a', 3);
    await eventually(clock, () => heard.every(h => h.news.at(-1) === 3));
    assert.deepEqual(heard.map(h => h.news), [[1, 2, 3], [1, 2, 3], [1, 2, 3]]);
    assert.deepEqual(heard.map(h => h.notes), [[1, 2], [1, 2], [1, 2]]);
    await eventually(clock, () => server.outbox.size === 0);
    pages[2].kill();
    await eventually(clock, () => server.open.length === 1);
    server.publish('news', 'a', 4);
    await eventually(clock, () => heard[0].news.at(-1) === 4 && heard[1].news.at(-1) === 4);
    assert.equal(server.open.length, 1);
});

scenario('a page that the leader has not heard says again that it is there', async () => {
    const { browser, server, clock, pages } = await opened('leader', 1);
    const ears = pages[0].channels('to:hub:').find(c => c.onmessage), { onmessage } = ears;
    let lost = 0;
    ears.onmessage = () => void lost++;
    const made = browser.page().connect();
    await until(() => lost);
    ears.onmessage = onmessage;
    const began = clock.time;
    let c;
    made.then(handle => (c = handle));
    await eventually(clock, () => c?.state === 'open');
    assert.ok(clock.time - began <= 5_000);
    assert.deepEqual([(await c.info()).tabs, server.sockets.length], [2, 1]);
});

scenario('a frozen leader of nothing of its own is done with', async () => {
    const { browser, server, clock, pages, handles } = await opened('leader', 2);
    handles[0].release();
    await clock.advance(0);
    pages[0].freeze(true);
    await eventually(clock, async () => server.open.length === 1 && (await handles[1].info()).here);
    assert.deepEqual(browser.locks.names(pages[0]), []);
    pages[0].freeze(false);
    const again = await pages[0].connect();
    await eventually(clock, async () => (await again.info()).tabs === 2);
    assert.equal(server.open.length, 1);
});

scenario('a leader that has released everything leads on for the others', async () => {
    const { server, clock, pages, handles } = await opened('leader', 2);
    const heard = spy();
    handles[1].on('news', '*', heard);
    await until(() => server.last.of('join').length);
    handles[0].release();
    await clock.advance(60_000);
    await flushed([handles[1]]);
    assert.equal(server.sockets.length, 1);
    const back = await pages[0].connect();
    const own = spy();
    back.on('news', '*', own);
    await flushed([back]);
    server.publish('news', 'a', 1);
    await until(() => heard.calls.length && own.calls.length);
    assert.equal((await back.info()).tabs, 2);
    assert.equal((await back.info()).here, true);
});

scenario('a dead worker is replaced, and resumes', async () => {
    const { browser, server, clock, handles } = await opened('shared-worker', 3);
    const heard = listeners(handles);
    await flushed(handles);
    await until(() => server.last.of('join').length === 2);
    server.publish('news', 'a', 1);
    await until(() => heard.every(h => h.news.length === 1));
    browser.killWorkers();
    server.publish('news', 'a', 2);
    await eventually(clock, () => heard.every(h => h.news.length === 2));
    server.publish('news', 'a', 3);
    await eventually(clock, () => heard.every(h => h.news.length === 3));
    assert.deepEqual(heard.map(h => h.news), [[1, 2, 3], [1, 2, 3], [1, 2, 3]]);
    assert.deepEqual(heard.map(h => h.resyncs), [[], [], []]);
    assert.deepEqual(new Set((await flushed(handles)).map(i => `${i.mode} ${i.tabs} ${i.sockets}`)), new Set(['shared-worker 3 1']));
    assert.equal(server.open.length, 1);
});

scenario('workers that die again and again are done without', async () => {
    const { browser, server, clock, handles } = await opened('shared-worker', 3);
    const heard = listeners(handles);
    await flushed(handles);
    for (let i = 0; i < 3; i++) {
        await eventually(clock, () => browser.workers.size === 1 && server.open.length === 1);
        await flushed(handles);
        browser.killWorkers();
    }
    await eventually(clock, async () => (await flushed(handles)).every(info => info.mode === 'leader' && info.tabs === 3 && info.sockets === 1));
    await eventually(clock, () => server.last.of('resume').length > 0);
    server.publish('news', 'a', 1);
    await eventually(clock, () => heard.every(h => h.news.length === 1));
});

for (const how of ['loudly', 'silently']) {
    scenario(`a worker that does not start (${how}): a leader instead`, async () => {
        const browser = new Browser(), { server, clock } = browser;
        browser.brokenWorkers = how;
        const made = [browser.page().connect(), browser.page().connect()], began = clock.time;
        await eventually(clock, () => server.open.length === 1);
        assert.ok(how === 'silently' || clock.time - began < 5_000, 'it is not waited for');
        const handles = await Promise.all(made);
        await eventually(clock, async () => (await flushed(handles)).every(i => i.mode === 'leader' && i.tabs === 2));
        assert.equal(server.sockets.length, 1);
        });
}

scenario('no worker wanted: a leader; nothing shared: a socket each', async () => {
    const browser = new Browser(), { server, clock } = browser;
    const page = browser.page(), handles = [];
    for (const options of [{ worker: false }, { share: false }, {}]) handles.push(await page.connect(options));
    await eventually(clock, () => handles.every(c => c.state === 'open'));
    assert.deepEqual((await flushed(handles)).map(i => i.mode), ['leader', 'socket', 'shared-worker']);
    assert.equal(server.open.length, 3);
});

scenario('without locks each page has a socket, and signing out is for all', async () => {
    const browser = new Browser(), { server } = browser;
    browser.hasLocks = false;
    const handles = [await browser.page().connect({ token: jwt({ sub: 'a' }) }), await browser.page().connect({ token: jwt({ sub: 'a' }) }), await browser.page().connect({ token: jwt({ sub: 'b' }) })];
    await until(() => handles.every(c => c.state === 'open'));
    assert.equal(server.open.length, 3);
    handles[0].signOut();
    await until(() => handles[1].state === 'closed' && server.open.length === 1);
    await flushed([handles[2]]);
    assert.equal(handles[2].state, 'open');
});

scenario('pages of another URL have another connection', async () => {
    const browser = new Browser(), { server } = browser;
    const a = await browser.page().connect(), b = await browser.page().connect({ url: 'ws://else.test/ws' });
    await until(() => a.state === 'open' && b.state === 'open');
    assert.deepEqual(server.sockets.map(s => s.url), [URL_OF, 'ws://else.test/ws']);
});
