// Plays a title and shows where each of its bytes came from.

import { useEffect, useRef, useState } from "preact/hooks";
import { RefusedError } from "./api";
import { bits, bytes, plural } from "./format";
import type { Overview, Reason } from "./model";
import { isMedia, type Options, Play, type Segment } from "./play";
import { PLAYERS, type Rendition } from "./players/player";
import { Chip, Tile, verdictTone } from "./ui";

/** How often the page reads the player's state. */
const TICK_MS = 250;
const ROWS_MAX = 14;
const BARS_MAX = 60;

declare global {
  interface Window {
    /** The play of this page and what it measured, for tests and for the curious. */
    nearcast?: Record<string, unknown>;
  }
}

interface Props {
  overview: Overview;
  initialTitle: string | null;
}

interface Failure {
  message: string;
  reasons: Reason[];
}

export function PlayerPage({ overview, initialTitle }: Props) {
  const video = useRef<HTMLVideoElement>(null);
  const [options, setOptions] = useState<Options>({
    title: initialTitle ?? overview.titles[0]?.title ?? "",
    profile: overview.profiles[0] ?? "",
    player: "hlsjs",
    scheme: location.protocol === "https:" ? "https" : "http",
  });
  const { play, busy, failure, start, stop } = usePlay(video);
  useTick(play !== null);
  return (
    <main class="page player">
      <Controls
        overview={overview}
        options={options}
        setOptions={setOptions}
        playing={play !== null}
        busy={busy}
        onStart={() => void start(options)}
        onStop={() => void stop()}
      />
      {failure && <Refusal failure={failure} />}
      <div class="stage">
        <div class="screen">
          <video ref={video} controls playsInline data-testid="video" />
          {!play && <p class="curtain">Choose a title and press Play</p>}
        </div>
        <div class="side">
          <Pickers play={play} />
          <Figures play={play} />
        </div>
      </div>
      <Trace play={play} labels={trackLabels(overview, play?.options.title ?? options.title)} />
    </main>
  );
}

/** The play of this view: at most one runs, and leaving the view ends it. */
function usePlay(video: { current: HTMLVideoElement | null }) {
  const [play, setPlay] = useState<Play | null>(null);
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<Failure | null>(null);
  const running = useRef<Play | null>(null);
  useEffect(() => () => void running.current?.stop(), []);

  const stop = async () => {
    const last = running.current;
    running.current = null;
    setPlay(null);
    await last?.stop();
  };
  const start = async (options: Options) => {
    setBusy(true);
    setFailure(null);
    await stop();
    const next = new Play(options, video.current!);
    running.current = next;
    setPlay(next);
    window.nearcast = testState(next, video.current!);
    try {
      await next.start();
    } catch (error) {
      if (running.current !== next) return;
      setFailure({
        message: error instanceof Error ? error.message : String(error),
        reasons: error instanceof RefusedError ? error.reasons : [],
      });
      await stop();
    } finally {
      setBusy(false);
    }
  };
  return { play, busy, failure, start, stop };
}

interface ControlsProps {
  overview: Overview;
  options: Options;
  setOptions: (options: Options) => void;
  playing: boolean;
  busy: boolean;
  onStart: () => void;
  onStop: () => void;
}

function Controls({ overview, options, setOptions, playing, busy, onStart, onStop }: ControlsProps) {
  const select = <K extends keyof Options>(label: string, key: K, choices: [Options[K], string][]) => (
    <label>
      {label}
      <select
        data-testid={key}
        value={options[key]}
        onChange={(event) => setOptions({ ...options, [key]: event.currentTarget.value })}
      >
        {choices.map(([value, text]) => <option key={value} value={value}>{text}</option>)}
      </select>
    </label>
  );
  return (
    <form
      class="card controls"
      onSubmit={(event) => {
        event.preventDefault();
        onStart();
      }}
    >
      {select("Title", "title", overview.titles.map((each) => [each.title, each.name]))}
      {select("Profile", "profile", overview.profiles.map((each) => [each, each]))}
      {select("Player", "player", PLAYERS.map((each) => [each.kind, each.label]))}
      {select("Edges over", "scheme", [["http", "http"], ["https", "https (h2, h3)"]])}
      <button class="primary" type="submit" data-testid="start" disabled={busy || !options.title || !options.profile}>
        {busy ? "Starting…" : playing ? "↻ Play again" : "▶ Play"}
      </button>
      <button type="button" data-testid="stop" disabled={!playing} onClick={onStop}>■ Stop</button>
    </form>
  );
}

