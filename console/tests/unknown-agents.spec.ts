// Agents that a restored database does not know: the operator sees them wherever agents are missed, and adopts one. Another one,
// REMOVED, was removed after the backup. All have the name of this host.
import AxeBuilder from '@axe-core/playwright';
import { expect, type Page } from '@playwright/test';
import { keyboard } from './hands';
import { call, frontdoor, signIn, test } from './session';

/** Agents try again within seconds, on a busy machine. */
const SOON = { timeout: 30_000 };
const RISK = 'Adopt only an agent that you know';

const row = (page: Page, id: string) => page.getByRole('row').filter({ has: page.locator(`code[title="${id}"]`) });
const adoption = (page: Page, id: string) => row(page, id).getByRole('button', { name: /^Adopt / });

/** No finding of axe and nothing wider than the window, at both widths; with pictures. */
async function fits(page: Page, name: string): Promise<void> {
  for (const width of [1280, 360]) {
    await page.setViewportSize({ width, height: 800 });
    if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/${name}-light-${width}.png`, fullPage: true });
    expect.soft((await new AxeBuilder({ page }).analyze()).violations, name).toEqual([]);
    expect.soft(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${name} is wider than the window`).toBe(true);
  }
  await page.setViewportSize({ width: 1280, height: 800 });
}

test('after a restore, an operator adopts an agent by keyboard, and is told of one that cannot be adopted', async ({ page }) => {
  test.setTimeout(120_000);
  const removed = process.env.REMOVED ?? '';
  await page.emulateMedia({ colorScheme: 'light', reducedMotion: 'reduce' });
  await signIn(page);
  // The overview, the agents and the environments tell of them.
  await expect(page.getByRole('link', { name: '2 unknown agents' })).toBeVisible(SOON);
  await fits(page, 'overview-unknown-agents');
  for (const list of ['environments', 'agents']) {
    await page.goto(`./#/${list}`);
    await expect(page.getByText('that the database does not know')).toBeVisible();
  }
  await page.getByRole('link', { name: '2 agents' }).click();
  await expect(page.getByRole('heading', { name: 'Unknown agents', level: 1 })).toBeVisible();
  const unknown = (await call<{ content: { id: string; name: string }[] }>(page, 'GET', '/unknown-agents')).content;
  const [late] = unknown.filter((agent) => agent.id !== removed);
  const { id, name } = late!;
  await expect(row(page, id)).toBeVisible();
  await expect(row(page, removed)).toBeVisible();
  await fits(page, 'unknown-agents-listed');

  // What is decided is told before, and nothing happens without the confirmation.
  const hands = keyboard(page);
  await hands.press(adoption(page, id));
  const dialog = page.getByRole('dialog', { name: `Adopt ${name}?` });
  await expect(dialog).toContainText(RISK);
  await expect(dialog).toContainText(id);
  await fits(page, 'unknown-agents-adopt');
  await page.keyboard.press('Escape');
  await expect(dialog).toHaveCount(0);
  await expect(adoption(page, id)).toBeFocused();
  await hands.press(adoption(page, id));
  await hands.press(dialog.getByText('The same with the command line'));
  await expect(dialog.getByLabel('Command', { exact: true })).toHaveText(`wicketgate agent adopt ${id}`);
  await hands.press(dialog.getByRole('button', { name: 'Adopt the agent' }));
  await expect(page.getByRole('status').filter({ hasText: 'was adopted' })).toBeVisible();
  await expect(row(page, id)).toHaveCount(0);

  // The other one was removed, and its row says so.
  await expect(row(page, removed)).toContainText('it cannot be adopted');
  await expect(adoption(page, removed)).toHaveCount(0);

  // The adopted one serves.
  await page.getByRole('status').getByRole('link', { name }).click();
  await expect(page.getByRole('heading', { name, level: 1 })).toBeVisible();
  await expect(page.locator('.mark', { hasText: 'Connected' })).toBeVisible(SOON);
});

test('who is not the operator sees neither the page nor a way to it', async ({ browser, baseURL, page }) => {
  const id = await frontdoor(page);
  const account = await call<{ clientId: string; clientSecret: string }>(page, 'POST', '/api-accounts', { name: 'reader', scopes: ['frontdoor.read'], frontdoorIds: [id] });
  const context = await browser.newContext(baseURL ? { baseURL } : {});
  try {
    const other = await context.newPage();
    const asked: string[] = [];
    other.on('request', (request) => asked.push(request.url()));
    await other.goto('./#/agents');
    await other.getByLabel('Token').fill(account.clientSecret);
    await other.keyboard.press('Enter');
    await expect(other.getByRole('heading', { name: 'Agents', level: 1 })).toBeVisible();
    await expect(other.getByRole('link', { name: 'Unknown agents' })).toHaveCount(0);
    await other.goto('./#/unknown-agents');
    await expect(other.getByText('You may not see unknown agents')).toBeVisible();
    expect(asked.filter((url) => url.includes('unknown-agents') && url.includes('/frontdoor/'))).toEqual([]);
  } finally {
    await context.close();
    await call(page, 'DELETE', `/api-accounts/${account.clientId}`);
  }
});
