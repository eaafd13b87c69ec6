// The two ways to use a page: by mouse, and by keyboard alone. A test that is written for hands is run with both.
import { expect, type Locator, type Page } from '@playwright/test';

export interface Hands {
  press(button: Locator): Promise<void>;
  fill(field: Locator, text: string): Promise<void>;
  /** An option of a `<select>`, by its text. */
  choose(select: Locator, option: string): Promise<void>;
}

export const mouse: Hands = {
  press: (button) => button.click(),
  fill: (field, text) => field.fill(text),
  choose: async (select, option) => void (await select.selectOption({ label: option })),
};

/** More stations than any page of the guided start has. */
const STATIONS = 120;

export function keyboard(page: Page): Hands {
  /** Goes forward by Tab until the focus is on `wanted`; whatever has the focus is visibly marked. */
  async function reach(wanted: Locator): Promise<void> {
    await expect(wanted).toBeVisible();
    await expect(wanted).toBeEnabled();
    for (let station = 0; station < STATIONS; station++) {
      if (await wanted.evaluate((element) => element === document.activeElement)) {
        await expectVisibleFocus(page);
        return;
      }
      await page.keyboard.press('Tab');
    }
    throw new Error(`The keyboard does not reach ${String(wanted)} with ${STATIONS} steps.`);
  }
  return {
    press: async (button) => {
      await reach(button);
      await page.keyboard.press('Enter');
    },
    fill: async (field, text) => {
      await reach(field);
      await page.keyboard.press('ControlOrMeta+A');
      await page.keyboard.type(text);
      await expect(field).toHaveValue(text);
    },
    choose: async (select, option) => {
      await reach(select);
      await page.keyboard.type(option);
      await expect(select.locator('option:checked')).toHaveText(option);
    },
  };
}

async function expectVisibleFocus(page: Page): Promise<void> {
  const seen = await page.evaluate(() => {
    const element = document.activeElement as HTMLElement;
    const style = getComputedStyle(element);
    const box = element.getBoundingClientRect();
    const isMarked = element.matches(':focus-visible') && ((style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1) || style.boxShadow !== 'none');
    const at = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
    return { isMarked, isOnTop: at !== null && (element.contains(at) || at.contains(element)), what: element.outerHTML.slice(0, 120) };
  });
  expect(seen, seen.what).toMatchObject({ isMarked: true, isOnTop: true });
}
