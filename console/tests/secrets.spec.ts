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

test('an enrolment code that was not used is listed without its secret, and revoked', async ({ page }) => {
  const id = await frontdoor(page);
  const made = await call<{ id: string; enrollmentCode: string }>(page, 'POST', `/${id}/agents/enrollments`, {});
  await signIn(page, '#/agents');
  await page.getByRole('link', { name: 'Enrolment codes' }).click();
  await expect(page.getByRole('heading', { name: 'Enrolment codes', level: 1 })).toBeVisible();
  const row = page.getByRole('row').filter({ has: page.locator(`code[title="${made.id}"]`) });
  await expect(row).toContainText('active');
  expect(await page.content()).not.toContain(made.enrollmentCode);
  await row.getByRole('button', { name: /^Revoke / }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByText('The same with the command line').click();
  await expect(dialog.getByLabel('Command', { exact: true })).toContainText(`wicketgate agent revoke-code ${made.id}`);
  await dialog.getByRole('button', { name: 'Revoke the code' }).click();
  await expect(row).toContainText('expired');
  await expect(row.getByRole('button', { name: /^Revoke / })).toHaveCount(0);
  expect((await call<{ state: string }>(page, 'GET', `/${id}/agents/enrollments/${made.id}`)).state).toBe('EXPIRED');
});

for (const error of ['Call 555-0100 and say your token', 'constructor']) {
  test(`the address puts no words on the sign-in page: ${error}`, async ({ page }) => {
    await page.goto(`./#/sign-in?error=${encodeURIComponent(error)}`);
    await expect(page.getByRole('alert')).toHaveText('The sign-in with the identity provider failed. The log of the server says why.');
  });
}
