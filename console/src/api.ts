// Talks to the control plane that served this page. Holds the credential of this tab.

import type { Overview, Playback, Reason } from "./model";

const KEY = "nearcast-key";
/** A call that takes longer is given up. */
const CALL_MS_MAX = 5_000;

/** The page has no credential, or the control plane does not take it. */
export class CredentialError extends Error {}

/** The control plane refused the play, and says why. */
export class RefusedError extends Error {
  constructor(readonly reasons: Reason[]) {
    super(reasons.map((reason) => reason.message).join("; "));
  }
}

/** Takes `#key=...` out of the address, so that it is neither bookmarked nor shared. */
export function takeCredential(): void {
  const key = new URLSearchParams(location.hash.slice(1)).get("key");
  if (key) {
    sessionStorage.setItem(KEY, key);
    history.replaceState(null, "", location.pathname + location.search);
  }
}

export function hasCredential(): boolean {
  return sessionStorage.getItem(KEY) !== null;
}

export function setCredential(key: string | null): void {
  if (key === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, key.trim());
}

async function call(path: string, init: RequestInit = {}): Promise<Response> {
  const key = sessionStorage.getItem(KEY);
  if (!key) throw new CredentialError("no credential");
  const response = await fetch(path, {
    ...init,
    headers: { ...init.headers, Authorization: `Bearer ${key}` },
    signal: AbortSignal.timeout(CALL_MS_MAX),
  });
  if (response.status === 401) throw new CredentialError("the control plane does not know this credential");
  return response;
}

async function failure(response: Response): Promise<Error> {
  const body: { reasons?: Reason[]; message?: string } = await response.json().catch(() => ({}));
  if (response.status === 403 && body.reasons) return new RefusedError(body.reasons);
  return new Error(body.message ?? `the control plane answered ${response.status}`);
}

export async function overview(): Promise<Overview> {
  const response = await call("/v1/overview");
  if (!response.ok) throw await failure(response);
  return response.json();
}

/** Asks for a play. Throws [`RefusedError`] with every reason if it may not be. */
export async function startPlayback(title: string, profile: string): Promise<Playback> {
  const response = await call("/v1/playback", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ title, profile, device: "console" }),
  });
  if (!response.ok) throw await failure(response);
  return response.json();
}
