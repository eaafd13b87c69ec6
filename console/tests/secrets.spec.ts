// What a stranger must not reach: links that still show something can be revoked, commands keep secrets to themselves, addresses put no words on the page.
import { expect } from '@playwright/test';
import { call, frontdoor, signIn, test } from './session';

test('a handover link that is used up can be revoked', async ({ page }) => {
  const id = await frontdoor(page);
  const locations = await call<{ content: { id: string }[] }>(page, 'GET', `/${id}/locations`);
  const tunnel = await call<{ id: string }>(page, 'POST', `/${id}/ipsec-tunnels`, {
    name: `used-up-${Date.now()}`,
    locationId: locations.content[0]!.id,
    peerPublicIp: '198.51.100.201',
    peerCidr: '10.78.0.0/16',
  });
  try {
    const link = await call<{ token: string }>(page, 'POST', `/${id}/ipsec-tunnels/${tunnel.id}/handover-links`, { description: 'branch', maxUses: 1 });
    const opened = await page.request.post('./site/open', { data: { token: link.token } });
    const { session } = (await opened.json()) as { session: string };
    const reading = () => page.request.post('./site/tunnel', { data: { session } }).then((answer) => answer.status());
    expect(await reading()).toBe(200);
    await signIn(page, `#/tunnels/${tunnel.id}?tab=device`);
    await expect(page.getByText('Used up; open pages continue')).toBeVisible();
    await page.getByRole('button', { name: 'Revoke the link branch' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Revoke the link' }).click();
    await expect(page.getByText('Used up; open pages continue')).toHaveCount(0);
    await expect(page.getByRole('button', { name: 'Revoke the link branch' })).toHaveCount(0);
    expect(await reading()).toBe(403);
  } finally {
    await call(page, 'DELETE', `/${id}/ipsec-tunnels/${tunnel.id}`);
  }
});

test('an enrolment code stays out of the history, and a token out of the arguments', async ({ page }) => {
  await signIn(page, '#/agents');
  await page.getByRole('button', { name: 'Enrol an agent' }).first().click();
  const dialog = page.getByRole('dialog');
  await dialog.getByText('The same with the command line').click();
  await dialog.getByLabel('curl').check();
  expect(await dialog.getByLabel('Command', { exact: true }).textContent()).toContain(`-H @<(printf 'Authorization: Bearer %s' "$(cat "$WICKETGATE_TOKEN_FILE")")`);
  await dialog.getByRole('button', { name: 'Make the code' }).click();
  await expect(dialog.getByText('It is shown only here.')).toBeVisible();
  expect(await dialog.getByLabel('Command', { exact: true }).textContent()).toMatch(/^ echo \S+ \|/);
});

for (const error of ['Call 555-0100 and say your token', 'constructor']) {
  test(`the address puts no words on the sign-in page: ${error}`, async ({ page }) => {
    await page.goto(`./#/sign-in?error=${encodeURIComponent(error)}`);
    await expect(page.getByRole('alert')).toHaveText('The sign-in with the identity provider failed. The log of the server says why.');
  });
}
