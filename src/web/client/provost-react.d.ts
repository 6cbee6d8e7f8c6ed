// Types of provost-react.js.
import type { ReactNode, FunctionComponent } from 'react';
import type { Body, Change, Connection, Options, Problem, RoomEvent, State } from './provost.js';

export interface ProvostProviderProps extends Options {
    /** Instead of options: one that the page has made itself, and releases itself. */
    connection?: Connection;
    children?: ReactNode;
}

export const ProvostProvider: FunctionComponent<ProvostProviderProps>;

/** The connection, null until there is one. */
export function useProvost(): Connection | null;

/** 'connecting' until there is a connection. */
export function useConnectionState(): State;

export interface Live<T> {
    /** undefined until the first has come. */
    data: T | undefined;
    etag: string | undefined;
    /** The last problem, until a body has come again. */
    error: Problem | null;
}

/** A path's body, now and whenever it is another. null: none. */
export function useLive<T = any>(path: string | null | undefined): Live<T>;

/** Calls back for each event, or, without a callback, returns the last. */
export function useEvent(room: string | null | undefined, name: 'change', cb?: (data: Change, event: RoomEvent) => unknown): { data: Change; event: RoomEvent } | null;
export function useEvent<T = any>(room: string | null | undefined, name: string, cb?: (data: T, event: RoomEvent) => unknown): { data: T; event: RoomEvent } | null;
export type { Body };
