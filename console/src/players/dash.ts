// dash.js behind the `Player` interface: its XHRLoader is replaced by one that fetches
// through the transport (the hook is dash.js's own `extend`).

import { type MediaInfo, MediaPlayer } from "dashjs";
import type { EdgeTransport } from "../transport";
import { type Host, type Player, type Rendition, trackName, type Tracks } from "./player";

/** What dash.js's HTTPLoader hands to a loader (`CommonMediaRequest` and `-Response`). */
interface LoaderRequest {
  url: string;
  method?: string;
  headers?: Record<string, string | null>;
  responseType?: string;
  body?: BodyInit | null;
  customData: {
    onloadend?: () => void;
    onprogress?: (event: { loaded: number; total: number; lengthComputable: boolean }) => void;
    onabort?: () => void;
    abort?: () => void;
  };
}

interface LoaderResponse {
  url?: string;
  status?: number;
  statusText?: string;
  headers?: Record<string, string>;
  data?: unknown;
}

/** What dash.js calls requests for a steering manifest. */
const STEERING_TYPE = "ContentSteering";

interface LoadError {
  code?: number;
  message?: string;
  data?: { request?: { type?: string } };
}

function edgeLoader(transport: EdgeTransport, manifestUrl: () => string) {
  return function EdgeLoader() {
    const running = new Set<AbortController>();
    return {
      load(request: LoaderRequest, response: LoaderResponse): boolean {
        // dash.js leaves an MPD's relative steering address as it is.
        request.url = new URL(request.url, manifestUrl()).href;
        const controller = new AbortController();
        running.add(controller);
        // dash.js takes `onloadend` away before it aborts on purpose.
        request.customData.abort = () => {
          running.delete(controller);
          controller.abort();
          request.customData.onabort?.();
        };
        void run(transport, request, response, controller.signal).then(() => {
          if (running.delete(controller)) request.customData.onloadend?.();
        });
        return true;
      },
      abort() {
        for (const controller of running) controller.abort();
        running.clear();
      },
      reset() {
        this.abort();
      },
      resetInitialSettings() {
        this.abort();
      },
    };
  };
}

/** Fills `response`; a failure shows as status 0 there, as with XMLHttpRequest. */
async function run(
  transport: EdgeTransport,
  request: LoaderRequest,
  response: LoaderResponse,
  signal: AbortSignal,
): Promise<void> {
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(request.headers ?? {})) if (value) headers[name] = value;
  try {
    const fetched = await transport.fetch({
      url: request.url,
      method: request.method ?? "GET",
      headers,
      signal,
      onProgress: (loaded, total) =>
        request.customData.onprogress?.({ loaded, total: total ?? loaded, lengthComputable: total !== null }),
    });
    response.url = fetched.url;
    response.status = fetched.status;
    response.statusText = String(fetched.status);
    response.headers = Object.fromEntries(fetched.headers);
    response.data = decode(request.responseType, fetched.body);
  } catch (error) {
    response.url = request.url;
    response.status = 0;
    response.statusText = String(error);
    response.data = null;
  }
}

function decode(type: string | undefined, body: Uint8Array<ArrayBuffer>): unknown {
  if (type === "arraybuffer") return body.buffer;
  const text = new TextDecoder().decode(body);
  return type === "json" ? JSON.parse(text) : text;
}

export function create({ video, transport, onFatal }: Host): Player {
  const player = MediaPlayer().create();
  let manifest = "";
  let failed: (error: Error) => void = () => undefined;
  player.extend("XHRLoader", edgeLoader(transport, () => manifest), true);
  player.updateSettings({
    streaming: {
      buffer: { bufferTimeDefault: 20, bufferTimeAtTopQuality: 20, bufferTimeAtTopQualityLongForm: 20, fastSwitchEnabled: true },
      // Every edge was already tried when a request fails, so what helps is patience.
      retryAttempts: { MPD: 8, MediaSegment: 8, InitializationSegment: 8, IndexSegment: 8, other: 3 },
      text: { defaultEnabled: false },
    },
  });
  player.on(MediaPlayer.events.ERROR, (event) => {
    const { error } = event as { error?: LoadError | string };
    // Without a steering manifest a play goes on, on the edges it knows.
    if (typeof error === "object" && error.data?.request?.type === STEERING_TYPE) return;
    const message = typeof error === "object" ? `${error.code}: ${error.message}` : String(error);
    onFatal(`dash.js: ${message}`);
    failed(new Error(`dash.js: ${message}`));
  });

  const trackId = (track: MediaInfo) => String(track.id ?? track.index);
  const label = (track: MediaInfo) => trackName(track.labels?.[0]?.text, track.lang);
  const renditions = (): Rendition[] =>
    player.getRepresentationsByType("video").map(({ id, height, bandwidth }) => ({ id, height, bitrate: bandwidth }));

  return {
    version: `dash.js ${player.getVersion()}`,
    load(url) {
      manifest = url;
      return new Promise((resolve, reject) => {
        failed = reject;
        player.on(MediaPlayer.events.STREAM_INITIALIZED, () => resolve());
        player.initialize(video, url, true);
      });
    },
    tracks(): Tracks {
      const list = renditions();
      const current = player.getCurrentRepresentationForType("video")?.id;
      const audio = player.getCurrentTrackFor("audio");
      const text = player.getCurrentTextTrackIndex();
      return {
        renditions: list,
        rendition: list.find(({ id }) => id === current) ?? null,
        auto: player.getSettings().streaming?.abr?.autoSwitchBitrate?.video ?? true,
        audio: player.getTracksFor("audio").map((track) => ({ id: trackId(track), label: label(track) })),
        audioId: audio ? trackId(audio) : null,
        text: player.getTracksFor("text").map((track, index) => ({ id: String(index), label: label(track) })),
        textId: text >= 0 && player.isTextEnabled() ? String(text) : null,
      };
    },
    selectRendition(id) {
      player.updateSettings({ streaming: { abr: { autoSwitchBitrate: { video: id === null } } } });
      if (id !== null) player.setRepresentationForTypeById("video", id, true);
    },
    selectAudio(id) {
      const track = player.getTracksFor("audio").find((each) => trackId(each) === id);
      if (track) player.setCurrentTrack(track);
    },
    selectText(id) {
      player.enableText(id !== null);
      player.setTextTrack(id === null ? -1 : Number(id));
    },
    async destroy() {
      player.destroy();
    },
  };
}