/** Renders again a few times a second, while `on`. */
function useTick(on: boolean): void {
  const [, setTick] = useState(0);
  useEffect(() => {
    if (!on) return;
    const timer = setInterval(() => setTick((tick) => tick + 1), TICK_MS);
    return () => clearInterval(timer);
  }, [on]);
}

function Refusal({ failure }: { failure: Failure }) {
  return (
    <section class="notice bad" data-testid="refusal" role="alert">
      {failure.reasons.length === 0 ? (
        <p>This play could not start: {failure.message}</p>
      ) : (
        <>
          <p>The control plane refused this play:</p>
          <ul>
            {failure.reasons.map((reason) => (
              <li key={reason.code}>{reason.message} <code>{reason.code}</code></li>
            ))}
          </ul>
        </>
      )}
    </section>
  );
}

function renditionLabel({ height, bitrate }: Rendition): string {
  return `${height > 0 ? `${height}p` : "audio"} · ${bits(bitrate)}`;
}

function Pickers({ play }: { play: Play | null }) {
  const tracks = play?.tracks();
  const list = [...(tracks?.renditions ?? [])].sort((a, b) => b.bitrate - a.bitrate);
  const autoLabel = tracks?.auto && tracks.rendition ? `Auto (${tracks.rendition.height}p)` : "Auto";
  return (
    <div class="card pickers">
      <label>
        Rendition
        <select
          data-testid="rendition"
          disabled={!tracks || list.length === 0}
          value={tracks?.auto === false ? (tracks.rendition?.id ?? "") : ""}
          onChange={(event) => play?.selectRendition(event.currentTarget.value || null)}
        >
          <option value="">{autoLabel}</option>
          {list.map((each) => <option key={each.id} value={each.id}>{renditionLabel(each)}</option>)}
        </select>
      </label>
      <label>
        Audio
        <select
          data-testid="audio"
          disabled={!tracks || tracks.audio.length < 2}
          value={tracks?.audioId ?? ""}
          onChange={(event) => play?.selectAudio(event.currentTarget.value)}
        >
          {(tracks?.audio ?? []).map(({ id, label }) => <option key={id} value={id}>{label}</option>)}
        </select>
      </label>
      <label>
        Subtitles
        <select
          data-testid="text"
          disabled={!tracks || tracks.text.length === 0}
          value={tracks?.textId ?? ""}
          onChange={(event) => play?.selectText(event.currentTarget.value || null)}
        >
          <option value="">Off</option>
          {(tracks?.text ?? []).map(({ id, label }) => <option key={id} value={id}>{label}</option>)}
        </select>
      </label>
    </div>
  );
}

function Figures({ play }: { play: Play | null }) {
  const rendition = play?.tracks().rendition ?? null;
  const qoe = play?.qoe;
  const ms = (value: number | null | undefined) => (value === null || value === undefined ? "–" : `${Math.round(value)} ms`);
  const last = play?.segments.findLast((segment) => segment.kind === "segment");
  const lastFailover = play?.failovers.at(-1);
  return (
    <div class="tiles small">
      <Tile label="Edge" id="edge" value={play?.edge ?? "–"} note={last?.protocol ?? undefined} />
      <Tile label="Bitrate" id="bitrate" value={rendition ? bits(rendition.bitrate) : "–"} note={rendition ? `${rendition.height}p` : undefined} />
      <Tile label="Buffer" id="buffer" value={play ? `${play.bufferAhead().toFixed(1)} s` : "–"} />
      <Tile label="Start time" id="start-time" value={ms(qoe?.startMs)} />
      <Tile
        label="Rebuffers"
        id="rebuffers"
        value={qoe?.rebuffers ?? "–"}
        note={qoe && qoe.rebuffers > 0 ? ms(qoe.rebufferMs) : undefined}
        tone={qoe && qoe.rebuffers > 0 ? "bad" : ""}
      />
      <Tile
        label="Failovers"
        id="failovers"
        value={play?.failovers.length ?? "–"}
        note={lastFailover ? `left ${lastFailover.from}` : undefined}
        tone={lastFailover ? "warn" : ""}
      />
      <Tile label="Watched" id="watched" value={qoe ? `${(qoe.watchedMs / 1000).toFixed(0)} s` : "–"} />
      <Tile label="Received" id="received" value={play ? bytes(play.bytes) : "–"} />
      {play && play.fatal.length > 0 && <p class="notice bad wide" data-testid="fatal">{play.fatal.at(-1)}</p>}
    </div>
  );
}

