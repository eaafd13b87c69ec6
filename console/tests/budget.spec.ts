// What the console costs a browser, and that nothing but the server is in it: size, time on a slow processor, policy, prefix.
import { createServer, request as ask } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, type Page } from '@playwright/test';
import { signIn, test } from './session';

const FIRST_LOAD_BYTES = 250 * 1024;
/** A machine that also runs the other tests. The measured times are printed. */
const INTERACTIVE_MS = 10_000;
const SLOWER = 4;

/** The bytes that pass on the line while `act` runs, headers and all. */
async function transferred(page: Page, act: () => Promise<void>): Promise<number> {
  const cdp = await page.context().newCDPSession(page);
  let bytes = 0;
  cdp.on('Network.loadingFinished', (finished) => (bytes += finished.encodedDataLength));
  await cdp.send('Network.enable');
  await act();
  await cdp.detach();
  return bytes;
}

test('the first load is small: the page to sign in at, and the overview after it', async ({ page }) => {
  const bytes = await transferred(page, async () => {
    await signIn(page);
    await expect(page.getByRole('heading', { level: 1 })).not.toHaveText('Overview');
  });
  console.log(`first load: ${bytes} bytes compressed`);
  expect(bytes).toBeGreaterThan(10_000);
  expect(bytes).toBeLessThan(FIRST_LOAD_BYTES);
});

test('a processor four times slower shows the overview soon', async ({ page }) => {
  await signIn(page);
  const cdp = await page.context().newCDPSession(page);
  await cdp.send('Network.setCacheDisabled', { cacheDisabled: true });
  await cdp.send('Emulation.setCPUThrottlingRate', { rate: SLOWER });
  await page.addInitScript(() => {
    const long = { end: 0, longest: 0, blocked: 0 };
    Object.assign(window, { long });
    new PerformanceObserver((list) => {
      for (const task of list.getEntries()) {
        long.end = Math.max(long.end, task.startTime + task.duration);
        long.longest = Math.max(long.longest, task.duration);
        long.blocked += task.duration - 50;
      }
    }).observe({ type: 'longtask', buffered: true });
  });
  await page.reload();
  await expect(page.getByRole('heading', { level: 1 })).not.toHaveText('Overview');
  const { shown, long } = await page.evaluate(() => ({ shown: performance.now(), long: (window as unknown as { long: { end: number; longest: number; blocked: number } }).long }));
  const interactive = Math.max(shown, long.end);
  console.log(`processor ${SLOWER} times slower: interactive after ${Math.round(interactive)} ms, longest task ${Math.round(long.longest)} ms, blocked ${Math.round(long.blocked)} ms`);
  expect(interactive).toBeLessThan(INTERACTIVE_MS);
});

test('the policy allows no inline script and nothing of another origin', async ({ page, baseURL }) => {
  const strangers: string[] = [];
  page.on('request', (request) => {
    if (!request.url().startsWith(baseURL!) && !request.url().startsWith('data:')) strangers.push(request.url());
  });
  for (const file of ['', 'site']) {
    const answer = await page.goto(`./${file}`);
    const policy = answer!.headers()['content-security-policy'] ?? '';
    expect(policy).toContain("default-src 'none'");
    expect(policy).not.toMatch(/unsafe|https?:|\*/);
    expect(answer!.headers()['referrer-policy']).toBe('no-referrer');
  }
  await signIn(page);
  await expect(page.getByRole('heading', { level: 1 })).not.toHaveText('Overview');
  expect(strangers).toEqual([]);
});

test('the policy is in force', async ({ browser, baseURL }) => {
  // Not the page of the other tests: the browser logs the refusal as an error.
  const page = await browser.newPage(baseURL ? { baseURL } : {});
  await page.goto('./');
  const ran = await page.evaluate(() => {
    const script = document.createElement('script');
    script.textContent = 'window.ran = true';
    document.head.append(script);
    return 'ran' in window;
  });
  expect(ran).toBe(false);
  await page.close();
});

test('below the path of a reverse proxy, everything works', async ({ browser, baseURL }) => {
  const [prefix, beside] = ['/tools/gate', [] as string[]];
  const server = new URL(baseURL!);
  const proxy = createServer((from, to) => {
    const path = from.url ?? '';
    if (!path.startsWith(`${prefix}/`)) {
      beside.push(path);
      to.writeHead(404).end();
      return;
    }
    const headers = { ...from.headers, 'x-forwarded-prefix': prefix, 'x-forwarded-host': from.headers.host, 'x-forwarded-proto': 'http' };
    const onward = ask({ host: server.hostname, port: server.port, path: path.slice(prefix.length), method: from.method, headers }, (answer) => {
      to.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(to);
    });
    onward.on('error', () => to.destroy());
    to.on('close', () => onward.destroy());
    from.pipe(onward);
  });
  await new Promise<void>((done) => proxy.listen(0, '127.0.0.1', done));
  const context = await browser.newContext({ baseURL: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}${prefix}/` });
  try {
    const page = await context.newPage();
    await signIn(page);
    for (const name of ['Tunnels', 'Shares', 'Environments', 'Agents', 'Executions', 'API accounts', 'Publish a service', 'Overview']) {
      await page.getByRole('navigation', { name: 'Pages' }).getByRole('link', { name, exact: true }).click();
      await expect(page.getByRole('heading', { level: 1 })).toBeVisible();
      await expect(page.getByRole('alert')).toHaveCount(0);
      await expect(page.getByText('Live', { exact: true })).toBeVisible();
    }
    // A call that writes.
    await page.goto('./#/accounts');
    await page.getByRole('button', { name: 'Create an account' }).click();
    await page.getByRole('dialog').getByLabel('Name').fill('below-a-prefix');
    await page.getByRole('button', { name: 'Create the account' }).click();
    await page.getByLabel('The secret is stored').check();
    await page.getByRole('button', { name: 'Close' }).last().click();
    await page.getByRole('button', { name: 'Revoke below-a-prefix' }).click();
    await page.getByRole('button', { name: 'Revoke the account' }).click();
    await expect(page.getByRole('button', { name: 'Revoke below-a-prefix' })).toHaveCount(0);
    await page.reload();
    await expect(page.getByRole('heading', { name: 'API accounts' })).toBeVisible();
    await page.getByRole('button', { name: /^Account of/ }).click();
    await page.getByRole('button', { name: 'Sign out', exact: true }).click();
    await expect(page.getByLabel('Token')).toBeVisible();
    expect(beside.filter((path) => path !== '/favicon.ico')).toEqual([]);
  } finally {
    await context.close();
    proxy.closeAllConnections();
    proxy.close();
  }
});
