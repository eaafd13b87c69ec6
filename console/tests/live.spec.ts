// What somebody else creates, changes and deletes is seen by those who look at the list.
import { expect, type Page } from '@playwright/test';
import { call, frontdoor, signIn, test } from './session';

/** Within a second, on a quiet machine: the measured times are printed. */
const BOUND_MS = 5000;

/** Resolves to the time at which the row of `name` has `text`; without a text, at which there is no such row or it ends. */
const seen = (page: Page, name: string, text?: string): Promise<number> =>
  page.evaluate(
    ([name, text]) =>
      new Promise<number>((done) => {
        const look = (): void => {
          const row = [...document.querySelectorAll('tbody tr')].find((one) => one.textContent.includes(name!));
          const isThere = text ? row?.textContent.includes(text) : !row || row.textContent.includes('Deleting');
          if (!isThere) return;
          observer.disconnect();
          done(Date.now());
        };
        const observer = new MutationObserver(look);
        observer.observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
        look();
      }),
    [name, text] as const,
  );

test('a second browser sees each change of a tunnel and a share', async ({ page, browser, baseURL }) => {
  const id = await frontdoor(page);
  const locations = await call<{ content: { id: string }[] }>(page, 'GET', `/${id}/locations`);
  const environments = await call<{ content: { zId: string }[] }>(page, 'GET', `/${id}/environments`);
  const [context, unique] = [await browser.newContext(baseURL ? { baseURL } : {}), `live-${Date.now()}`];
  const other = await context.newPage();
  await signIn(page, '#/overview');
  await signIn(other, '#/tunnels');
  await expect(other.getByText('Live', { exact: true })).toBeVisible();

  /** Does something as the first browser's user, and measures when the second one shows it. */
  async function measured<T>(what: string, watched: Promise<number>, act: () => Promise<T>): Promise<T> {
    const answer = await act();
    const answered = Date.now();
    const took = (await watched) - answered;
    console.log(`${what}: seen ${took} ms after the API's answer`);
    expect(took, what).toBeLessThan(BOUND_MS);
    return answer;
  }

  const name = `${unique}-tunnel`;
  const tunnel = await measured('a tunnel is created', seen(other, name, name), () =>
    call<{ id: string }>(page, 'POST', `/${id}/ipsec-tunnels`, { name, locationId: locations.content[0]!.id, peerPublicIp: '198.51.100.201', peerCidr: '10.78.0.0/16' }));
  await measured('a tunnel is changed', seen(other, name, 'Disabled'), () => call(page, 'PATCH', `/${id}/ipsec-tunnels/${tunnel.id}`, { enabled: false }));

  await other.goto('./#/shares');
  await expect(other.getByRole('heading', { name: 'Shares', level: 1 })).toBeVisible();
  await expect(other.getByText('Loading')).toHaveCount(0);
  const shareName = `${unique}-share`;
  const share = await measured('a share is created', seen(other, shareName, shareName), () =>
    call<{ id: string }>(page, 'POST', `/${id}/ipsec-shares`, { name: shareName, ipsecTunnelId: tunnel.id, envZId: environments.content[0]!.zId, target: '127.0.0.1:7001', ingressPort: 9876 }));
  await measured('a share is changed', seen(other, shareName, '127.0.0.1:7003'), () => call(page, 'PATCH', `/${id}/ipsec-shares/${share.id}`, { target: '127.0.0.1:7003' }));
  await measured('a share is deleted', seen(other, shareName), () => call(page, 'DELETE', `/${id}/ipsec-shares/${share.id}`));

  await other.goto('./#/tunnels');
  await expect(other.getByRole('row', { name: new RegExp(name) })).toBeVisible();
  await measured('a tunnel is deleted', seen(other, name), () => call(page, 'DELETE', `/${id}/ipsec-tunnels/${tunnel.id}`));
  await context.close();
});
