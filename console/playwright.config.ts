// Tests in a browser, of a console that a running server (or a proxy in front of it) serves.
import { defineConfig } from '@playwright/test';

export default defineConfig({
  testDir: 'tests',
  // Bounds for a busy machine: nothing waits for them where things go well.
  timeout: 90_000,
  expect: { timeout: 20_000 },
  forbidOnly: true,
  workers: 1,
  reporter: 'list',
  use: {
    baseURL: process.env.CONSOLE_URL ?? 'http://127.0.0.1:8480/',
    launchOptions: { executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu', '--disable-quic'] },
    trace: 'off',
  },
});
