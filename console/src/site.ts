// Starts the page of the remote site's engineer.
import { mount } from 'svelte';
import './app.css';
import Site from './site/Site.svelte';

mount(Site, { target: document.getElementById('app')! });
