// The hooks, with React as a page has it.
import assert from 'node:assert/strict';
import { webcrypto } from 'node:crypto';
import { Browser, jwt, scenario, Server, settle, spy, until } from './support.mjs';

globalThis.IS_REACT_ACT_ENVIRONMENT = true;
globalThis.crypto ??= webcrypto;

async function loaded() {
    const React = (await import('react')).default, { act, create } = (await import('react-test-renderer')).default;
    const hooks = await import('../../src/web/client/provost-react.js');
    const mount = async element => {
        let root;
        await act(async () => {
            root = create(element);
        });
        return root;
    };
    return { React, h: React.createElement, act, mount, ...hooks };
}

async function connected() {
    const browser = new Browser(), c = await browser.page().connect({ share: false });
    await browser.clock.advance(0);
    return { browser, server: browser.server, clock: browser.clock, c };
}

scenario('useLive: a body, the next, another path, a problem, the end', async () => {
    const { React, h, act, mount, ProvostProvider, useLive } = await loaded(), { server, clock, c } = await connected();
    const drawn = [];
    function Show({ path }) {
        const { data, etag, error } = useLive(path);
        drawn.push([path, data, etag, error?.code]);
        return null;
    }
    const page = path => h(ProvostProvider, { connection: c }, h(Show, { path }));
    server.put('/api/a', { n: 1 }, 'e1');
    server.put('/api/b', { n: 5 }, 'f1');
    server.refuses.set('/api/no', 4404);
    const root = await mount(page('/api/a'));
    assert.deepEqual(drawn[0], ['/api/a', undefined, undefined, undefined]);
    await act(() => clock.advance(0));
    assert.deepEqual(drawn.at(-1), ['/api/a', { n: 1 }, 'e1', undefined]);
    await act(async () => {
        server.put('/api/a', { n: 2 }, 'e2');
        await settle();
    });
    assert.deepEqual(drawn.at(-1), ['/api/a', { n: 2 }, 'e2', undefined]);
    const before = drawn.length;
    await act(() => root.update(page('/api/b')));
    await act(() => clock.advance(0));
    assert.deepEqual(drawn.slice(before).filter(([path, data]) => path === '/api/b' && data?.n === 2), [], 'what is another’s is not shown');
    assert.deepEqual(drawn.at(-1), ['/api/b', { n: 5 }, 'f1', undefined]);
    await act(() => root.update(page('/api/no')));
    await act(() => clock.advance(0));
    assert.deepEqual(drawn.at(-1), ['/api/no', undefined, undefined, 4404]);
    await act(() => root.update(page(null)));
    assert.deepEqual(drawn.at(-1), [null, undefined, undefined, undefined]);
    await act(() => root.unmount());
    await clock.advance(2_000);
    assert.deepEqual(server.last.of('unsubscribe').map(m => m.path).sort(), ['/api/a', '/api/b', '/api/no']);
    assert.equal(c.state, 'open', 'a connection that was given is not released');
    assert.ok(React.version.startsWith('18'));
});

scenario('useLive: two components of one path are one subscription', async () => {
    const { h, act, mount, ProvostProvider, useLive } = await loaded(), { server, clock, c } = await connected();
    const Show = () => JSON.stringify(useLive('/api/a').data ?? null);
    server.put('/api/a', { n: 1 }, 'e1');
    const root = await mount(h(ProvostProvider, { connection: c }, h(Show, { key: 1 }), h(Show, { key: 2 })));
    await act(() => clock.advance(0));
    assert.deepEqual(root.toJSON(), ['{"n":1}', '{"n":1}']);
    assert.equal(server.last.of('subscribe').length, 1);
});

scenario('what one connection has told is not shown for another', async () => {
    const { h, act, mount, ProvostProvider, useLive, useEvent } = await loaded(), drawn = [];
    const ada = await connected(), bob = await connected();
    function Show() {
        drawn.push([useLive('/api/mine').data, useEvent('news', '*')?.data]);
        return null;
    }
    const page = of => h(ProvostProvider, { connection: of.c }, h(Show));
    ada.server.put('/api/mine', 'ada’s', 'e1');
    const root = await mount(page(ada));
    await act(() => ada.clock.advance(0));
    await act(async () => {
        ada.server.publish('news', 'a', 'for ada');
        await settle();
    });
    assert.deepEqual(drawn.at(-1), ['ada’s', 'for ada']);
    const before = drawn.length;
    await act(() => root.update(page(bob)));
    await act(() => bob.clock.advance(0));
    assert.ok(drawn.length > before);
    for (const seen of drawn.slice(before)) assert.deepEqual(seen, [undefined, undefined]);
    bob.server.put('/api/mine', 'bob’s', 'e1');
    await act(() => settle());
    assert.deepEqual(drawn.at(-1), ['bob’s', undefined]);
});

