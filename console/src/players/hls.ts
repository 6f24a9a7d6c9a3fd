// hls.js behind the `Player` interface: a loader class that fetches through the transport.

import Hls, {
  type HlsConfig,
  type Loader,
  type LoaderCallbacks,
  type LoaderConfiguration,
  type LoaderContext,
  LoadStats,
} from "hls.js";
import { type EdgeTransport, TransportError } from "../transport";
import { type Host, type Player, trackName, type Tracks } from "./player";

/** Media errors that are answered by a recovery before the play is given up. */
const RECOVERIES_MAX = 2;

function loaderClass(transport: EdgeTransport) {
  return class EdgeLoader implements Loader<LoaderContext> {
    context: LoaderContext | null = null;
    stats = new LoadStats();
    private readonly controller = new AbortController();
    private callbacks: LoaderCallbacks<LoaderContext> | null = null;
    private headers: Headers | null = null;

    load(context: LoaderContext, _config: LoaderConfiguration, callbacks: LoaderCallbacks<LoaderContext>): void {
      this.context = context;
      this.callbacks = callbacks;
      this.stats.loading.start = performance.now();
      void this.run(context);
    }

    private async run(context: LoaderContext): Promise<void> {
      const { stats } = this;
      const headers: Record<string, string> = { ...context.headers };
      if (context.rangeEnd) headers.Range = `bytes=${context.rangeStart ?? 0}-${context.rangeEnd - 1}`;
      try {
        const fetched = await transport.fetch({
          url: context.url,
          headers,
          signal: this.controller.signal,
          onProgress: (loaded, total) => {
            stats.loaded = loaded;
            stats.total = total ?? loaded;
          },
        });
        if (this.controller.signal.aborted) return;
        this.headers = fetched.headers;
        // Time lost on edges that were left is not the network's speed.
        stats.loading.start = fetched.startedAt;
        stats.loading.first = Math.max(fetched.firstByteAt, fetched.startedAt);
        stats.loading.end = Math.max(fetched.endedAt, stats.loading.first);
        stats.loaded = stats.total = fetched.body.byteLength;
        stats.bwEstimate = (stats.total * 8000) / Math.max(1, stats.loading.end - stats.loading.first);
        const code = fetched.status;
        if (code < 200 || code > 299) {
          this.callbacks?.onError({ code, text: `status ${code}` }, context, null, stats);
          return;
        }
        const data = decode(context.responseType, fetched.body);
        if (context.responseType !== "json") this.callbacks?.onProgress?.(stats, context, data as string | ArrayBuffer, null);
        this.callbacks?.onSuccess({ url: fetched.url, data, code }, stats, context, null);
      } catch (error) {
        if (this.controller.signal.aborted) return;
        if (error instanceof TransportError && error.fault === "timeout") {
          this.callbacks?.onTimeout(stats, context, null);
        } else {
          const code = error instanceof TransportError ? error.status : 0;
          this.callbacks?.onError({ code, text: String(error) }, context, null, stats);
        }
      }
    }

    abort(): void {
      this.stats.aborted = true;
      this.controller.abort();
      if (this.context) this.callbacks?.onAbort?.(this.stats, this.context, null);
    }

    destroy(): void {
      this.callbacks = null;
      this.context = null;
      this.controller.abort();
    }

    getCacheAge(): number | null {
      const age = this.headers?.get("age");
      return age ? Number(age) : null;
    }

    getResponseHeader(name: string): string | null {
      return this.headers?.get(name) ?? null;
    }
  };
}

function decode(type: string, body: Uint8Array<ArrayBuffer>): string | ArrayBuffer | object {
  if (type === "arraybuffer") return body.buffer;
  const text = new TextDecoder().decode(body);
  return type === "json" ? JSON.parse(text) : text;
}

export function create({ video, transport, onFatal }: Host): Player {
  // Every edge was already tried when a request fails, so what helps is patience.
  const patient = { maxNumRetry: 8, retryDelayMs: 500, maxRetryDelayMs: 4_000 };
  const policy = { default: { maxTimeToFirstByteMs: Infinity, maxLoadTimeMs: 60_000, timeoutRetry: patient, errorRetry: patient } };
  const config: Partial<HlsConfig> = {
    loader: loaderClass(transport) as unknown as HlsConfig["loader"],
    enableWorker: false,
    maxBufferLength: 20,
    maxMaxBufferLength: 20,
    backBufferLength: 30,
    fragLoadPolicy: policy,
    playlistLoadPolicy: policy,
    manifestLoadPolicy: policy,
    renderTextTracksNatively: true,
  };
  const hls = new Hls(config);
  let recoveries = 0;
  hls.on(Hls.Events.ERROR, (_event, data) => {
    if (!data.fatal) return;
    if (data.type === Hls.ErrorTypes.MEDIA_ERROR && recoveries < RECOVERIES_MAX) {
      recoveries++;
      hls.recoverMediaError();
      return;
    }
    onFatal(`hls.js: ${data.type}: ${data.details}`);
  });

  return {
    version: `hls.js ${Hls.version}`,
    load(url) {
      return new Promise((resolve, reject) => {
        hls.once(Hls.Events.MANIFEST_PARSED, () => resolve());
        hls.on(Hls.Events.ERROR, (_event, data) => {
          if (data.fatal) reject(new Error(`hls.js: ${data.details}`));
        });
        hls.loadSource(url);
        hls.attachMedia(video);
      });
    },
    tracks(): Tracks {
      const renditions = hls.levels.map((level, id) => ({
        id: String(id),
        height: level.height,
        bitrate: level.bitrate,
      }));
      const playing = hls.currentLevel >= 0 ? hls.currentLevel : hls.loadLevel;
      return {
        renditions,
        rendition: renditions[playing] ?? null,
        auto: hls.autoLevelEnabled,
        audio: hls.audioTracks.map((track, id) => ({ id: String(id), label: trackName(track.name, track.lang) })),
        audioId: hls.audioTrack >= 0 ? String(hls.audioTrack) : null,
        text: hls.subtitleTracks.map((track, id) => ({ id: String(id), label: trackName(track.name, track.lang) })),
        textId: hls.subtitleTrack >= 0 ? String(hls.subtitleTrack) : null,
      };
    },
    selectRendition(id) {
      hls.nextLevel = id === null ? -1 : Number(id);
    },
    selectAudio(id) {
      hls.audioTrack = Number(id);
    },
    selectText(id) {
      hls.subtitleDisplay = id !== null;
      hls.subtitleTrack = id === null ? -1 : Number(id);
    },
    async destroy() {
      hls.destroy();
    },
  };
}
