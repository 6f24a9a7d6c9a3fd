// Shaka Player behind the `Player` interface: http and https are served by a scheme plugin
// that fetches through the transport.

import shaka from "shaka-player/dist/shaka-player.compiled.js";
import { type EdgeTransport, TransportError } from "../transport";
import { type Host, type Player, type Rendition, trackName, type Tracks } from "./player";

/** Shaka's plugins are global: this is the transport of the play that runs. */
let active: EdgeTransport | null = null;

function failure(error: unknown, uri: string, type: shaka.net.NetworkingEngine.RequestType, aborted: boolean) {
  const { Severity, Category, Code } = shaka.util.Error;
  const code = aborted
    ? Code.OPERATION_ABORTED
    : error instanceof TransportError && error.fault === "timeout"
      ? Code.TIMEOUT
      : Code.HTTP_ERROR;
  return new shaka.util.Error(Severity.RECOVERABLE, Category.NETWORK, code, uri, error, type);
}

const plugin: shaka.extern.SchemePlugin = (uri, request, type, progress, headersReceived) => {
  const controller = new AbortController();
  let reported = performance.now();
  let before = 0;
  const run = async (transport: EdgeTransport): Promise<shaka.extern.Response> => {
    const fetched = await transport
      .fetch({
        url: uri,
        method: request.method,
        headers: request.headers,
        signal: controller.signal,
        onHeaders: (headers) => headersReceived(Object.fromEntries(headers)),
        onProgress: (loaded, total) => {
          const now = performance.now();
          progress(now - reported, loaded - before, (total ?? loaded) - loaded);
          reported = now;
          before = loaded;
        },
      })
      .catch((error: unknown) => {
        throw failure(error, uri, type, controller.signal.aborted);
      });
    const { status, headers, body, url } = fetched;
    if (status < 200 || status > 299) {
      const { Severity, Category, Code } = shaka.util.Error;
      throw new shaka.util.Error(Severity.RECOVERABLE, Category.NETWORK, Code.BAD_HTTP_STATUS, uri, status, "", {}, type, url);
    }
    return {
      uri: url,
      originalUri: uri,
      data: body.buffer,
      status,
      headers: Object.fromEntries(headers),
      originalRequest: request,
    };
  };
  const promise = active ? run(active) : Promise.reject(failure("no play runs", uri, type, true));
  return new shaka.util.AbortableOperation(promise, async () => controller.abort());
};

export function create({ video, transport, onFatal }: Host): Player {
  shaka.polyfill.installAll();
  active = transport;
  const { APPLICATION } = shaka.net.NetworkingEngine.PluginPriority;
  for (const scheme of ["http", "https"]) shaka.net.NetworkingEngine.registerScheme(scheme, plugin, APPLICATION, true);

  const player = new shaka.Player();
  // Every edge was already tried when a request fails, so what helps is patience. The
  // transport has the time limits.
  const retryParameters = { maxAttempts: 8, baseDelay: 500, backoffFactor: 1.5, fuzzFactor: 0, timeout: 0, stallTimeout: 0, connectionTimeout: 0 };
  player.configure({
    manifest: { retryParameters },
    streaming: { retryParameters, bufferingGoal: 20, bufferBehind: 30 },
  });
  player.addEventListener("error", (event) => {
    const { detail } = event as unknown as { detail: shaka.util.Error };
    if (detail.severity === shaka.util.Error.Severity.CRITICAL) onFatal(`Shaka: error ${detail.code}`);
  });

  const variants = () => player.getVariantTracks();
  // A rendition is a height and bitrate; Shaka lists it once an audio language.
  const renditions = (): Rendition[] => {
    const seen = new Map<string, Rendition>();
    for (const track of variants()) {
      const id = String(track.originalVideoId ?? track.videoId ?? track.height);
      seen.set(id, { id, height: track.height ?? 0, bitrate: track.videoBandwidth ?? track.bandwidth });
    }
    return [...seen.values()];
  };
  const videoId = (track: shaka.extern.Track) => String(track.originalVideoId ?? track.videoId ?? track.height);

  return {
    version: `Shaka ${shaka.Player.version}`,
    async load(url) {
      await player.attach(video);
      await player.load(url);
    },
    tracks(): Tracks {
      const list = renditions();
      const current = variants().find((track) => track.active);
      const audio = player.getAudioTracks();
      const text = player.getTextTracks();
      const audioId = audio.findIndex((track) => track.active);
      const textId = text.findIndex((track) => track.active);
      const name = (track: { label: string | null; language: string }) => trackName(track.label, track.language);
      return {
        renditions: list,
        rendition: current ? (list.find(({ id }) => id === videoId(current)) ?? null) : null,
        auto: player.getConfiguration().abr.enabled,
        audio: audio.map((track, id) => ({ id: String(id), label: name(track) })),
        audioId: audioId < 0 ? null : String(audioId),
        text: text.map((track, id) => ({ id: String(id), label: name(track) })),
        textId: textId < 0 ? null : String(textId),
      };
    },
    selectRendition(id) {
      player.configure("abr.enabled", id === null);
      if (id === null) return;
      const audio = variants().find((track) => track.active);
      const wanted = variants().filter((track) => videoId(track) === id);
      const track = wanted.find((each) => each.audioId === audio?.audioId) ?? wanted[0];
      if (track) player.selectVariantTrack(track, true, 2);
    },
    selectAudio(id) {
      const track = player.getAudioTracks()[Number(id)];
      if (track) player.selectAudioTrack(track);
    },
    selectText(id) {
      player.selectTextTrack(id === null ? null : (player.getTextTracks()[Number(id)] ?? null));
    },
    async destroy() {
      if (active === transport) active = null;
      await player.destroy();
    },
  };
}
