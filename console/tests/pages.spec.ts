// Every page: no finding of axe, no error in the browser's console (so no violation of the policy), nothing wider than the window.
import AxeBuilder from '@axe-core/playwright';
import { expect } from '@playwright/test';
import { signIn, test, token } from './session';

const PAGES = ['overview', 'tunnels', 'shares', 'environments', 'agents', 'executions', 'accounts', 'start'];

for (const colorScheme of ['light', 'dark'] as const) {
  for (const width of [1280, 360]) {
    test(`pages, ${colorScheme}, ${width} wide`, async ({ page }) => {
      test.setTimeout(120_000);
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      await page.setViewportSize({ width, height: 800 });
      await page.goto('./');
      await expect(page.getByLabel('Token')).toBeVisible();
      expect((await new AxeBuilder({ page }).analyze()).violations).toEqual([]);
      await page.getByLabel('Token').fill(token());
      await page.keyboard.press('Enter');
      await expect(page.getByLabel('Token')).toHaveCount(0);
      for (const name of PAGES) {
        await page.goto(`./#/${name}`);
        await expect(page.getByRole('heading', { level: 1 })).toBeVisible();
        await expect(page.getByText('Loading')).toHaveCount(0);
        expect((await new AxeBuilder({ page }).analyze()).violations, name).toEqual([]);
        expect(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${name} is wider than the window`).toBe(true);
      }
    });
  }
}

test('the page can be reached past the navigation by keyboard', async ({ page }) => {
  await signIn(page);
  await page.keyboard.press('Tab');
  await page.getByRole('link', { name: 'Skip to the page' }).focus();
  await page.keyboard.press('Enter');
  await expect(page.locator('#content')).toBeFocused();
});
