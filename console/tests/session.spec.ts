// Signing in and out, and a session that ends while something is typed.
import { expect } from '@playwright/test';
import { call, frontdoor, signIn, test, token } from './session';

test('a wrong token is refused with the reason, and the right one opens the page that was asked for', async ({ page }) => {
  await page.goto('./#/executions');
  await page.getByLabel('Token').fill('not-a-token');
  await page.getByRole('button', { name: 'Sign in', exact: true }).click();
  await expect(page.getByRole('alert')).toBeVisible();
  await signIn(page);
  await page.goto('./#/executions');
  await expect(page.getByRole('heading', { name: 'Executions', level: 1 })).toBeVisible();
});

test('after signing out, a reload asks for the token', async ({ page }) => {
  await signIn(page);
  await page.getByRole('button', { name: /^Account of/ }).click();
  await page.getByRole('button', { name: 'Sign out', exact: true }).click();
  await expect(page.getByLabel('Token')).toBeVisible();
  await page.reload();
  await expect(page.getByLabel('Token')).toBeVisible();
});

test('a session that ends keeps what was typed, and sends the refused call again', async ({ page }) => {
  await signIn(page, '#/accounts');
  await page.getByRole('button', { name: 'Create an account' }).click();
  const dialog = page.getByRole('dialog', { name: 'Create an API account' });
  await dialog.getByLabel('Name').fill('kept-over-the-end');
  await page.context().clearCookies();
  await dialog.getByRole('button', { name: 'Create the account' }).click();
  await expect(page.getByRole('dialog', { name: 'The session has ended' })).toBeVisible();
  await page.getByLabel('Token').fill(token());
  await page.getByRole('button', { name: 'Sign in', exact: true }).click();
  await expect(page.getByRole('dialog', { name: 'The secret of kept-over-the-end' })).toBeVisible();
  await page.keyboard.press('Escape');
  await page.keyboard.press('Escape');
  await expect(page.getByText('Store the secret now')).toBeVisible();
  await page.getByLabel('The secret is stored').check();
  await page.getByRole('button', { name: 'Close' }).click();
  await page.getByRole('button', { name: 'Revoke kept-over-the-end' }).click();
  await page.getByRole('button', { name: 'Revoke the account' }).click();
  await expect(page.getByRole('button', { name: 'Revoke kept-over-the-end' })).toHaveCount(0);
});

test('a session that is revoked at the server keeps what was typed', async ({ page, playwright, baseURL }) => {
  const account = await call<{ clientId: string; clientSecret: string }>(page, 'POST', '/api-accounts', { name: 'elsewhere', scopes: ['frontdoor.read', 'frontdoor.write'], frontdoorIds: [await frontdoor(page)] });
  const enter = async () => {
    await page.getByLabel('Token').fill(account.clientSecret);
    await page.getByRole('button', { name: 'Sign in', exact: true }).click();
  };
  await page.goto('./#/tunnels');
  await enter();
  await page.getByRole('button', { name: 'Create a tunnel' }).click();
  const dialog = page.getByRole('dialog', { name: 'Create a tunnel' });
  await dialog.getByLabel('Name').fill('kept-over-the-revocation');
  await dialog.getByLabel('Public address of the device').fill('198.51.100.210');
  await dialog.getByLabel('Network of the site').fill('10.79.0.0/16');
  // "Sign out everywhere", in another browser of the same account.
  const elsewhere = await playwright.request.newContext(baseURL ? { baseURL } : {});
  const begun = (await (await elsewhere.post('./console/session', { data: { token: account.clientSecret } })).json()) as { csrfToken: string };
  const ended = await elsewhere.delete('./console/session?all=true', { headers: { 'X-CSRF-Token': begun.csrfToken } });
  expect(ended.status()).toBe(204);
  await elsewhere.dispose();
  await dialog.getByRole('button', { name: 'Create', exact: true }).click();
  await expect(page.getByRole('dialog', { name: 'The session has ended' })).toBeVisible();
  await enter();
  await expect(page.getByRole('heading', { name: 'kept-over-the-revocation', level: 1 })).toBeVisible();
  const made = await call<{ content: { id: string; name: string }[] }>(page, 'GET', `/${await frontdoor(page)}/ipsec-tunnels?name=kept-over-the-revocation`);
  expect(made.content).toHaveLength(1);
  await call(page, 'DELETE', `/${await frontdoor(page)}/ipsec-tunnels/${made.content[0]!.id}`);
  await call(page, 'DELETE', `/api-accounts/${account.clientId}`);
});

test('an account that may only read sees no button that writes', async ({ page }) => {
  const account = await call<{ clientId: string; clientSecret: string }>(page, 'POST', '/api-accounts', { name: 'reader', scopes: ['frontdoor.read'], frontdoorIds: [await frontdoor(page)] });
  await page.goto('./#/tunnels');
  await page.getByLabel('Token').fill(account.clientSecret);
  await page.getByRole('button', { name: 'Sign in', exact: true }).click();
  await expect(page.getByRole('heading', { name: 'Tunnels', level: 1 })).toBeVisible();
  await expect(page.getByRole('button', { name: 'Create a tunnel' })).toHaveCount(0);
  await expect(page.getByRole('link', { name: 'API accounts' })).toHaveCount(0);
  await call(page, 'DELETE', `/api-accounts/${account.clientId}`);
  await page.getByRole('link', { name: 'Shares' }).click();
  await expect(page.getByRole('dialog', { name: 'The session has ended' })).toBeVisible();
});
