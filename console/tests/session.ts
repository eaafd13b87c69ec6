// What the tests share: the token, signing in, and pages that must not log an error.
import { readFileSync } from 'node:fs';
import { expect, test as base, type Page } from '@playwright/test';

const file = process.env.CONSOLE_TOKEN_FILE ?? '/var/lib/wicketgate/admin.token';

export const token = (): string => readFileSync(file, 'utf8').trim();

/** A page whose console has no errors but those of calls that were refused. */
export const test = base.extend({
  page: async ({ page }, use) => {
    const errors: string[] = [];
    page.on('console', (message) => {
      if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) errors.push(message.text());
    });
    page.on('pageerror', (error) => errors.push(error.message));
    await use(page);
    expect(errors).toEqual([]);
  },
});

export async function signIn(page: Page, fragment = ''): Promise<void> {
  await page.goto(`./${fragment}`);
  await page.getByLabel('Token').fill(token());
  await page.getByRole('button', { name: 'Sign in', exact: true }).click();
  await expect(page.getByRole('navigation', { name: 'Pages' })).toBeVisible();
}

/** Calls the API with the token, to prepare what a test shows. Relative to the console's address. */
export async function call<T>(page: Page, method: string, path: string, data?: unknown): Promise<T> {
  const response = await page.request.fetch(`./frontdoor/v2${path}`, { method, headers: { Authorization: `Bearer ${token()}` }, ...(data === undefined ? {} : { data }) });
  expect(response.ok(), await response.text()).toBe(true);
  return (response.status() === 204 ? undefined : await response.json()) as T;
}

export async function frontdoor(page: Page): Promise<string> {
  return (await call<{ content: { id: string }[] }>(page, 'GET', '')).content[0]!.id;
}
