// Where the keyboard goes on after a refused form.
import { tick } from 'svelte';

/** Moves the focus to the first field with a fault, or back to the form's button. Call it once the button is enabled again. */
export async function focusFault(form: HTMLFormElement | undefined): Promise<void> {
  await tick();
  const invalid = form?.querySelector<HTMLElement>('[aria-invalid="true"]');
  invalid?.closest('details')?.setAttribute('open', '');
  const button = [...(form?.elements ?? [])].find((one) => one instanceof HTMLButtonElement && one.type === 'submit');
  (invalid ?? (button as HTMLElement | undefined))?.focus();
}
