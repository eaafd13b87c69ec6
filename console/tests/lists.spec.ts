// Lists: filters and order in the address, changes as they happen, and what a refused form says.
import AxeBuilder from '@axe-core/playwright';
import { expect } from '@playwright/test';
import { call, frontdoor, signIn, test } from './session';

test('a tunnel that is created elsewhere appears, and a change marks its row', async ({ page }) => {
  const id = await frontdoor(page);
  await signIn(page, '#/tunnels');
  const locations = await call<{ content: { id: string }[] }>(page, 'GET', `/${id}/locations`);
  const name = `browser-${Date.now()}`;
  const tunnel = await call<{ id: string }>(page, 'POST', `/${id}/ipsec-tunnels`, { name, locationId: locations.content[0]!.id, peerPublicIp: '198.51.100.200', peerCidr: '10.77.0.0/16' });
  const row = page.getByRole('row', { name: new RegExp(name) });
  try {
    await expect(row).toBeVisible();
    await call(page, 'PATCH', `/${id}/ipsec-tunnels/${tunnel.id}`, { enabled: false });
    await expect(row.locator('.mark', { hasText: 'Disabled' })).toBeVisible();
    await expect(row).toHaveClass(/changed/);
  } finally {
    await call(page, 'DELETE', `/${id}/ipsec-tunnels/${tunnel.id}`);
  }
  await expect(row).toHaveCount(0);
});

test('filters and order are in the address, and come from it', async ({ page }) => {
  await signIn(page, '#/shares');
  await page.getByRole('button', { name: 'Not ready' }).click();
  await expect(page).toHaveURL(/ready=false/);
  await page.getByRole('button', { name: 'Remove the filter ready=false' }).click();
  await expect(page).not.toHaveURL(/ready=false/);
  await page.goto('./#/executions?status=SUCCESS&sort=createdAt');
  await expect(page.getByRole('columnheader', { name: 'Time' })).toHaveAttribute('aria-sort', 'ascending');
  await expect(page.getByRole('list', { name: 'Filters in effect' })).toContainText('status=SUCCESS');
});

test('a refused tunnel says why at each field, and keeps what was typed', async ({ page }) => {
  await signIn(page, '#/tunnels');
  await page.getByRole('button', { name: 'Create a tunnel' }).click();
  const dialog = page.getByRole('dialog', { name: 'Create a tunnel' });
  await dialog.getByLabel('Name').fill('branch');
  await dialog.getByLabel('Public address of the device').fill('not an address');
  await dialog.getByLabel('Network of the site').fill('10.0.0.1/8');
  await dialog.getByRole('button', { name: 'Create', exact: true }).click();
  await expect(dialog.getByLabel('Public address of the device')).toHaveAttribute('aria-invalid', 'true');
  await expect(dialog.getByLabel('Network of the site')).toHaveAttribute('aria-invalid', 'true');
  await dialog.getByRole('button', { name: 'Cancel' }).click();
  await expect(page.getByRole('button', { name: 'Create a tunnel' })).toBeFocused();
  await page.getByRole('button', { name: 'Create a tunnel' }).click();
  await expect(dialog.getByLabel('Name')).toHaveValue('branch');
});

test('a Frontdoor is created, and deleted once nothing is in it', async ({ page }) => {
  const name = `customer-${Date.now()}`;
  const clean = async (): Promise<void> => expect((await new AxeBuilder({ page }).analyze()).violations).toEqual([]);
  await signIn(page, '#/frontdoors');
  await page.getByRole('button', { name: 'Create a Frontdoor' }).click();
  const creating = page.getByRole('dialog', { name: 'Create a Frontdoor' });
  await creating.getByLabel('Name').fill('Not a name');
  await creating.getByRole('button', { name: 'Create', exact: true }).click();
  await expect(creating.getByLabel('Name')).toHaveAttribute('aria-invalid', 'true');
  await creating.getByLabel('Name').fill(name);
  await clean();
  await creating.getByRole('button', { name: 'Create', exact: true }).click();
  // The new one is on screen, with nothing in it.
  await expect(page).toHaveURL(/#\/overview\?frontdoor=/);
  await expect(page.getByText('This Frontdoor is empty')).toBeVisible();
  const id = new URL(page.url()).hash.split('frontdoor=')[1]!;
  const locations = await call<{ content: { id: string }[] }>(page, 'GET', `/${id}/locations`);
  const tunnel = await call<{ id: string }>(page, 'POST', `/${id}/ipsec-tunnels`, { name: 'site', locationId: locations.content[0]!.id, peerPublicIp: '198.51.100.202', peerCidr: '10.79.0.0/16' });

  await page.goto(`./#/frontdoors?frontdoor=${id}`);
  await page.getByRole('button', { name: `Delete ${name}` }).click();
  const full = page.getByRole('dialog', { name: `Frontdoor ${name} is not empty` });
  await expect(full.getByRole('listitem')).toHaveText(['1 tunnel']);
  await clean();
  await full.getByRole('button', { name: 'Close', exact: true }).last().click();

  await call(page, 'DELETE', `/${id}/ipsec-tunnels/${tunnel.id}`);
  await expect.poll(async () => (await call<{ totalElements: number }>(page, 'GET', `/${id}/ipsec-tunnels`)).totalElements).toBe(0);
  // What is in it cannot be read: that is no reason to call it empty.
  const shares = (url: URL) => url.pathname.endsWith(`/${id}/ipsec-shares`);
  await page.route(shares, (route) => route.fulfill({ status: 500, json: { error: 'internal', message: 'The database does not answer' } }));
  await page.getByRole('button', { name: `Delete ${name}` }).click();
  const unknown = page.getByRole('dialog', { name: `Delete Frontdoor ${name}` });
  await expect(unknown.getByRole('alert')).toContainText('The database does not answer');
  await expect(unknown.getByRole('button', { name: 'Delete the Frontdoor' })).toHaveCount(0);
  await clean();
  await page.unroute(shares);
  await unknown.getByRole('button', { name: 'Try again' }).click();
  await expect(unknown.getByText('Nothing is in it')).toBeVisible();
  await unknown.getByRole('button', { name: 'Cancel' }).click();

  await page.getByRole('button', { name: `Delete ${name}` }).click();
  const deleting = page.getByRole('dialog', { name: `Delete Frontdoor ${name}` });
  await expect(deleting.getByRole('button', { name: 'Delete the Frontdoor' })).toBeDisabled();
  await deleting.getByLabel(`Type ${name} to confirm`).fill(name);
  await clean();
  await deleting.getByRole('button', { name: 'Delete the Frontdoor' }).click();
  await expect(page.getByRole('row', { name: new RegExp(name) })).toHaveCount(0);
  // It was on screen: another one is now.
  await expect(page).not.toHaveURL(new RegExp(id));
  await expect(page.getByRole('row', { name: /on screen/ })).toBeVisible();
});
