// The guided start without a mouse: every control is reached by Tab, and whatever has the focus is marked.
import { guidedStart } from './start';
import { keyboard } from './hands';
import { test } from './session';

test('from nothing to a share that answers, by keyboard alone', async ({ page }) => {
  test.setTimeout(180_000);
  await guidedStart(page, keyboard(page));
});
