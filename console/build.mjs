// Bundles the page: hashed assets (served as immutable) and an index.html that names them.

import { cp, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { basename } from "node:path";
import { build } from "esbuild";

// Built aside and then swapped, so that no one ever embeds half a page.
const out = "dist.new";
await rm(out, { recursive: true, force: true });
await mkdir(out);

const result = await build({
  entryPoints: { main: "src/main.tsx", style: "src/style.css" },
  outdir: `${out}/assets`,
  bundle: true,
  splitting: true,
  format: "esm",
  target: ["es2022"],
  minify: true,
  sourcemap: false,
  jsx: "automatic",
  jsxImportSource: "preact",
  entryNames: "[name]-[hash]",
  chunkNames: "[name]-[hash]",
  legalComments: "linked",
  metafile: true,
  logLevel: "warning",
});

const asset = (entry) => {
  const found = Object.entries(result.metafile.outputs).find(([, output]) => output.entryPoint === entry);
  return `assets/${basename(found[0])}`;
};
const page = (await readFile("src/index.html", "utf8"))
  .replace("{{stamp}}", process.env.CONSOLE_STAMP ?? "unknown")
  .replace("{{script}}", asset("src/main.tsx"))
  .replace("{{style}}", asset("src/style.css"));
await writeFile(`${out}/index.html`, page);
await cp("src/icon.svg", `${out}/icon.svg`);
await rm("dist", { recursive: true, force: true });
await rename(out, "dist");

const sizes = Object.entries(result.metafile.outputs).filter(([path]) => path.endsWith(".js"));
const kilobytes = sizes.reduce((sum, [, output]) => sum + output.bytes, 0) / 1000;
console.error(`console: ${sizes.length} scripts, ${Math.round(kilobytes)} kB in dist/`);
