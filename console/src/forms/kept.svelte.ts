// What was typed into the forms that create something, kept when their dialog is closed or another page is opened.
import { shareDraft, tunnelDraft } from './drafts';

export const kept = $state({ tunnel: tunnelDraft(), share: shareDraft() });
