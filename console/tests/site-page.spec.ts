// What the site page owes its visitors and the server besides the way to a connection: it is used by keyboard alone, asks nothing
// while nobody looks, and waits when the server says so.
import { expect, type Page } from '@playwright/test';
import { keyboard } from './hands';
import { call, frontdoor, test } from './session';

const PASSPHRASE = 'correct horse battery staple';
/** Reads of a link's pages within a minute, as the server allows them. */
const MOST_READS = 300;
/** Between two reads of a page. */
const EVERY_MS = 2000;

/** A link of the only tunnel, as an address below the console's. */
async function newLink(page: Page, body: { passphrase?: string } = {}): Promise<string> {
  const id = await frontdoor(page);
  const [tunnel] = (await call<{ content: { id: string }[] }>(page, 'GET', `/${id}/ipsec-tunnels`)).content;
  const { token } = await call<{ token: string }>(page, 'POST', `/${id}/ipsec-tunnels/${tunnel!.id}/handover-links`, body);
  return `./site#${token}`;
}

const heading = (page: Page) => page.getByRole('heading', { name: /^Connect your site to/ });

/** Counts the reads that the page begins. */
function reads(page: Page): { count: number } {
  const counted = { count: 0 };
  page.on('request', (request) => {
    if (new URL(request.url()).pathname.endsWith('/site/tunnel')) counted.count += 1;
  });
  return counted;
}

/** The browser has no call for this: what is changed is what a page is told of its tab. */
async function show(page: Page, visible: boolean): Promise<void> {
  await page.evaluate((state) => {
    Object.defineProperty(document, 'visibilityState', { configurable: true, get: () => state });
    Object.defineProperty(document, 'hidden', { configurable: true, get: () => state === 'hidden' });
    document.dispatchEvent(new Event('visibilitychange'));
  }, visible ? 'visible' : 'hidden');
}

test('the page is used by keyboard alone', async ({ page, context }) => {
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  const hands = keyboard(page);
  await page.goto(await newLink(page, { passphrase: PASSPHRASE }));
  await hands.fill(page.getByLabel('Passphrase'), 'correct horse battery stable');
  await page.keyboard.press('Enter');
  await expect(page.getByRole('alert')).toContainText('The passphrase is wrong');
  await expect(page.getByLabel('Passphrase')).toBeFocused();
  await hands.fill(page.getByLabel('Passphrase'), PASSPHRASE);
  await hands.press(page.getByRole('button', { name: 'Open' }));
  await expect(heading(page)).toBeVisible();

  await hands.press(page.getByRole('link', { name: 'Skip to content' }));
  await expect(page.locator('#content')).toBeFocused();
  await hands.choose(page.getByLabel('Device', { exact: true }), 'FortiGate (FortiOS)');
  await hands.fill(page.getByLabel('Outside interface'), 'port7');
  await hands.press(page.getByRole('button', { name: 'Show the configuration' }));
  const file = page.getByRole('region', { name: /^Configuration for/ });
  await expect(file).toContainText('port7');
  await hands.press(page.getByRole('button', { name: 'Copy', exact: true }));
  await expect.poll(() => page.evaluate(() => navigator.clipboard.readText())).toBe(await file.textContent());
  const download = page.waitForEvent('download');
  await hands.press(page.getByRole('button', { name: 'Download' }));
  expect((await download).suggestedFilename()).toMatch(/-fortinet\.txt$/);
  await hands.press(page.getByRole('button', { name: 'Hide' }));
  await expect(file).toBeHidden();
  await hands.press(page.getByRole('button', { name: 'Test greeting' }));
  await expect(page.getByText('The test fails at this hop: Your device.')).toBeVisible();
});

test('a hidden tab asks nothing, and is current when it is shown', async ({ page }) => {
  await page.clock.install();
  const asked = reads(page);
  await page.goto(await newLink(page));
  await expect(heading(page)).toBeVisible();
  await expect.poll(() => asked.count).toBeGreaterThan(1);
  await show(page, false);
  const before = asked.count;
  await page.clock.runFor(20 * EVERY_MS);
  expect(asked.count).toBe(before);
  await show(page, true);
  await expect.poll(() => asked.count).toBeGreaterThan(before);
  const shown = asked.count;
  await expect.poll(() => asked.count).toBeGreaterThan(shown);
});

test('a page that asks too often waits as long as the server says, and says so', async ({ page }) => {
  await page.clock.install();
  const asked = reads(page);
  let after = 0;
  page.on('response', (response) => {
    if (response.status() === 429) after = Number(response.headers()['retry-after']) * 1000;
  });
  await page.goto(await newLink(page));
  await expect(heading(page)).toBeVisible();
  const session = await page.evaluate(() => (JSON.parse(sessionStorage.getItem('wicketgate.site')!) as { session: string }).session);
  // Other pages of the link, which read as often as it may.
  const limited = async () => (await page.request.post('./site/tunnel', { data: { session } })).status() === 429;
  let refused = false;
  // Meanwhile further ones arrive.
  for (let call = 0; call <= 2 * MOST_READS && !refused; call += 1) refused = await limited();
  expect(refused, 'the server does not limit the reads of a link').toBe(true);

  // They take each further call that the link is given.
  let goOn = true;
  const others = (async () => {
    while (goOn) await limited();
  })();
  const told = page.getByRole('status').filter({ hasText: 'not current' });
  await expect(told).toContainText('ask too often');
  goOn = false;
  await others;
  await expect(told).toContainText(/The page tries again at .*\d\d:\d\d:\d\d\./);
  expect(after).toBeGreaterThan(2 * EVERY_MS);
  const before = asked.count;
  await page.clock.runFor(after - 2 * EVERY_MS);
  // Nor does looking away and back make it ask.
  await show(page, false);
  await show(page, true);
  expect(asked.count).toBe(before);
  await page.clock.runFor(4 * EVERY_MS);
  await expect.poll(() => asked.count).toBeGreaterThan(before);
});
