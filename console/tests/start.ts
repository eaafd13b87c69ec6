// The guided start from nothing to a service that a client of the site reaches, with a wrong key, a wrong proposal and a
// dead target on the way.
import { expect, type Locator, type Page } from '@playwright/test';
import type { Hands } from './hands';
import { order } from './lab';
import { token } from './session';

const SITE = '10.0.0.0/16';
const PORT = 9000;
/** IKE negotiates, and agents connect, on a busy machine. */
const SOON = { timeout: 20_000 };

function fromEnvironment(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: this test is run by \`cargo nextest run e2e::console\``);
  return value;
}

export async function guidedStart(page: Page, hands: Hands): Promise<void> {
  await page.goto('./');
  await hands.fill(page.getByLabel('Token'), token());
  await hands.press(page.getByRole('button', { name: 'Sign in', exact: true }));
  await expect(page.getByText('This Frontdoor is empty')).toBeVisible();
  await hands.press(page.locator('main').getByRole('link', { name: 'Publish a service' }));
  await connectAgent(page, hands);
  await connectSite(page, hands);
  await publish(page, hands);
}

async function connectAgent(page: Page, hands: Hands): Promise<void> {
  await hands.press(page.getByRole('button', { name: 'Make an enrolment code' }));
  const command = await page.locator('pre', { hasText: '--enrollment-token-file' }).textContent();
  const code = /^ echo (\S+) \|/.exec(command ?? '')?.[1];
  expect(code, command ?? '').toBeTruthy();
  await expect(page.getByText('Waiting for the agent')).toBeVisible();
  await order({ do: 'agent', code });
  await expect(page.getByText('has enrolled.')).toBeVisible(SOON);
  await expect(step(page, 'Connect an agent')).toContainText('Connected', SOON);
  await hands.press(page.getByRole('button', { name: 'Continue: connect the site' }));
}

async function connectSite(page: Page, hands: Hands): Promise<void> {
  await expect(page.getByRole('heading', { name: '2. Connect the site' })).toBeFocused();
  await hands.fill(page.getByLabel('Name', { exact: true }), 'branch');
  await hands.fill(page.getByLabel('Public address of the device'), fromEnvironment('PEER'));
  await hands.fill(page.getByLabel('Network of the site'), SITE);
  await hands.press(page.getByRole('button', { name: 'Create the tunnel' }));
  await expect(page.getByText('Waiting for the device at')).toBeVisible(SOON);
  await hands.press(page.getByRole('button', { name: 'Show', exact: true }));
  const config = (await page.getByLabel('Configuration for strongSwan').textContent()) ?? '';

  await order({ do: 'site', config: changed(config, /secret = "[^"]*"/, 'secret = "another key"') });
  await expectNamed(page, 'PreSharedKeysDiffer', "put the key from the tunnel's vpn-config");
  await order({ do: 'site', config: changed(config, /^( +)proposals = .*$/m, '$1proposals = aes128-sha1-modp2048') });
  await expectNamed(page, 'NoCommonIkeProposal', /AES_CBC_128.* on the (site's )?device/i);
  await order({ do: 'site', config });
  await expect(page.getByText('The device is connected.')).toBeVisible(SOON);
  // No packet has come yet, which is a warning.
  await expect(page.locator('.problem.bad:visible')).toHaveText([]);
  await expect(step(page, 'Connect the site')).toContainText('Up');
  await hands.press(page.getByRole('button', { name: 'Continue: publish the service' }));
}

async function publish(page: Page, hands: Hands): Promise<void> {
  const host = fromEnvironment('TARGET').replace(/:\d+$/, '');
  await expect(page.getByRole('heading', { name: '3. Publish the service' })).toBeFocused();
  await hands.fill(page.getByLabel('Name', { exact: true }), 'greeting');
  await hands.fill(page.getByLabel('Ingress port'), String(PORT));
  await hands.fill(page.getByLabel('Target'), `${host}:7002`);
  await hands.press(page.getByRole('button', { name: 'Create the share' }));
  const onward = page.getByRole('button', { name: /^Continue/ });
  await expect(onward).toBeEnabled(SOON);
  await hands.press(onward);

  // Nothing listens at the target.
  await expect(page.getByRole('heading', { name: '4. Check it' })).toBeFocused();
  const check = page.getByRole('region', { name: 'Check', exact: true });
  const target = check.getByRole('listitem').filter({ hasText: 'Target' });
  const again = page.getByRole('button', { name: 'Check again' });
  await expect(again).toBeVisible(SOON);
  // The first check may be earlier than the port.
  await expect(async () => {
    await hands.press(again);
    await expect(again).toBeEnabled(SOON);
    await expect(target).toContainText('Failed', { timeout: 1000 });
  }).toPass(SOON);
  await expect(target).toContainText(`${host}:7002`);
  await expect(target).toContainText('start the service, or correct the port of the target');

  await order({ do: 'target', port: 7002 });
  await hands.press(again);
  await expect(page.getByText('The service is published')).toBeVisible(SOON);
  await expect(step(page, 'Check it')).toContainText('Passed');
  const command = await page.locator('code', { hasText: 'nc -vz' }).textContent();
  const [address, port] = (command ?? '').replace('nc -vz ', '').split(' ');
  expect((await order({ do: 'ask', to: `${address}:${port}` })).said).toBe('here');
}

function step(page: Page, title: string): Locator {
  return page.getByRole('navigation', { name: 'Steps' }).getByRole('button', { name: new RegExp(title) });
}

/** What is wrong at a station of the path. For narrow windows, the page has each a second time. */
const problems = (page: Page): Locator => page.locator('.problem:visible');

/** The page names the fault, and says what to do. */
async function expectNamed(page: Page, reason: string, cure: string | RegExp): Promise<void> {
  const problem = problems(page).filter({ hasText: reason });
  await expect(problem).toBeVisible(SOON);
  await expect(problem).toContainText(cure);
  await expect(page.getByText('The device was refused.')).toBeVisible(SOON);
}

function changed(text: string, what: RegExp, by: string): string {
  const result = text.replace(what, by);
  expect(result).not.toBe(text);
  return result;
}
