// How a page in TypeScript uses the client; it must compile, and where it says so must not.
import { connect, type Change, type Connection, type Info, type State, type Why } from '../../src/web/client/provost.js';
import { ProvostProvider, useConnectionState, useEvent, useLive, useProvost } from '../../src/web/client/provost-react.js';

interface Course {
    id: string;
    title: string;
}

export async function plain(): Promise<void> {
    const c: Connection = await connect({ url: '/ws', token: async reason => (reason === 'refused' ? null : 'token'), worker: false });
    await connect();
    await connect({ token: 'text', subject: 'me', url: new URL('wss://host.test/ws'), share: true, tokenTimeout: 5_000 });
    const stop: () => void = c.onState((state: State, why: Why) => void [state, why.code, why.reason, why.retry]);
    stop();
    c.subscribe<Course[]>('/api/admin/courses', (courses, { path, etag }) => void [courses[0]?.title, path, etag], {
        onError: problem => void [problem.code, problem.message, problem.path, problem.live],
    });
    c.on('table:course', 'change', (change, event) => {
        const keys: string[] | null = change.keys;
        const op: Change['op'] = change.op;
        return [keys, op, event.seq];
    });
    c.on<{ amount: number }>('user:u', 'paid', async (data, { nid, room, name }) => void [data.amount, nid, room, name]);
    c.onResync(({ rooms, paths }) => void [...rooms, ...paths]);
    const info: Info = await c.info();
    const mode: 'shared-worker' | 'leader' | 'socket' = info.mode;
    void [mode, info.tabs, info.sockets, c.state, c.why.code, c.url, c.subject];
    c.release();
    c.signOut();

    // @ts-expect-error: a number is no token
    await connect({ token: 5 });
    // @ts-expect-error: there is no such option
    await connect({ urls: '/ws' });
    // @ts-expect-error: a callback is needed
    c.subscribe('/api/a');
    // @ts-expect-error: states cannot be set
    c.state = 'open';
    // @ts-expect-error: no such state
    if (c.state === 'opened') c.release();
    c.subscribe<Course>('/api/a', course => {
        // @ts-expect-error: no such member
        void course.name;
    });
}

function Courses(): JSX.Element | null {
    const { data, error } = useLive<Course[]>('/api/admin/courses');
    const c = useProvost(), state: State = useConnectionState();
    const last = useEvent('table:course', 'change');
    useEvent<{ title: string }>('user:u', 'note', (note, event) => void [note.title, event.nid]);
    useLive(null);
    // @ts-expect-error: there may be none
    c.release();
    // @ts-expect-error: there may be none yet
    void data[0];
    if (error) return <p>{error.message}</p>;
    return <ul title={`${state} ${last?.data.op}`}>{data?.map(course => <li key={course.id}>{course.title}</li>)}</ul>;
}

export const page = (
    <ProvostProvider url="/ws" token={() => 'token'}>
        <Courses />
    </ProvostProvider>
);
