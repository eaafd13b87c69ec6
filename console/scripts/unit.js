// Runs the tests of tests/unit with Node's test runner, after Vite has made one JavaScript file of each.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'vite';

const sources = readdirSync('tests/unit').map((name) => join('tests/unit', name));
const outDir = mkdtempSync(join(tmpdir(), 'wicketgate-unit-'));
try {
  await build({ configFile: false, logLevel: 'error', build: { ssr: true, outDir, emptyOutDir: true, rollupOptions: { input: sources, output: { format: 'es', entryFileNames: '[name].mjs' } } } });
  const files = sources.map((source) => join(outDir, source.replace(/^.*\/(.*)\.ts$/, '$1.mjs')));
  // One that is not UTC, and changes its offset within a year.
  const ran = spawnSync(process.execPath, ['--test', '--test-reporter=spec', ...files], { stdio: 'inherit', env: { ...process.env, TZ: 'Europe/Berlin' } });
  process.exitCode = ran.status ?? 1;
} finally {
  rmSync(outDir, { recursive: true });
}
