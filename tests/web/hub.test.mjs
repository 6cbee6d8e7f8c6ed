// What all pages share, without pages: what only an unlucky order of things shows.
import assert from 'node:assert/strict';
import { Hub } from '../../src/web/client/provost-hub.js';
import { Clock, scenario, Server, settle } from './support.mjs';

function made() {
    const server = new Server(), clock = new Clock(), told = [];
    const env = {
        now: () => clock.time, random: () => 0.5, report: assert.fail, uuid: () => 'hub', socket: server.socket,
        setTimeout: (f, ms) => clock.set(f, ms), clearTimeout: id => clock.clear(id),
    };
    const ended = [], hub = new Hub({ mode: 'leader', env, living: async () => [], over: why => ended.push(why) });
    const attach = (tab, more = {}) => hub.attach({
        t: 'attach', tab, url: 'ws://host.test/ws', rooms: ['user:u'], paths: [], done: [], mark: null, visible: true, patience: 1000, ...more,
    }, m => {
        told.push([tab, m]);
        if (m.t === 'ask') setImmediate(() => hub.receive({ t: 'token', tab, ask: m.ask }));
    });
    return { server, clock, hub, told, ended, attach };
}

scenario('what a page has taken counts although the page is gone', async () => {
    const { server, clock, hub, attach } = made();
    attach('a');
    attach('b', { rooms: [] });
    await clock.advance(0);
    server.notify(1, 'x');
    hub.detach('a');
    hub.receive({ t: 'did', tab: 'a', nid: 1 });
    await clock.advance(20);
    assert.deepEqual(server.acked, [1]);
});

scenario('a page that signs out and is gone signs out all', async () => {
    const { server, clock, hub, attach, told, ended } = made();
    attach('a');
    attach('b');
    await clock.advance(0);
    hub.detach('a');
    hub.receive({ t: 'signout', tab: 'a' });
    assert.deepEqual(told.at(-1), ['b', { t: 'state', state: 'closed', why: { code: 1000, reason: 'signed out' } }]);
    assert.equal(ended.length, 1);
    assert.equal(server.open.length, 0);
});

scenario('what a page says that was never there, or not any more, is nothing', async () => {
    const { clock, hub, attach } = made();
    attach('a');
    await clock.advance(0);
    for (const t of ['listen', 'leave', 'subscribe', 'unsubscribe', 'info', 'page', 'token', 'bye', 'what'])
        hub.receive({ t, tab: 'b', room: 'r', path: '/p', ask: 1 });
    assert.equal(hub.tabs.size, 1);
    assert.deepEqual([...hub.core.rooms.keys()], ['user:u']);
});

scenario('a page of the former hub that comes too late is told to look anew', async () => {
    const { clock, hub, attach, told, server } = made();
    attach('a', { rooms: ['news'], mark: { n: 3, life: 'old', session: 'none', seq: 50 } });
    await clock.advance(0);
    server.publish('news', 'a', 1);
    const now = hub.core.session;
    attach('b', { rooms: ['news'], mark: { ...now, seq: now.seq - 1 } });
    await settle();
    assert.deepEqual(told.filter(([, m]) => m.t === 'resync').slice(1).map(([tab, m]) => [tab, m.what]), [['b', { rooms: ['news'], paths: [] }]]);
    told.length = 0;
    attach('c', { rooms: ['news'], mark: { ...now } });
    await settle();
    assert.deepEqual(told.filter(([, m]) => m.t === 'resync'), []);
});

scenario('pages of different connections: the last one is taken up, the others look anew', async () => {
    const { server, clock, hub, attach, told } = made();
    hub.living = async () => ['a', 'b', 'c'];
    attach('a', { rooms: ['one'], mark: { n: 2, life: 'former', session: 's2', seq: 500 } });
    attach('b', { rooms: ['two'], mark: { n: 5, life: 'present', session: 's5', seq: 40 } });
    await settle();
    assert.equal(server.sockets.length, 0, 'all are waited for');
    attach('c', { rooms: ['three'], mark: { n: 4, life: 'present', session: 's4', seq: 30 } });
    const former = { rooms: new Set(['one', 'two', 'three']), socket: { fail() {} } };
    server.sessions.set('s5', former);
    await clock.advance(0);
    assert.deepEqual(server.last.of('resume').map(m => [m.session, m.seq]), [['s5', 30]]);
    assert.deepEqual(told.filter(([tab, m]) => tab === 'a' && m.t === 'resync').map(([, m]) => m.what), [{ rooms: ['one'], paths: [] }]);
});

scenario('a page that does not come is not waited for for ever', async () => {
    const { server, clock, hub, attach } = made();
    hub.living = async () => ['a', 'frozen'];
    attach('a');
    await clock.advance(2_999);
    assert.equal(server.sockets.length, 0);
    await clock.advance(1);
    assert.equal(server.sockets.length, 1);
});

scenario('a page that comes too late while nobody has connected yet is told to look anew', async () => {
    const { server, clock, hub, attach, told } = made();
    hub.living = async () => ['a', 'b'];
    server.auto = false;
    attach('a', { rooms: ['news'] });
    await clock.advance(3_000);
    attach('b', { rooms: ['news'], mark: { n: 3, life: 'former', session: 's3', seq: 50 } });
    server.auto = true;
    server.last.accept();
    await clock.advance(0);
    assert.deepEqual(told.filter(([tab, m]) => tab === 'b' && m.t === 'resync').map(([, m]) => m.what), [{ rooms: ['news'], paths: [] }]);
});

scenario('what a late page took of the former hub is acknowledged, though it has come again', async () => {
    const { server, clock, hub, attach, told } = made();
    attach('a');
    await clock.advance(0);
    server.notify(7, 'x');
    assert.equal(hub.pending.size, 1);
    attach('b', { done: [7] });
    await clock.advance(100);
    assert.deepEqual([server.acked, hub.pending.size], [[7], 0]);
    assert.deepEqual(told.filter(([, m]) => m.t === 'done'), [['a', { t: 'done', nid: 7 }]]);
    assert.ok(!told.some(([tab, m]) => tab === 'b' && m.t === 'event'));
});

scenario('what was taken just before signing out is acknowledged', async () => {
    const { server, clock, hub, attach } = made();
    attach('a');
    await clock.advance(0);
    server.notify(1, 'x');
    hub.receive({ t: 'did', tab: 'a', nid: 1 });
    hub.receive({ t: 'signout', tab: 'a' });
    assert.deepEqual(server.last.of('ack').map(m => m.ids), [[1]]);
    assert.equal(server.open.length, 0);
});
