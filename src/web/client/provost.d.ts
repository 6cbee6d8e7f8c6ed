// Types of provost.js; docs/CLIENT.md tells what is behind them.

export type State = 'connecting' | 'open' | 'waiting' | 'closed';

/** Why the state is what it is. */
export interface Why {
    /** Of the close (docs/WEBSOCKET.md), 1006 when the connection was lost; absent while all is well. */
    code?: number;
    reason?: string;
    /** Milliseconds until the next attempt, while waiting. */
    retry?: number;
}

/** What a token is asked for: `refused` when the server did not take the last one. */
export type TokenReason = 'connect' | 'renew' | 'refused';
export type Token = string | null | undefined;
export type TokenProvider = (reason: TokenReason) => Token | PromiseLike<Token>;

export interface Options {
    /** Of the WebSocket: absolute, or relative to the page. Default: /ws of the server that the script came from. */
    url?: string | URL;
    /** Asked at every attempt, before the token expires, and when it was refused. Absent: the session cookie says who it is. */
    token?: string | TokenProvider;
    /** Whose connection it is, where no token says so by its `sub`: pages of equal subjects share one. */
    subject?: string;
    /** false: no SharedWorker. */
    worker?: boolean;
    /** false: a socket of this page's own. */
    share?: boolean;
    /** How long a page may take to answer with a token, in milliseconds; then the next is asked. Default 10000. */
    tokenTimeout?: number;
}

/** A problem with a room or a path; `code` is 4000 + the status that HTTP would have had. */
export interface Problem {
    code: number;
    message: string;
    room?: string;
    path?: string;
    /** Whether the subscription stands in spite of it. */
    live?: boolean;
}

export interface Body {
    path: string;
    etag?: string;
    /** The database is away: this is what was known last. */
    stale?: boolean;
}

export interface RoomEvent {
    room: string;
    name: string;
    seq?: number;
    /** Of a durable event: no other has it. */
    nid?: number | string;
}

/** The data of a `change`, in a table's room. */
export interface Change {
    table: string;
    op: 'INSERT' | 'UPDATE' | 'DELETE' | 'TRUNCATE';
    /** Primary keys; null: any row may have changed. */
    keys: string[] | null;
}

export interface Resync {
    rooms: string[];
    paths: string[];
}

export interface Info {
    mode: 'shared-worker' | 'leader' | 'socket';
    /** Pages that share the connection. */
    tabs: number;
    /** Open now, of them all. */
    sockets: number;
    state: State;
    url: string;
    subject: string;
    /** Whether the connection lives in this very page. */
    here: boolean;
    rooms: number;
    paths: number;
    /** Durable events that nobody has taken yet. */
    pending: number;
    /** Acknowledgements that the server has not confirmed yet. */
    acks: number;
    /** Sockets opened since the connection came to be where it is. */
    attempts: number;
}

export type Stop = () => void;

export interface ListenOptions {
    onError?: (problem: Problem) => void;
}

/** A handle of the one connection. */
export interface Connection {
    readonly state: State;
    readonly why: Why;
    readonly url: string;
    readonly subject: string;
    onState(cb: (state: State, why: Why) => void): Stop;
    /** The body of a GET path, now and whenever it is another. It is shared: do not change it. */
    subscribe<T = any>(path: string, cb: (body: T, about: Body) => void, options?: ListenOptions): Stop;
    /** Events of a room; `change` in a table's room, `*` for all. A durable event is acknowledged once all callbacks of
     *  a page have returned: also what they promise. */
    on(room: string, name: 'change', cb: (data: Change, event: RoomEvent) => unknown, options?: ListenOptions): Stop;
    on<T = any>(room: string, name: string, cb: (data: T, event: RoomEvent) => unknown, options?: ListenOptions): Stop;
    /** Something may have been missed in these rooms. The paths are sent anew without any doing. */
    onResync(cb: (what: Resync) => void): Stop;
    info(): Promise<Info>;
    /** Gives this handle back, and all that was listened to with it. */
    release(): void;
    /** Closes the connection of this subject in all pages. */
    signOut(): void;
}

/** A handle of the connection of this URL and subject. Rejected when who it is cannot be learnt, or on a bad option;
 *  that the server cannot be reached is a state, not a rejection. */
export function connect(options?: Options): Promise<Connection>;
