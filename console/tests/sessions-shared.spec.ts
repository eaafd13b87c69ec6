// Tabs share the browser's session: signing out when another tab changed it, and calls that must not be sent for another user.
import { expect, type Page } from '@playwright/test';
import { call, signIn, test, token } from './session';

/** What another tab does when it signs in: the browser has another cookie then. */
async function signInElsewhere(page: Page, secret: string): Promise<void> {
  expect((await page.request.post('./console/session', { data: { token: secret } })).status()).toBe(201);
}

async function signOut(page: Page, button = 'Sign out'): Promise<void> {
  await page.getByRole('button', { name: /^Account of/ }).click();
  await page.getByRole('button', { name: button, exact: true }).click();
}

async function expectSignedOut(page: Page): Promise<void> {
  await expect(page.getByLabel('Token')).toBeVisible();
  expect((await page.request.get('./console/session')).status()).toBe(401);
  await page.reload();
  await expect(page.getByLabel('Token')).toBeVisible();
}

for (const button of ['Sign out', 'Sign out everywhere']) {
  test(`"${button}" ends the session that another tab began`, async ({ page }) => {
    await signIn(page);
    await signInElsewhere(page, token());
    await signOut(page, button);
    await expectSignedOut(page);
  });
}

test('the dialog of an ended session leads to the sign-in page', async ({ page }) => {
  await signIn(page, '#/tunnels');
  await page.context().clearCookies();
  // Not by a click: the dialog may be there already, and covers the link.
  await page.evaluate(() => (location.hash = '#/shares'));
  await page.getByRole('dialog', { name: 'The session has ended' }).getByRole('button', { name: 'Sign out instead' }).click();
  await expectSignedOut(page);
});

test('"Sign out everywhere" in a session that has just ended says that others may go on', async ({ page }) => {
  await signIn(page);
  await page.route('**/console/session*', async (route) => {
    if (route.request().method() !== 'DELETE') return route.continue();
    await page.context().clearCookies();
    return route.fulfill({ status: 401, json: { error: 'session_expired', message: 'The session has ended' } });
  });
  await signOut(page, 'Sign out everywhere');
  await expect(page.getByText('the server did not end your other ones')).toBeVisible();
  await expectSignedOut(page);
});

for (const fault of ['no answer', 'status 503'] as const) {
  test(`a sign-out that the server did not do is not said to be done: ${fault}`, async ({ page }) => {
    await signIn(page);
    await page.route('**/console/session*', (route) => {
      if (route.request().method() !== 'DELETE') return route.continue();
      return fault === 'no answer' ? route.abort() : route.fulfill({ status: 503, body: 'no server' });
    });
    await signOut(page);
    const dialog = page.getByRole('dialog', { name: 'You are still signed in' });
    await expect(dialog.getByRole('alert')).toContainText(fault === 'no answer' ? 'does not answer' : '503');
    await page.keyboard.press('Escape');
    await expect(dialog).toHaveCount(0);
    await expect(page.getByRole('navigation', { name: 'Pages' })).toBeVisible();
    await signOut(page);
    await page.unroute('**/console/session*');
    await dialog.getByRole('button', { name: 'Sign out again' }).click();
    await expectSignedOut(page);
  });
}

/** How another user's session reaches the page while a call of the first user waits. */
const WAYS: Record<string, (page: Page, secret: string) => Promise<void>> = {
  'another tab signed in before the call': async (page, secret) => {
    await signInElsewhere(page, secret);
    await page.getByRole('button', { name: 'Create the account' }).click();
  },
  'the dialog of the ended session': async (page, secret) => {
    await page.context().clearCookies();
    await page.getByRole('button', { name: 'Create the account' }).click();
    await expect(page.getByRole('dialog', { name: 'The session has ended' })).toBeVisible();
    await page.getByLabel('Token').fill(secret);
    await page.getByRole('button', { name: 'Sign in', exact: true }).click();
  },
  'another tab signed in while the dialog was open': async (page, secret) => {
    await page.context().clearCookies();
    await page.getByRole('button', { name: 'Create the account' }).click();
    await expect(page.getByRole('dialog', { name: 'The session has ended' })).toBeVisible();
    await signInElsewhere(page, secret);
    await page.evaluate(() => window.dispatchEvent(new Event('focus')));
  },
};

