// Builds the console's two pages, and serves them against a running server during development.
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';
import { developmentServer } from './dev/server.ts';

export default defineConfig(({ command }) => ({
  // Relative, so that the pages work below every path prefix of a reverse proxy.
  base: './',
  plugins: [svelte(), ...(command === 'serve' ? [developmentServer()] : [])],
  build: {
    target: 'es2022',
    cssTarget: ['chrome123', 'firefox120', 'safari17.5'],
    // The Content-Security-Policy admits images as data:, and nothing else.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rollupOptions: { input: ['index.html', 'site.html'] },
  },
}));
