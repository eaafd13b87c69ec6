// Writes each file of the build a second time, compressed, for the server to embed; prints the sizes.
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const dist = fileURLToPath(new URL('../dist', import.meta.url));
let total = 0;

for (const name of readdirSync(dist, { recursive: true }).map(String).sort()) {
  const file = join(dist, name);
  if (!statSync(file).isFile() || !['.html', '.js', '.css', '.svg'].includes(extname(file))) continue;
  const compressed = gzipSync(readFileSync(file), { level: 9 });
  writeFileSync(`${file}.gz`, compressed);
  total += compressed.length;
  console.log(`${String(compressed.length).padStart(8)}  ${name}`);
}
console.log(`${String(total).padStart(8)}  bytes compressed in all`);
