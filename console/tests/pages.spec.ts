// Every page: no finding of axe, no error in the browser's console (so no violation of the policy), nothing wider than the
// window. Pictures of all of them are in the directory SCREENSHOTS, or among the results.
import AxeBuilder from '@axe-core/playwright';
import { expect, type Page } from '@playwright/test';
import { call, frontdoor, signIn, test, token } from './session';

const LISTS = ['overview', 'tunnels', 'shares', 'environments', 'agents', 'enrolment-codes', 'executions', 'accounts', 'frontdoors', 'unknown-agents', 'start'];
const TUNNEL_TABS = ['connection', 'device', 'log', 'history', 'metrics', 'settings'];

/** The pages as names and fragments: the lists, and the first resource of each. */
async function pages(page: Page): Promise<[name: string, fragment: string][]> {
  const id = await frontdoor(page);
  const one = async (kind: string): Promise<string> => (await call<{ content: { id: string }[] }>(page, 'GET', `/${id}/${kind}?sort=createdAt`)).content[0]!.id;
  const [tunnel, environment, agent] = [await one('ipsec-tunnels'), await one('environments'), await one('agents')];
  const shares = (await call<{ content: { id: string; name: string }[] }>(page, 'GET', `/${id}/ipsec-shares?sort=createdAt`)).content;
  return [
    ...LISTS.map((name): [string, string] => [name, name]),
    ...TUNNEL_TABS.map((tab): [string, string] => [`tunnel-${tab}`, `tunnels/${tunnel}?tab=${tab}`]),
    ...shares.map((share): [string, string] => [`share-${share.name}`, `shares/${share.id}`]),
    ['environment', `environments/${environment}`],
    ['agent', `agents/${agent}`],
    ['start-tunnel', `start?step=tunnel&tunnel=${tunnel}`],
    ['start-share', `start?step=share&tunnel=${tunnel}&share=${shares[0]!.id}`],
    ['start-check', `start?step=check&tunnel=${tunnel}&share=${shares[0]!.id}`],
  ];
}

// The test around the browser names one: each takes more than a minute.
const SCHEMES = (['light', 'dark'] as const).filter((scheme) => (process.env.SCHEME ?? scheme) === scheme);

for (const colorScheme of SCHEMES) {
  for (const width of [1280, 360]) {
    test(`pages, ${colorScheme}, ${width} wide`, async ({ page }, info) => {
      test.setTimeout(240_000);
      const picture = (name: string) => page.screenshot({ path: `${process.env.SCREENSHOTS ?? info.outputDir}/${name}-${colorScheme}-${width}.png`, fullPage: true });
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      await page.setViewportSize({ width, height: 800 });
      await page.goto('./');
      await expect(page.getByLabel('Token')).toBeVisible();
      expect((await new AxeBuilder({ page }).analyze()).violations).toEqual([]);
      await picture('sign-in');
      await page.getByLabel('Token').fill(token());
      await page.keyboard.press('Enter');
      await expect(page.getByLabel('Token')).toHaveCount(0);
      for (const [name, fragment] of await pages(page)) {
        await page.goto(`./#/${fragment}`);
        await expect(page.getByRole('heading', { level: 1 })).toBeVisible();
        await expect(page.getByText(/^(Loading|Reading|Checking)/)).toHaveCount(0);
        await picture(name);
        expect.soft((await new AxeBuilder({ page }).analyze()).violations, name).toEqual([]);
        expect.soft(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${name} is wider than the window`).toBe(true);
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
