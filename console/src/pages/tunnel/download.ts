// Saves a text as a file of the browser.

export function download(name: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type: 'text/plain' }));
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  // The browser has read the text by then.
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
