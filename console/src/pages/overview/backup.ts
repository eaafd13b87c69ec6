// Whether there is a backup that is young enough. Only the operator reads it.
import type { Installation } from '../../api/client';
import { ago, type State } from '../../format';
import type { Trouble } from './trouble';

/** `wicketgate doctor` and the alert rules have the same bound. */
const OLD_DAYS = 7;
const CURE = 'Run wicketgate backup FILE on the host of the server, best every day by a timer, and copy the file to another host.';

export function backupState({ lastBackup: last }: Installation, now: number): State {
  if (!last) return { tone: 'warn', word: 'No backup' };
  const age = now - new Date(last.createdAt).getTime();
  return { tone: age > OLD_DAYS * 86_400_000 ? 'warn' : 'ok', word: `Backup ${ago(last.createdAt, now)}` };
}

/** The trouble of an installation without a backup, or with an old one. */
export function ofBackup(installation: Installation | undefined, now: number): Trouble[] {
  if (!installation || backupState(installation, now).tone === 'ok') return [];
  const last = installation.lastBackup;
  return [
    {
      key: 'backup',
      of: [],
      subject: 'Server',
      name: 'backup of the database',
      state: { tone: 'warn', word: last ? 'Old' : 'None' },
      detail: last
        ? { message: `The last backup is more than ${OLD_DAYS} days old. What was created since is lost with the host.`, since: last.createdAt }
        : { message: 'No backup was made since the database was set up or restored. All of it is lost with the host.' },
      cure: CURE,
      shares: [],
    },
  ];
}
