// Starts the page of the remote site's engineer.
import { mount, type Component } from 'svelte';
import './app.css';

const pages = import.meta.glob<{ default: Component }>('./site/Site.svelte', { eager: true });
for (const page of Object.values(pages)) mount(page.default, { target: document.getElementById('app')! });
