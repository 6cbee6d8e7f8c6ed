/**
 * provost-react: hooks on provost.js. React is the page's: `react` must resolve, by a bundler or an
 * import map.
 */
import { createContext, createElement, useContext, useEffect, useRef, useState, useSyncExternalStore } from 'react';
import { connect } from './provost.js';

const Context = createContext(null);
const nothing = () => () => {};
const BASE_MS = 500, CAP_MS = 30_000; // backoff

/** Connects while it is mounted, or hands on the `connection` it is given. */
export function ProvostProvider({ connection, children, url, token, subject, worker, share, tokenTimeout }) {
    const [own, setOwn] = useState(null);
    const latest = useRef(token);
    latest.current = token;
    const given = typeof token;
    useEffect(() => {
        if (connection) return undefined;
        let handle = null, gone = false, timer = null, failures = 0;
        /* A provider that is written anew with every rendering is no reason to connect anew. */
        const source = given === 'function' ? reason => latest.current(reason) : latest.current;
        const attempt = () => connect({ url, token: source, subject, worker, share, tokenTimeout }).then(h => {
            handle = h;
            if (gone) h.release();
            else setOwn(h);
        }, e => {
            if (gone) return;
            if (!failures) (globalThis.reportError ?? console.error)(e);
            timer = setTimeout(attempt, Math.random() * Math.min(CAP_MS, BASE_MS * 2 ** failures++));
        });
        attempt();
        return () => {
            gone = true;
            clearTimeout(timer);
            setOwn(null);
            handle?.release();
        };
    }, [connection, String(url ?? ''), given === 'string' ? token : given, subject, worker, share, tokenTimeout]);
    return createElement(Context.Provider, { value: connection ?? own }, children);
}

export const useProvost = () => useContext(Context);

export function useConnectionState() {
    const c = useProvost();
    const state = () => c?.state ?? 'connecting';
    return useSyncExternalStore(c ? cb => c.onState(cb) : nothing, state, state);
}

const EMPTY = { data: undefined, etag: undefined, error: null };

export function useLive(path) {
    const c = useProvost();
    const [live, setLive] = useState({ c, path, ...EMPTY });
    useEffect(() => {
        if (!c || path == null) return undefined;
        return c.subscribe(path, (data, { etag }) => setLive({ c, path, data, etag, error: null }), {
            onError: error => setLive(was => ({ ...(was.c === c && was.path === path ? was : { c, path, ...EMPTY }), error })),
        });
    }, [c, path]);
    /* What was of another path, or of another user, is not shown for this one, not even until the effect has run. */
    const { data, etag, error } = live.c === c && live.path === path ? live : EMPTY;
    return { data, etag, error };
}

export function useEvent(room, name, cb) {
    const c = useProvost();
    const [last, setLast] = useState(null);
    const latest = useRef(cb);
    latest.current = cb;
    useEffect(() => {
        if (!c || room == null) return undefined;
        const stop = c.on(room, name, (data, event) => {
            if (latest.current) return latest.current(data, event);
            setLast({ c, room, name, data, event });
            return undefined;
        });
        return stop;
    }, [c, room, name]);
    return last && last.c === c && last.room === room && last.name === name ? { data: last.data, event: last.event } : null;
}
