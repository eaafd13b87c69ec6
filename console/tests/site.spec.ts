// The page of a site's engineer, who has a handover link and its passphrase, and nothing else. The device is configured from
// this page alone.
import AxeBuilder from '@axe-core/playwright';
import { expect } from '@playwright/test';
import { order } from './lab';
import { call, frontdoor, signIn, test } from './session';

/** IKE negotiates on a busy machine. */
const SOON = { timeout: 20_000 };

test('a stranger connects the device, tests a service, and is shut out when the link is revoked', async ({ page, browser, baseURL }, info) => {
  test.setTimeout(120_000);
  const id = await frontdoor(page);
  const [tunnel] = (await call<{ content: { id: string; loadBalancerIp: string }[] }>(page, 'GET', `/${id}/ipsec-tunnels`)).content;
  const target = (await call<{ content: { target: string }[] }>(page, 'GET', `/${id}/ipsec-shares`)).content[0]!.target;
  await signIn(page, `#/tunnels/${tunnel!.id}?tab=device`);
  await page.getByRole('button', { name: 'Create a link' }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByLabel('Passphrase', { exact: true }).fill('correct horse battery staple');
  await dialog.getByRole('button', { name: 'Create the link' }).click();
  const link = (await dialog.locator('code', { hasText: '/site#' }).textContent())!;
  await dialog.getByRole('button', { name: 'Done' }).click();

  const context = await browser.newContext(baseURL ? { baseURL } : {});
  const site = await context.newPage();
  const errors: string[] = [];
  const sent: string[] = [];
  site.on('pageerror', (error) => errors.push(error.message));
  site.on('request', (request) => sent.push(request.url()));
  await site.goto(link);
  await site.getByLabel('Passphrase').fill('something else');
  await site.getByRole('button', { name: 'Open' }).click();
  await expect(site.getByRole('alert')).toContainText('The passphrase is wrong');
  await site.getByLabel('Passphrase').fill('correct horse battery staple');
  await site.getByRole('button', { name: 'Open' }).click();
  await expect(site.getByRole('heading', { name: /^Connect your site to/ })).toBeVisible();
  expect(site.url()).not.toContain('#');
  const secret = link.split('#')[1]!;
  expect(sent.filter((url) => url.includes(secret) && !url.includes('#'))).toEqual([]);
  await expect(site.getByText('Nothing received')).toBeVisible();

  await site.getByLabel('Device', { exact: true }).selectOption('strongswan');
  await site.getByRole('button', { name: 'Show the configuration' }).click();
  const config = (await site.getByRole('region', { name: /^Configuration for/ }).textContent())!;
  await order({ do: 'site', config: config.replace(/secret = "[^"]*"/, 'secret = "another key"') });
  const state = site.getByRole('region', { name: '2. See whether the tunnel comes up' });
  await expect(state.getByRole('status')).toContainText('Refused', SOON);
  await expect(state.getByRole('status')).toContainText(/Next:.*key/s);
  await order({ do: 'site', config });
  await expect(state.getByRole('listitem').filter({ hasText: 'The tunnel is up' })).toContainText('Done', SOON);

  const services = site.getByRole('region', { name: '3. Connect to the services' });
  await services.getByRole('button', { name: 'Test greeting' }).click();
  await expect(services.getByText('The service answers.')).toBeVisible(SOON);
  expect((await order({ do: 'ask', to: `${tunnel!.loadBalancerIp}:9000` })).said).toBe('here');

  for (const colorScheme of ['light', 'dark'] as const) {
    for (const width of [1280, 360]) {
      await site.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      await site.setViewportSize({ width, height: 800 });
      expect((await new AxeBuilder({ page: site }).analyze()).violations).toEqual([]);
      expect(await site.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'wider than the window').toBe(true);
      await site.screenshot({ path: `${process.env.SCREENSHOTS ?? info.outputDir}/site-${colorScheme}-${width}.png`, fullPage: true });
    }
  }
  // What is behind the gateway is the provider's.
  expect(await site.content()).not.toContain(target.split(':')[0]);

  await site.reload();
  await expect(site.getByRole('heading', { name: /^Connect your site to/ })).toBeVisible();
  await page.getByRole('button', { name: /^Revoke/ }).first().click();
  await page.getByRole('dialog').getByRole('button', { name: /^Revoke/ }).click();
  await expect(site.getByRole('heading', { name: 'No valid link' })).toBeVisible();
  await site.goto(link);
  await site.reload();
  await expect(site.getByRole('heading', { name: 'No valid link' })).toBeVisible();
  expect(errors).toEqual([]);
  await context.close();
});
