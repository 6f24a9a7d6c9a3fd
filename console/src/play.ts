// One play, from the request to the stop: playback answer, transport, player, measurements
// and events. The page only shows what this says.

import { startPlayback } from "./api";
import { type EventCounts, PlayEvents } from "./events";
import type { EventKind, Playback } from "./model";
import { cacheStatus, type Kind, name } from "./path";
import { createPlayer, NO_TRACKS, type Player, type PlayerKind, PLAYERS, type Tracks } from "./players/player";
import { type Qoe, watch } from "./qoe";
import { whenProtocolIsKnown } from "./timing";
import { type Edge, EdgeTransport, type Failover, type Fetched } from "./transport";

/** Responses that the page remembers. */
const SEGMENTS_MAX = 400;
const PROGRESS_MS = 10_000;

export interface Segment {
  /** Counts the responses of this play. */
  n: number;
  kind: Kind;
  track: string;
  number: number | null;
  bytes: number;
  status: number;
  firstByteMs: number;
  totalMs: number;
  edge: string;
  protocol: string | null;
  verdict: string | null;
}

export interface Options {
  title: string;
  profile: string;
  player: PlayerKind;
  scheme: "http" | "https";
}

export class Play {
  playback: Playback | null = null;
  version = "";
  readonly segments: Segment[] = [];
  readonly failovers: Failover[] = [];
  readonly fatal: string[] = [];
  bytes = 0;
  edge: string | null = null;
  qoe: Qoe = { startMs: null, rebuffers: 0, rebufferMs: 0, watchedMs: 0 };
  ended = false;

  private count = 0;
  private player: Player | null = null;
  private events: PlayEvents | null = null;
  private readonly over = new AbortController();
  private progressTimer: ReturnType<typeof setInterval> | undefined;

  constructor(
    readonly options: Options,
    private readonly video: HTMLVideoElement,
  ) {}

  /** Starts playing. Throws `RefusedError` if the control plane says no. */
  async start(): Promise<void> {
    const requestedAt = performance.now();
    const { title, profile, player: kind, scheme } = this.options;
    const playback = await startPlayback(title, profile);
    this.playback = playback;
    const edges = reachable(playback, scheme);
    if (edges.length === 0) throw new Error(`no edge offers ${scheme}`);
    const transport = new EdgeTransport(edges, {
      onFetched: (fetched) => this.note(fetched),
      onFailover: (failover) => this.failovers.push(failover),
    });
    this.events = new PlayEvents("/v1/events", playback.token);
    const signal = this.over.signal;
    this.qoe = watch(
      this.video,
      requestedAt,
      {
        onStart: (startMs) => this.tell("start", startMs),
        onRebuffer: (waitedMs) => this.tell("rebuffer", waitedMs),
        onEnded: () => this.tellStop(),
      },
      signal,
    );
    const player = await createPlayer(kind, {
      video: this.video,
      transport,
      onFatal: (message) => this.fatal.push(message),
    });
    if (signal.aborted) return player.destroy();
    this.player = player;
    this.version = player.version;
    addEventListener("pagehide", () => this.leavePage(), { signal });
    this.progressTimer = setInterval(() => {
      if (this.qoe.startMs !== null && !this.video.paused && !this.ended) this.tell("progress");
    }, PROGRESS_MS);
    const format = PLAYERS.find((each) => each.kind === kind)!.format;
    await player.load(edges[0]!.origin + new URL(playback[format][0]!).pathname);
    // Refused where the browser wants a gesture: then the viewer presses play.
    await this.video.play().catch(() => undefined);
  }

  async stop(): Promise<void> {
    this.tellStop();
    this.over.abort();
    clearInterval(this.progressTimer);
    const player = this.player;
    this.player = null;
    await player?.destroy().catch(() => undefined);
  }

  tracks(): Tracks {
    return this.player?.tracks() ?? NO_TRACKS;
  }

  selectRendition(id: string | null): void {
    this.player?.selectRendition(id);
  }

  selectAudio(id: string): void {
    this.player?.selectAudio(id);
  }

  selectText(id: string | null): void {
    this.player?.selectText(id);
  }

  get eventCounts(): EventCounts {
    return this.events?.counts ?? { queued: 0, acknowledged: 0, dropped: 0 };
  }

  /** Seconds buffered ahead of the position. */
  bufferAhead(): number {
    const { buffered, currentTime } = this.video;
    for (let i = 0; i < buffered.length; i++) {
      if (buffered.start(i) <= currentTime + 0.1 && currentTime < buffered.end(i)) return buffered.end(i) - currentTime;
    }
    return 0;
  }

  private note(fetched: Fetched): void {
    const { kind, track, number } = name(fetched.url);
    const { edge, verdict } = cacheStatus(fetched.headers.get("Cache-Status"));
    const segment: Segment = {
      n: this.count++,
      kind,
      track,
      number,
      bytes: fetched.body.byteLength,
      status: fetched.status,
      firstByteMs: fetched.firstByteAt - fetched.startedAt,
      totalMs: fetched.endedAt - fetched.startedAt,
      edge: edge ?? fetched.edge?.id ?? "control plane",
      protocol: null,
      verdict,
    };
    whenProtocolIsKnown(fetched.url, (protocol) => {
      segment.protocol = protocol;
    });
    this.segments.push(segment);
    if (this.segments.length > SEGMENTS_MAX) this.segments.shift();
    if (fetched.status > 299 || !isMedia(kind)) return;
    this.bytes += segment.bytes;
    this.edge = fetched.edge?.id ?? this.edge;
  }

  private tell(kind: EventKind, waitedMs?: number): void {
    this.events?.add(kind, {
      position_ms: this.video.currentTime * 1000,
      watched_ms: this.qoe.watchedMs,
      bytes: this.bytes,
      ...(waitedMs === undefined ? {} : { waited_ms: waitedMs }),
      ...(this.edge === null ? {} : { edge: this.edge }),
    });
  }

  /** Ended or left: told once, and only of a play that began. */
  private tellStop(): void {
    if (this.ended || this.qoe.startMs === null) return;
    this.ended = true;
    this.tell("stop");
  }

  private leavePage(): void {
    this.tellStop();
    this.events?.flush();
  }
}

export function isMedia(kind: Kind): boolean {
  return kind === "segment" || kind === "init" || kind === "text";
}

/** The ranked edges that offer the scheme, with their first URL of it. */
function reachable(playback: Playback, scheme: string): Edge[] {
  return playback.edges.flatMap(({ id, urls }) => {
    const origin = urls.find((url) => url.startsWith(`${scheme}://`));
    return origin === undefined ? [] : [{ id, origin }];
  });
}
