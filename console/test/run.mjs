// Bundles the unit tests and runs them with node's own runner. Run `../build` once before.

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";

const out = mkdtempSync(join(tmpdir(), "nearcast-console-"));
const outfile = join(out, "all.test.mjs");
await build({
  stdin: {
    contents: ["transport", "events", "path"].map((name) => `import "./${name}.test.ts";`).join("\n"),
    resolveDir: import.meta.dirname ?? new URL(".", import.meta.url).pathname,
  },
  outfile,
  bundle: true,
  platform: "node",
  format: "esm",
});
const { status } = spawnSync(process.execPath, ["--test", outfile], { stdio: "inherit" });
rmSync(out, { recursive: true });
process.exit(status ?? 1);
