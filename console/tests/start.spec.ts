// The guided start. By keyboard alone it is a test of its own, since each needs an empty server and a site.
import { guidedStart } from './start';
import { mouse } from './hands';
import { test } from './session';

test('from nothing to a share that answers', async ({ page }) => {
  test.setTimeout(180_000);
  await guidedStart(page, mouse);
});
