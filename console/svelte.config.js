// Compiler options of Svelte: runes everywhere.
export default { compilerOptions: { runes: true } };
