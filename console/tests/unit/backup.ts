// When the overview warns of the backup.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Installation } from '../../src/api/client';
import { backupState, ofBackup } from '../../src/pages/overview/backup';

const NOW = Date.parse('2026-11-30T12:00:00Z');
const made = (createdAt: string): Installation => ({ version: '1', lastBackup: { createdAt, bytes: 4096, version: '1' } });

test('a backup of less than a week is well', () => {
  const installation = made('2026-11-23T12:00:01Z');
  assert.deepEqual(backupState(installation, NOW), { tone: 'ok', word: 'Backup 6 d 23 h ago' });
  assert.deepEqual(ofBackup(installation, NOW), []);
});

test('an older one is a warning since its time', () => {
  const installation = made('2026-11-23T11:59:59Z');
  assert.equal(backupState(installation, NOW).tone, 'warn');
  const [found] = ofBackup(installation, NOW);
  assert.equal(found?.detail.since, '2026-11-23T11:59:59Z');
  assert.match(found?.cure ?? '', /wicketgate backup/);
});

test('none is a warning, and who may not know of it is not warned', () => {
  assert.equal(backupState({ version: '1' }, NOW).word, 'No backup');
  assert.match(ofBackup({ version: '1' }, NOW)[0]?.detail.message ?? '', /^No backup was made/);
  assert.deepEqual(ofBackup(undefined, NOW), []);
});
