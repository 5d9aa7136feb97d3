// render.ts
export function renderDocs(_: unknown): string { return '<h1>API</h1>' }
