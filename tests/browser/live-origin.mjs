// A live packager as operators have them: ffmpeg writes segments of one second and a playlist,
// and a small HTTP server before the folder answers blocking playlist reloads (HLS 2nd edition,
// section 6.2.5.2). It keeps what it was asked for, and when each playlist appeared.

import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import { until } from "./stack.mjs";

/** How often the folder is looked at. */
const LOOK_MS = 20;
/** A blocking reload waits for at most three target durations. */
const BLOCK_MS_MAX = 3_000;
/** A reload for a segment further ahead than this is a mistake. */
const AHEAD_MAX = 2;

const PLAYLIST = "live.m3u8";
const TYPES = { m3u8: "application/vnd.apple.mpegurl", m4s: "video/mp4", mp4: "video/mp4", html: "text/html", js: "text/javascript" };
/** What each answer may be kept for, in seconds: a playlist for half a target duration, which
 * is less than one can say; what a blocking reload gives never changes, nor does a segment. */
const KEPT = { playlist: "max-age=1", blocked: "max-age=6", segment: "max-age=60", absent: "max-age=1", page: "max-age=60" };

const PAGE = `<!doctype html><title>live</title><video muted autoplay playsinline></video>
<script src="hls.min.js"></script>
<script>
const video = document.querySelector("video");
const hls = new Hls();
window.live = { fatal: [], frames: 0, hls };
hls.on(Hls.Events.ERROR, (_, { fatal, details }) => fatal && live.fatal.push(details));
hls.loadSource("${PLAYLIST}");
hls.attachMedia(video);
const count = () => { live.frames += 1; video.requestVideoFrameCallback(count); };
video.requestVideoFrameCallback(count);
</script>`;

function packager(folder) {
  const args = ["-hide_banner", "-loglevel", "error", "-re"];
  args.push("-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25", "-f", "lavfi", "-i", "sine=frequency=440");
  args.push("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "25", "-keyint_min", "25", "-sc_threshold", "0");
  args.push("-c:a", "aac", "-b:a", "64k");
  args.push("-f", "hls", "-hls_time", "1", "-hls_list_size", "8", "-hls_segment_type", "fmp4");
  args.push("-hls_flags", "independent_segments+temp_file", "-hls_segment_filename", join(folder, "segment-%d.m4s"), join(folder, PLAYLIST));
  return spawn("ffmpeg", args, { stdio: ["ignore", "ignore", "pipe"] });
}

/** The number of the newest segment of a playlist. */
export function newest(playlist) {
  const first = Number(playlist.match(/#EXT-X-MEDIA-SEQUENCE:(\d+)/)?.[1] ?? 0);
  return first + (playlist.match(/#EXTINF:/g)?.length ?? 0) - 1;
}

/** Two packagers before one folder. `isMute`: of media they don't say how long it may be kept, as
 * a web server before a folder. */
export async function startLive(folder, { isMute = false } = {}) {
  const asked = [];
  /** Each version of the playlist: its newest segment, its text, when it was seen. */
  const versions = [];
  let waiting = [];
  const encoder = packager(folder);
  let complaint = "";
  encoder.stderr.on("data", (chunk) => {
    complaint = (complaint + chunk).slice(-2000);
  });

  async function look() {
    const written = await readFile(join(folder, PLAYLIST), "utf8").catch(() => "");
    const last = versions.at(-1);
    if (written === "" || written === last?.written) return;
    const text = written.replace("#EXTM3U\n", "#EXTM3U\n#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES\n");
    versions.push({ number: newest(written), text, written, at: Date.now() });
    waiting.forEach((wake) => wake());
    waiting = [];
  }
  const looking = setInterval(look, LOOK_MS);

  /** The playlist, once it has segment `number`. */
  async function blocking(number) {
    const deadline = Date.now() + BLOCK_MS_MAX;
    while ((versions.at(-1)?.number ?? -1) < number) {
      if (Date.now() > deadline) return null;
      let timer;
      await new Promise((resolve) => {
        timer = setTimeout(resolve, BLOCK_MS_MAX);
        waiting.push(resolve);
      });
      clearTimeout(timer);
    }
    return versions.at(-1);
  }

  async function playlist(url) {
    const wanted = url.searchParams.get("_HLS_msn");
    const now = versions.at(-1);
    if (wanted === null) return now ? [200, KEPT.playlist, now.text] : [404, KEPT.absent, ""];
    if (!/^\d+$/.test(wanted) || Number(wanted) > (now?.number ?? -1) + AHEAD_MAX) return [400, KEPT.absent, ""];
    const found = await blocking(Number(wanted));
    return found ? [200, KEPT.blocked, found.text] : [503, "no-store", ""];
  }

  async function answer(url) {
    const name = url.pathname.slice(1);
    if (name === PLAYLIST) return playlist(url);
    if (name === "healthz") return [200, "no-store", ""];
    if (name === "player.html") return [200, KEPT.page, PAGE];
    if (name === "hls.min.js") {
      return [200, KEPT.page, await readFile(new URL("node_modules/hls.js/dist/hls.min.js", import.meta.url))];
    }
    const bytes = /^[\w-]+\.(m4s|mp4)$/.test(name) ? await readFile(join(folder, name)).catch(() => null) : null;
    return bytes ? [200, KEPT.segment, bytes] : [404, KEPT.absent, ""];
  }

  const serve = async (request, response) => {
    const url = new URL(request.url, "http://origin");
    const entry = { target: request.url, path: url.pathname, at: Date.now(), status: null };
    asked.push(entry);
    const [status, kept, body] = await answer(url);
    entry.status = status;
    const type = TYPES[url.pathname.split(".").pop()] ?? "text/plain";
    const says = isMute && kept !== KEPT.page ? {} : { "Cache-Control": kept };
    response.writeHead(status, { "Content-Type": type, ...says, "Content-Length": Buffer.byteLength(body) });
    response.end(request.method === "HEAD" ? "" : body);
  };
  const servers = [createServer(serve), createServer(serve)];
  for (const server of servers) await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  await until(() => `a playlist of ffmpeg; it said: ${complaint}`, 30_000, () => (versions.at(-1)?.number ?? 0) >= 3);

  return {
    urls: servers.map((server) => `http://127.0.0.1:${server.address().port}`),
    asked,
    versions,
    /** How often a target was asked for. */
    times: (target) => asked.filter((entry) => entry.target === target).length,
    /** Both packagers die. */
    async die() {
      for (const server of servers.filter(({ listening }) => listening)) {
        const closed = new Promise((resolve) => server.close(resolve));
        server.closeAllConnections();
        await closed;
      }
    },
    async stop() {
      clearInterval(looking);
      const ended = new Promise((resolve) => encoder.on("close", resolve));
      encoder.kill("SIGKILL");
      await ended;
      await this.die();
    },
  };
}
