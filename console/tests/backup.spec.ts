// The operator sees on the overview when the last backup was made; others do not.
import AxeBuilder from '@axe-core/playwright';
import { expect } from '@playwright/test';
import { order } from './lab';
import { call, frontdoor, signIn, test } from './session';

/** The overview is read every ten seconds. */
const SOON = { timeout: 30_000 };

test('without a backup the overview warns, until one is made', async ({ page }) => {
  await page.emulateMedia({ colorScheme: 'light', reducedMotion: 'reduce' });
  await signIn(page);
  const wrong = page.getByRole('region', { name: 'What is wrong now' });
  const gateways = page.getByRole('region', { name: 'Gateways' });
  await expect(wrong).toContainText('No backup was made since the database was set up or restored');
  await expect(wrong).toContainText('wicketgate backup FILE');
  await expect(gateways.locator('.mark', { hasText: 'No backup' })).toBeVisible();
  expect((await new AxeBuilder({ page }).analyze()).violations).toEqual([]);
  if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/overview-no-backup-light-1280.png`, fullPage: true });
  await order({ do: 'backup' });
  await expect(gateways.locator('.mark', { hasText: /Backup .*(ago|just now)/ })).toBeVisible(SOON);
  await expect(gateways).toContainText(/\d (kB|MB), version /);
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Nothing is wrong');
  for (const width of [1280, 360]) {
    await page.setViewportSize({ width, height: 800 });
    expect(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth)).toBe(true);
    if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/overview-backup-light-${width}.png`, fullPage: true });
  }
});

test('an old backup is a warning, and an administrator of one customer is told of none', async ({ page, browser, baseURL }) => {
  await page.route(
    (url) => url.pathname.endsWith('/frontdoor/v2/installation'),
    (route) => route.fulfill({ json: { version: '1', lastBackup: { createdAt: new Date(Date.now() - 9 * 86_400_000).toISOString(), bytes: 184_320, version: '1' } } }),
  );
  await signIn(page);
  await expect(page.getByRole('region', { name: 'What is wrong now' })).toContainText('The last backup is more than 7 days old');
  await expect(page.getByRole('region', { name: 'Gateways' })).toContainText('Backup 9 d ago');
  const account = await call<{ clientId: string; clientSecret: string }>(page, 'POST', '/api-accounts', {
    name: 'reader',
    scopes: ['frontdoor.read'],
    frontdoorIds: [await frontdoor(page)],
  });
  const context = await browser.newContext(baseURL ? { baseURL } : {});
  try {
    const other = await context.newPage();
    const asked: string[] = [];
    other.on('request', (request) => asked.push(new URL(request.url()).pathname));
    await other.goto('./');
    await other.getByLabel('Token').fill(account.clientSecret);
    await other.keyboard.press('Enter');
    await expect(other.getByRole('region', { name: 'Gateways' })).toBeVisible();
    await expect(other.getByText(/backup/i)).toHaveCount(0);
    expect(asked.filter((path) => path.endsWith('/installation'))).toEqual([]);
  } finally {
    await context.close();
    await call(page, 'DELETE', `/api-accounts/${account.clientId}`);
  }
});
