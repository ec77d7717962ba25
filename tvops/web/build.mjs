// Builds the page: src/*.ts and src/*.css into static/, where the gateway serves it from.
import { build } from "esbuild";
import { cp, mkdir, rm } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const target = `${here}static`;

await rm(target, { recursive: true, force: true });
await mkdir(target, { recursive: true });
await build({
    absWorkingDir: here,
    entryPoints: ["src/app.ts", "src/docs.ts", "src/style.css", "src/docs.css"],
    outdir: "static",
    bundle: true,
    minify: true,
    format: "esm",
    target: ["es2022"],
    legalComments: "eof",
    logLevel: "warning",
});
for (const name of ["index.html", "docs.html", "favicon.svg"]) {
    await cp(`${here}src/${name}`, `${target}/${name}`);
}
await cp(`${here}../../NOTICE`, `${target}/NOTICE.txt`);
