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