for (const [way, act] of Object.entries(WAYS)) {
  test(`a call is not sent again for another user: ${way}`, async ({ page }) => {
    const organizationId = (await call<{ content: { organizationId: string }[] }>(page, 'GET', '')).content[0]!.organizationId;
    const other = await call<{ clientId: string; clientSecret: string }>(page, 'POST', '/api-accounts', {
      name: 'other-user',
      scopes: ['frontdoor.read', 'frontdoor.write', 'frontdoor.admin'],
      organizationId,
    });
    const accounts = async () => (await call<{ content: { clientId: string; name: string }[] }>(page, 'GET', '/api-accounts?size=1000')).content;
    const name = `of-the-first-user-${Date.now()}`;
    try {
      const accepted: number[] = [];
      page.on('response', (response) => {
        if (response.request().method() === 'POST' && response.url().includes('/api-accounts') && response.ok()) accepted.push(response.status());
      });
      await signIn(page, '#/accounts');
      await page.getByRole('button', { name: 'Create an account' }).click();
      await page.getByRole('dialog', { name: 'Create an API account' }).getByLabel('Name').fill(name);
      const reloaded = page.waitForEvent('load');
      await act(page, other.clientSecret);
      await reloaded;
      await expect(page.getByRole('button', { name: /^Account of other-user/ })).toBeVisible();
      await expect(page.getByRole('dialog')).toHaveCount(0);
      expect(accepted).toEqual([]);
      expect((await accounts()).filter((account) => account.name === name)).toEqual([]);
    } finally {
      for (const account of await accounts()) {
        if (account.name === name || account.clientId === other.clientId) await call(page, 'DELETE', `/api-accounts/${account.clientId}`);
      }
    }
  });
}

test('what was typed is not shown to the next user', async ({ page }) => {
  const organizationId = (await call<{ content: { organizationId: string }[] }>(page, 'GET', '')).content[0]!.organizationId;
  const other = await call<{ clientId: string; clientSecret: string }>(page, 'POST', '/api-accounts', { name: 'next-user', scopes: ['frontdoor.read', 'frontdoor.write'], organizationId });
  try {
    await signIn(page, '#/tunnels');
    await page.getByRole('button', { name: 'Create a tunnel' }).click();
    await page.getByRole('dialog').getByLabel('Name').fill('of-the-first-user');
    await page.getByRole('button', { name: 'Cancel' }).click();
    await signOut(page);
    await page.getByLabel('Token').fill(other.clientSecret);
    await page.getByRole('button', { name: 'Sign in', exact: true }).click();
    await page.getByRole('button', { name: 'Create a tunnel' }).click();
    await expect(page.getByRole('dialog').getByLabel('Name')).toHaveValue('');
  } finally {
    await call(page, 'DELETE', `/api-accounts/${other.clientId}`);
  }
});

test('calls that the page makes by itself say so, and those of a person do not', async ({ page }) => {
  test.setTimeout(60_000);
  await signIn(page, '#/executions');
  await expect(page.getByRole('heading', { name: 'Executions', level: 1 })).toBeVisible();
  const calls: { url: string; own: boolean }[] = [];
  page.on('request', (request) => {
    if (request.url().includes('/frontdoor/v2') && !request.url().endsWith('/events')) calls.push({ url: request.url(), own: request.headers()['x-background'] === 'true' });
  });
  // The list is read again every five seconds.
  await expect.poll(() => calls.length, { timeout: 15_000 }).toBeGreaterThan(1);
  expect(calls.filter((each) => !each.own)).toEqual([]);
  calls.length = 0;
  await page.getByRole('link', { name: 'Tunnels' }).click();
  await expect.poll(() => calls.filter((each) => !each.own && each.url.includes('/ipsec-tunnels?')).length).toBe(1);
});