scenario('useEvent: the latest callback is called, and waited for', async () => {
    const { h, act, mount, ProvostProvider, useEvent } = await loaded(), { server, clock, c } = await connected();
    const heard = [];
    let finish;
    function Listen({ tag }) {
        useEvent('user:u', 'note', data => {
            heard.push([tag, data]);
            return new Promise(resolve => (finish = resolve));
        });
        return null;
    }
    const page = tag => h(ProvostProvider, { connection: c }, h(Listen, { tag }));
    const root = await mount(page('one'));
    await act(() => clock.advance(0));
    await act(() => root.update(page('two')));
    assert.equal(server.last.of('join').length, 1, 'another callback is not another subscription');
    server.notify(1, 'a');
    await act(() => clock.advance(1_000));
    assert.deepEqual([heard, server.acked], [[['two', 'a']], []]);
    finish();
    await act(() => clock.advance(20));
    assert.deepEqual(server.acked, [1]);
});

scenario('useEvent without a callback gives the last', async () => {
    const { h, act, mount, ProvostProvider, useEvent } = await loaded(), { server, clock, c } = await connected();
    const Show = ({ room }) => JSON.stringify(useEvent(room, 'change')?.data?.keys ?? null);
    const page = room => h(ProvostProvider, { connection: c }, h(Show, { room }));
    const root = await mount(page('table:course'));
    await act(() => clock.advance(0));
    assert.equal(root.toJSON(), 'null');
    await act(async () => {
        server.change('course', ['c1']);
        server.change('course', ['c2']);
        await settle();
    });
    assert.equal(root.toJSON(), '["c2"]');
    await act(() => root.update(page('table:user')));
    assert.equal(root.toJSON(), 'null');
});

scenario('useConnectionState', async () => {
    const { h, act, mount, ProvostProvider, useConnectionState } = await loaded(), { server, clock, c } = await connected();
    const Show = () => useConnectionState();
    const root = await mount(h(ProvostProvider, { connection: c }, h(Show)));
    assert.equal(root.toJSON(), 'open');
    await act(async () => {
        server.last.fail(1006);
        await settle();
    });
    assert.equal(root.toJSON(), 'waiting');
    await act(() => clock.advance(c.why.retry));
    assert.equal(root.toJSON(), 'open');
});

scenario('the provider connects once, however often it is drawn, and releases', async () => {
    const { React, h, act, mount, ProvostProvider, useProvost } = await loaded(), server = new Server();
    globalThis.WebSocket = function WebSocket(url) {
        return server.socket(url);
    };
    server.wantsToken = true;
    const seen = new Set(), asked = spy();
    function Show() {
        const c = useProvost();
        seen.add(c);
        return c ? c.subject : 'none';
    }
    const page = n => h(React.StrictMode, null, h(ProvostProvider, {
        url: 'ws://host.test/ws', share: false, token: () => {
            asked(n);
            return jwt({ sub: 'u', n });
        },
    }, h(Show)));
    const root = await mount(page(1));
    assert.equal(root.toJSON(), 'u');
    for (let n = 2; n < 5; n++) await act(() => root.update(page(n)));
    await until(() => server.open.length === 1 && server.last.session);
    assert.equal(server.sockets.length, 1, 'also when StrictMode mounts twice');
    server.last.fail(1006);
    await until(() => server.sockets.length === 2 && server.last.token);
    assert.equal(server.last.token, jwt({ sub: 'u', n: 4 }), 'the latest provider is asked');
    await act(() => root.unmount());
    await until(() => server.open.length === 0);
    assert.equal(server.sockets.length, 2);
});

scenario('a provider that fails at first is asked again, until the component is gone', async () => {
    const { h, act, mount, ProvostProvider, useProvost } = await loaded(), server = new Server(), said = [];
    globalThis.WebSocket = function WebSocket(url) {
        return server.socket(url);
    };
    globalThis.reportError = e => said.push(String(e));
    const random = Math.random;
    Math.random = () => 0.01;
    try {
        let fails = true;
        const asked = spy(() => (fails ? Promise.reject(new Error('offline')) : jwt({ sub: 'u' })));
        const Show = () => useProvost()?.subject ?? 'none';
        const page = token => h(ProvostProvider, { url: 'ws://host.test/ws', share: false, token }, h(Show));
        const root = await mount(page(asked));
        await until(() => asked.calls.length >= 3);
        assert.deepEqual(said, ['Error: offline'], 'reported once');
        fails = false;
        await act(() => until(() => server.open.length));
        await until(() => root.toJSON() === 'u');
        await act(() => root.unmount());
        fails = true;
        const gone = await mount(page(asked));
        await act(() => gone.unmount());
        const n = asked.calls.length, after = spy(() => Promise.reject(new Error('offline')));
        const other = await mount(page(after));
        await until(() => after.calls.length >= 4, 'longer than the first would have waited');
        await act(() => other.unmount());
        assert.equal(asked.calls.length, n);
    } finally {
        Math.random = random;
        delete globalThis.reportError;
    }
});

scenario('drawn on a server there is no connection, and no error', async () => {
    const { h, ProvostProvider, useLive, useEvent, useConnectionState } = await loaded();
    const { renderToString } = (await import('react-dom/server')).default;
    const Show = () => `${useConnectionState()} ${useLive('/api/a').data} ${useEvent('news', '*')}`;
    assert.equal(renderToString(h(ProvostProvider, {}, h(Show))), 'connecting undefined null');
});
