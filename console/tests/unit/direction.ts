// Words of others turn no text around them: each stands in an element that isolates its direction.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const source = (name: string): string => readFileSync(join('src', name), 'utf8');

test('inline elements isolate the direction of what is in them', () => {
  const rule = /^([^{}\n]*)\{ unicode-bidi: isolate; \}$/m.exec(source('app.css'));
  const elements = rule?.[1]?.trim().split(', ') ?? [];
  for (const inline of ['a', 'bdi', 'button', 'code', 'span', 'strong']) assert.ok(elements.includes(inline), inline);
});

test('a description, an actor and a tag stand in an element of their own', () => {
  const files = readdirSync('src', { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.svelte'));
  // Not the value of an attribute.
  const words = /(.)\{[a-zA-Z.]+\.(?:description|createdBy)(?: \|\| '[^']*')?\}(..)/g;
  let found = 0;
  for (const file of files) {
    for (const [all, before, after] of source(file).matchAll(words)) {
      if (before === '=') continue;
      found += 1;
      assert.ok(before === '>' && after === '</', `${file}: ${all}`);
    }
  }
  assert.ok(found > 6, `${found}`);
});
