// Signing in at an identity provider, a certified OpenID provider on a port of its own.
import { expect } from '@playwright/test';
import { test } from './session';

test('a person signs in at the provider, returns to the page that was asked for, and signs out', async ({ page }) => {
  await page.goto('./#/tunnels?sort=name');
  await page.getByRole('link', { name: 'Sign in with the identity provider' }).click();
  await page.getByRole('button', { name: 'Sign in as alice' }).click();
  await expect(page.getByRole('heading', { name: 'Tunnels', level: 1 })).toBeVisible();
  await expect(page).toHaveURL(/#\/tunnels\?sort=name/);
  const account = page.getByRole('button', { name: /^Account of oidc:alice/ });
  await account.click();
  await expect(page.getByText('(identity provider)')).toBeVisible();
  // The provider granted reading and writing.
  await expect(page.getByRole('link', { name: 'API accounts' })).toHaveCount(0);
  await page.getByRole('button', { name: 'Sign out', exact: true }).click();
  await expect(page.getByRole('heading', { name: 'Sign in' })).toBeVisible();
  await page.reload();
  await expect(page.getByRole('heading', { name: 'Sign in' })).toBeVisible();
});

test('a sign-in that the provider refuses says why', async ({ page }) => {
  await page.goto('./');
  await page.getByRole('link', { name: 'Sign in with the identity provider' }).click();
  await page.getByRole('button', { name: 'Refuse' }).click();
  await expect(page.getByRole('alert')).toContainText('The identity provider refused the sign-in');
  await expect(page.getByLabel('Token')).toBeVisible();
});

test('a callback of another browser signs nobody in', async ({ page }) => {
  await page.goto('./console/callback?code=another&state=another');
  await expect(page.getByRole('alert')).toContainText('began in another browser');
});
