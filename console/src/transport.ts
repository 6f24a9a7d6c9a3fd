// How every byte of a play is fetched, whichever player asks for it.
//
// All URLs in manifests are relative, so the hosts of a title are interchangeable: a request
// goes to the edge that its URL names while that edge answers, and else to the next in the
// ranked list. An edge that gives no first byte in time, stalls or fails is left for the rest
// of the play (until all are left: then each gets another chance). Players see no failure
// unless every edge fails. Knows nothing of players, pages or the control plane.

/** An edge without a first byte after this is left. */
export const FIRST_BYTE_MS_MAX = 2_000;
/** A body that brings no byte for this long counts as failed. */
export const STALL_MS_MAX = 4_000;

export interface Edge {
  id: string;
  /** `http://127.0.0.2:8080`, no trailing slash. */
  origin: string;
}

export interface Request {
  url: string;
  headers?: Record<string, string>;
  method?: string;
  signal?: AbortSignal;
  onHeaders?: (headers: Headers) => void;
  onProgress?: (loaded: number, total: number | null) => void;
}

export interface Fetched {
  /** The URL that answered: relative URLs in a manifest resolve against it. */
  url: string;
  edge: Edge | null;
  status: number;
  headers: Headers;
  body: Uint8Array<ArrayBuffer>;
  /** By `performance.now()`. */
  startedAt: number;
  firstByteAt: number;
  endedAt: number;
}

export type Fault = "timeout" | "network" | "status";

/** No edge could answer; `status` is 0 unless one answered with an error. */
export class TransportError extends Error {
  constructor(readonly fault: Fault, readonly status: number, message: string) {
    super(message);
  }
}

export interface Failover {
  from: string;
  to: string | null;
  cause: string;
  at: number;
}

interface Observer {
  onFetched?: (fetched: Fetched) => void;
  onFailover?: (failover: Failover) => void;
}

interface Limits {
  firstByteMs: number;
  stallMs: number;
}

/** Why an attempt ended early. */
class Left extends Error {}

export class EdgeTransport {
  private readonly left = new Set<Edge>();
  /** Requests that wait for their first byte, by edge. */
  private readonly waiting = new Map<Edge, Set<AbortController>>();

  constructor(
    private readonly edges: readonly Edge[],
    private readonly observer: Observer = {},
    private readonly limits: Limits = { firstByteMs: FIRST_BYTE_MS_MAX, stallMs: STALL_MS_MAX },
  ) {}

  /**
   * Fetches `request.url` whole from the best edge that answers. Status 4xx is returned: every
   * edge would say the same. Throws [`TransportError`], or the signal's reason when aborted.
   */
  async fetch(request: Request): Promise<Fetched> {
    const named = this.edges.find((edge) => request.url.startsWith(`${edge.origin}/`));
    if (!named) return this.attempt(request, null, request.url);
    const below = request.url.slice(named.origin.length);
    const tried = new Set<Edge>();
    let last: unknown;
    for (let edge = this.choose(named, tried); edge; edge = this.choose(named, tried)) {
      tried.add(edge);
      try {
        return await this.attempt(request, edge, edge.origin + below);
      } catch (error) {
        if (request.signal?.aborted) throw request.signal.reason;
        last = error;
        this.leave(edge, error);
      }
    }
    throw last instanceof TransportError ? last : new TransportError("network", 0, `no edge answers: ${String(last)}`);
  }

  /** The edge that a URL's edge is replaced by, of those that this request has not tried. */
  private choose(named: Edge, tried: Set<Edge>): Edge | undefined {
    if (tried.size === 0 && this.edges.every((edge) => this.left.has(edge))) this.left.clear();
    const order = [named, ...this.edges.filter((edge) => edge !== named)].filter((edge) => !tried.has(edge));
    return order.find((edge) => !this.left.has(edge)) ?? order[0];
  }

  private leave(edge: Edge, error: unknown): void {
    if (error instanceof Left || this.left.has(edge)) return;
    this.left.add(edge);
    const next = this.edges.find((other) => !this.left.has(other));
    this.observer.onFailover?.({
      from: edge.id,
      to: next?.id ?? null,
      cause: error instanceof Error ? error.message : String(error),
      at: performance.now(),
    });
    // Others that still wait on it would only find out later.
    for (const controller of this.waiting.get(edge) ?? []) controller.abort(new Left(`${edge.id} was left`));
  }

  private async attempt(request: Request, edge: Edge | null, url: string): Promise<Fetched> {
    const controller = new AbortController();
    const passOn = () => controller.abort(request.signal?.reason);
    if (request.signal?.aborted) passOn();
    request.signal?.addEventListener("abort", passOn);
    const who = edge?.id ?? new URL(url).host;
    let timer = this.limit(controller, this.limits.firstByteMs, `${who}: no first byte`);
    const done = this.wait(edge, controller);
    try {
      const startedAt = performance.now();
      const response = await fetch(url, {
        method: request.method ?? "GET",
        headers: request.headers ?? {},
        signal: controller.signal,
      });
      const firstByteAt = performance.now();
      clearTimeout(timer);
      done();
      if (response.status >= 500 || response.status === 429) {
        void response.body?.cancel().catch(() => undefined);
        throw new TransportError("status", response.status, `${who}: status ${response.status}`);
      }
      request.onHeaders?.(response.headers);
      const restart = () => {
        clearTimeout(timer);
        timer = this.limit(controller, this.limits.stallMs, `${who}: the body stalled`);
      };
      const body = await readBody(response, restart, request.onProgress);
      const endedAt = performance.now();
      const fetched = { url, edge, status: response.status, headers: response.headers, body, startedAt, firstByteAt, endedAt };
      this.observer.onFetched?.(fetched);
      return fetched;
    } catch (error) {
      if (controller.signal.aborted) throw controller.signal.reason;
      if (error instanceof TransportError) throw error;
      throw new TransportError("network", 0, `${who}: ${error instanceof Error ? error.message : String(error)}`);
    } finally {
      clearTimeout(timer);
      done();
      request.signal?.removeEventListener("abort", passOn);
    }
  }

  private limit(controller: AbortController, ms: number, what: string): ReturnType<typeof setTimeout> {
    return setTimeout(() => controller.abort(new TransportError("timeout", 0, `${what} in ${ms} ms`)), ms);
  }

  /** Notes that a request waits for its first byte; the answer ends that. */
  private wait(edge: Edge | null, controller: AbortController): () => void {
    if (!edge) return () => undefined;
    const set = this.waiting.get(edge) ?? new Set();
    this.waiting.set(edge, set.add(controller));
    return () => void set.delete(controller);
  }
}

/** Reads a body to its end. A body shorter than its Content-Length is a fault, never data. */
async function readBody(
  response: Response,
  onBytes: () => void,
  onProgress?: (loaded: number, total: number | null) => void,
): Promise<Uint8Array<ArrayBuffer>> {
  const header = response.headers.get("Content-Length");
  const encoded = response.headers.has("Content-Encoding");
  const total = header === null || encoded ? null : Number(header);
  const reader = response.body?.getReader();
  const parts: Uint8Array[] = [];
  let loaded = 0;
  onBytes();
  while (reader) {
    const { done, value } = await reader.read();
    if (done) break;
    onBytes();
    parts.push(value);
    loaded += value.byteLength;
    onProgress?.(loaded, total);
  }
  if (total !== null && loaded !== total) {
    throw new TransportError("network", 0, `the body ended after ${loaded} of ${total} bytes`);
  }
  const body = new Uint8Array(loaded);
  let at = 0;
  for (const part of parts) {
    body.set(part, at);
    at += part.byteLength;
  }
  return body;
}