const VERDICTS = ["hit-memory", "hit-plan", "hit-ssd", "filling", "origin"];

function Trace({ play, labels }: { play: Play | null; labels: Map<string, string> }) {
  const media = (play?.segments ?? []).filter((segment) => isMedia(segment.kind));
  const rows = media.slice(-ROWS_MAX).reverse();
  return (
    <section class="card trace">
      <header>
        <h3>Where each segment came from</h3>
        <span class="spacer" />
        <span class="legend">
          {VERDICTS.map((verdict) => <span key={verdict}><i class={`dot ${verdictTone(verdict)}`} />{verdict}</span>)}
        </span>
      </header>
      <Bars media={media.slice(-BARS_MAX)} />
      <div class="scroll">
        <table class="segments" data-testid="segments">
          <thead>
            <tr>
              <th>Track</th><th class="num">Segment</th><th>Rendition</th><th class="num">Size</th>
              <th class="num">First byte</th><th>Edge</th><th>Protocol</th><th>Verdict</th>
            </tr>
          </thead>
          <tbody>
            {rows.map((segment) => (
              <tr key={segment.n}>
                <td><code>{segment.track}</code></td>
                <td class="num">{segment.number ?? segment.kind}</td>
                <td>{labels.get(segment.track) ?? ""}</td>
                <td class="num">{bytes(segment.bytes)}</td>
                <td class="num">{segment.firstByteMs.toFixed(segment.firstByteMs < 10 ? 1 : 0)} ms</td>
                <td>{segment.edge}</td>
                <td>{segment.protocol ?? ""}</td>
                <td><Chip tone={verdictTone(segment.verdict)}>{segment.verdict ?? `status ${segment.status}`}</Chip></td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {rows.length === 0 && <p class="muted">Segments appear here as the player loads them.</p>}
      {media.length > rows.length && <p class="muted small">{plural(media.length, "response")} so far; the last {rows.length} shown.</p>}
    </section>
  );
}

/** A bar a response: its height is the time to the first byte, its colour the verdict. */
function Bars({ media }: { media: Segment[] }) {
  // Logarithmic: 0.3 ms is the floor, 3 s the ceiling.
  const height = (ms: number) => Math.min(1, Math.max(0.06, (Math.log10(Math.max(ms, 0.3)) + 0.5) / 4));
  return (
    <div class="bars" aria-hidden="true">
      {media.map((segment) => (
        <span
          key={segment.n}
          class={verdictTone(segment.verdict)}
          style={{ height: `${height(segment.firstByteMs) * 100}%` }}
          title={`${segment.track} ${segment.number ?? segment.kind}: ${segment.firstByteMs.toFixed(1)} ms, ${segment.verdict ?? "?"}`}
        />
      ))}
    </div>
  );
}

/** `v1` as `1280x720`, from the names of the title's files. */
function trackLabels(overview: Overview, title: string): Map<string, string> {
  const files = overview.titles.find((each) => each.title === title)?.files ?? [];
  return new Map(files.map((file) => [file.name.replace(/\.[^.]+$/, ""), file.summary.split(" ")[0] ?? ""]));
}

function testState(play: Play, video: HTMLVideoElement): Record<string, unknown> {
  return {
    play,
    get currentTime() {
      return video.currentTime;
    },
    get decodedFrames() {
      return video.getVideoPlaybackQuality().totalVideoFrames;
    },
    get fatalErrors() {
      return play.fatal;
    },
    get segments() {
      return play.segments;
    },
    get failovers() {
      return play.failovers;
    },
    get qoe() {
      return play.qoe;
    },
    get tracks() {
      return play.tracks();
    },
    get events() {
      return play.eventCounts;
    },
  };
}
